"""Models in BasicSR's registry, on one shared base."""
