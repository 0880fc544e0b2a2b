"""The colour space YCbCr as MATLAB's ``rgb2ycbcr`` and ``ycbcr2rgb`` have it, unrounded (ITU-R BT.601, studio range)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, stack

# Rows give Y, Cb and Cr of R, G, B in [0, 1], in 255ths.
_MATRIX = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_OFFSET = np.array([16, 128, 128]) / 255
LUMINANCE, BLACK = _MATRIX[0], _OFFSET[0]
_INVERSE = np.linalg.inv(_MATRIX)


def rgb_to_ycbcr(image: Tensor) -> Tensor:
    """Converts images.

    Args:
        image: RGB of shape (..., 3, height, width), [0, 1].

    Returns:
        Y in [16/255, 235/255], Cb and Cr in [16/255, 240/255], of the same shape.
    """
    return _apply(_MATRIX, image, _OFFSET)


def ycbcr_to_rgb(image: Tensor) -> Tensor:
    """Undoes :func:`rgb_to_ycbcr`; colours that do not exist as RGB leave [0, 1]."""
    return _apply(_INVERSE, image, -_INVERSE @ _OFFSET)


def _apply(matrix: np.ndarray, image: Tensor, offset: np.ndarray) -> Tensor:
    # No matrix product: on GPUs that may be one of TF32
    planes = image.unbind(-3)
    converted = []
    for row, constant in zip(matrix.tolist(), offset.tolist(), strict=True):
        terms = [weight * plane for weight, plane in zip(row, planes, strict=True)]
        converted.append(terms[0] + terms[1] + terms[2] + constant)
    return stack(converted, dim=-3)
