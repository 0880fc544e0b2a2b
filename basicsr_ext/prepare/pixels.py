"""Conversion between stored pixels and the unit range."""

from __future__ import annotations

import numpy as np

_VALUES_AT_ONCE = 1 << 20


def to_unit(image: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    """Maps uint8 [0, 255] or uint16 [0, 65535] to floating point [0, 1]; floating point only changes its dtype."""
    if np.issubdtype(image.dtype, np.integer):
        return image.astype(dtype) / np.iinfo(image.dtype).max
    return image.astype(dtype, copy=False)


def from_unit(image: np.ndarray, dtype: np.dtype | type | str) -> np.ndarray:
    """Clips floating point to [0, 1] and stores it as uint8, uint16 (rounded, halves upwards as MATLAB) or float32."""
    result = np.empty(image.shape, dtype)
    rows = max(1, _VALUES_AT_ONCE // max(1, image[:1].size))
    for start in range(0, len(image), rows):  # a copy of the whole would take several times the result's memory
        part = np.clip(image[start : start + rows], 0, 1)
        if result.dtype.kind == 'u':
            part = np.floor(part * np.iinfo(result.dtype).max + 0.5)
        result[start : start + rows] = part
    return result
