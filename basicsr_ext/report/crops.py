"""Choosing the part of an image that a picture shows."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np


class Window(NamedTuple):
    """A square part of an image, in pixels.

    Attributes:
        top: First row.
        left: First column.
        size: Rows and columns.
    """

    top: int
    left: int
    size: int

    def of(self, image: np.ndarray, divisor: int = 1) -> np.ndarray:
        """Cuts the window out of an image (height, width[, channels]) that is ``divisor`` times smaller (LR images)."""
        top, left, size = (side // divisor for side in self)
        return image[top : top + size, left : left + size]


def squared_error(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Squared difference of two images (height, width, channels), averaged over channels: (height, width), float64.

    Raises:
        ValueError: The shapes differ.
    """
    if image.shape != reference.shape or image.ndim != 3:
        raise ValueError(
            f'expected two images (height, width, channels) of one shape, found {image.shape}, {reference.shape}.'
        )
    return ((image.astype(np.float64) - reference) ** 2).mean(axis=2)


def highest_window(values: np.ndarray, size: int, step: int = 1) -> tuple[Window, float]:
    """Finds the window with the highest mean.

    Args:
        values: A number for each pixel (height, width), such as an error, or what a method gains over another.
        size: Rows and columns of the window; a multiple of ``step``.
        step: Top and left are multiples of it: the scale, where the window shall lie on whole LR pixels.

    Returns:
        The window (of equally good ones the first), and its mean.

    Raises:
        ValueError: The array is smaller than the window or not of two dimensions, or size is no multiple of step.
    """
    if values.ndim != 2 or min(values.shape) < size or size < 1 or size % step:
        raise ValueError(f'size {size}, step {step}: do not fit values of shape {values.shape}.')
    total = cv2.integral(values.astype(np.float64))
    sums = total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]
    sums = sums[::step, ::step]
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    return Window(int(row) * step, int(column) * step, size), float(sums[row, column]) / size**2
