"""Ranges of images."""

from __future__ import annotations

from torch import Tensor, uint8, uint16

_LARGEST = {uint8: 255.0, uint16: 65535.0}


def to_unit_range(image: Tensor) -> Tensor:
    """Returns a uint8 or uint16 image as float32 in [0, 1]; any other tensor as it is.

    Args:
        image: Any shape.
    """
    return image.float().div_(_LARGEST[image.dtype]) if image.dtype in _LARGEST else image
