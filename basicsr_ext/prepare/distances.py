"""A constant that the command line needs without numpy."""

from __future__ import annotations

DISTANCE = 60
"""Bits of 256 in which perceptual hashes differ at most in versions of one image; different images differ in over 90."""
