"""Luminance of colour images, as published PSNR and SSIM are measured on."""

from __future__ import annotations

import numpy as np

from basicsr_ext.functional.ycbcr import BLACK, LUMINANCE


def luminance(image: np.ndarray) -> np.ndarray:
    """Computes luminance in floating point, not rounded: 16 + (65.481 R + 128.553 G + 24.966 B) / 255.

    Args:
        image: RGB, (..., 3), on [0, 255], of any dtype.

    Returns:
        Luminance (...), on [16, 235], float64.

    Raises:
        ValueError: The image has not three channels.

    Source: ITU-R BT.601; MATLAB's ``rgb2ycbcr`` on doubles.
    """
    if image.ndim < 1 or image.shape[-1] != 3:
        raise ValueError(f'expected an RGB image (height, width, 3), found shape {image.shape}.')
    return 255 * BLACK + image.astype(np.float64) @ LUMINANCE
