"""Conversion between stored pixels and the unit range."""

from __future__ import annotations

import numpy as np


def to_unit(image: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Maps uint8 [0, 255] or uint16 [0, 65535] to floating point [0, 1]; floating point only changes its dtype."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(dtype) / np.iinfo(image.dtype).max
    return image.astype(dtype)


def from_unit(image: np.ndarray, dtype: np.dtype | type | str) -> np.ndarray:
    """Clips floating point to [0, 1] and stores it as uint8, uint16 (rounded, halves upwards as MATLAB) or float32."""
    dtype = np.dtype(dtype)
    image = np.clip(image, 0, 1)
    if np.issubdtype(dtype, np.integer):
        image = np.floor(image * np.iinfo(dtype).max + 0.5)
    return image.astype(dtype)
