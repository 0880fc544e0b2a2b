"""Metrics, in BasicSR's registry."""
