"""Trained networks and finished images: upscaling, testing, scoring."""
