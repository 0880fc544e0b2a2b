"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import numpy as np


def psnr(image: np.ndarray, reference: np.ndarray, peak: float = 255.0) -> float:
    """Computes the peak signal-to-noise ratio, 10 log10(peak² / mean squared error), in float64.

    Args:
        image: Of any shape and dtype; channels count like pixels.
        reference: Of the same shape.
        peak: Largest value that a pixel can have.

    Returns:
        In dB; infinite where the images are equal.

    Raises:
        ValueError: The shapes differ, or there are no pixels.
    """
    if image.shape != reference.shape or image.size == 0:
        raise ValueError(f'expected two images of one shape, found {image.shape} and {reference.shape}.')
    error = float(np.mean((image.astype(np.float64) - reference) ** 2))
    return 10 * math.log10(peak**2 / error) if error > 0 else math.inf
