"""Losses, in BasicSR's registry."""
