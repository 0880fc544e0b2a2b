"""Datasets in BasicSR's registry."""
