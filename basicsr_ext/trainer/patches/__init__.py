"""What a run replaces in BasicSR, with one table of it."""
