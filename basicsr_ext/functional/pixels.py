"""Ranges of images."""

from __future__ import annotations

import numpy as np
from torch import Tensor, as_tensor, float32, uint8, uint16

_LARGEST = {uint8: 255.0, uint16: 65535.0}


def to_unit_range(image: Tensor) -> Tensor:
    """Returns a uint8 or uint16 image as float32 in [0, 1]; any other tensor as it is.

    Args:
        image: Any shape.
    """
    largest = _LARGEST.get(image.dtype)
    if largest is None:
        return image
    if image.device.type == 'cpu':  # NumPy converts and divides piece by piece, in the processor's cache
        return as_tensor(np.divide(image.numpy(), np.float32(largest), dtype=np.float32))
    # On a GPU, dividing by a plain number multiplies by its reciprocal, which may differ in the last bit.
    return image.float().div_(image.new_full((), largest, dtype=float32))
