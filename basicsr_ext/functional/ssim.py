"""The structural similarity index, as benchmarks report it."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from basicsr_ext.functional.ssim_map import SSIMSettings, ssim_map

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def ssim(image: np.ndarray, reference: np.ndarray, peak: float = 255.0) -> float:
    """Computes the mean structural similarity of two images, in float64.

    Means, variances and the covariance are weighted by an 11x11 Gaussian with a standard deviation of 1.5 pixels, and
    taken only where that window lies inside the image, as the authors' MATLAB code (``ssim_index.m``) does.

    Args:
        image: (height, width) or (height, width, channels), of any dtype; both sides at least 11 pixels.
        reference: Of the same shape.
        peak: Largest value that a pixel can have.

    Returns:
        From -1 to 1, which is reached by equal images; the mean over channels.

    Raises:
        ValueError: The shapes differ, or the images are smaller than the window.

    Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP 2004,
    equation 13, averaged over the image (equation 17).
    """
    if image.shape != reference.shape or image.ndim not in (2, 3):
        raise ValueError(f'expected two images of one shape, found {image.shape} and {reference.shape}.')
    if min(image.shape[:2]) < WINDOW or image.size == 0:
        raise ValueError(f'expected at least {WINDOW}x{WINDOW} pixels, found {image.shape[0]}x{image.shape[1]}.')
    x, y = (np.atleast_3d(values).astype(np.float64) for values in (image, reference))
    return float(np.mean([_ssim_map(x[:, :, c], y[:, :, c], peak).mean() for c in range(x.shape[2])]))


def ssim_of_pspl(image: np.ndarray, reference: np.ndarray) -> float:
    """Computes the mean structural similarity as the published code of PSPL does, in float64.

    The whole image counts, with zeros around it. Colour images are compared by luminance without its offset, on [0, 0.86].
    Grey images, the luminance of one-channel networks, are multiplied by the sum of luminance's weights, 0.859, since that
    code applies the weights of three channels to the one there is: together with the constants, which belong to [0, 1], this
    gives higher scores.

    Args:
        image: (height, width, 3 or 1), on [0, 255]; rounded to whole numbers, as the code does.
        reference: Of the same shape; not rounded.

    Returns:
        At most 1.

    Source: https://github.com/Elin24/PSPL, ``utility.calc_ssim``.
    """
    weights = np.array([65.738, 129.057, 25.064]) / 256
    weights = weights if image.shape[2] == 3 else weights.sum(keepdims=True)
    pair = np.clip(np.rint(image), 0, 255), reference
    x, y = (torch.from_numpy(values.astype(np.float64) / 255 @ weights)[None] for values in pair)
    return float(ssim_map(x, y, SSIMSettings(data_range=1.0, k1=K1, k2=K2, window_size=WINDOW, sigma=SIGMA)).mean())


def _ssim_map(x: np.ndarray, y: np.ndarray, peak: float) -> np.ndarray:
    """SSIM of each window that lies inside two planes (height, width)."""
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    variances = _local_mean(x * x) - mean_x**2 + _local_mean(y * y) - mean_y**2
    covariance = _local_mean(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    contrast_and_structure = (2 * covariance + c2) / (variances + c2)
    return luminance * contrast_and_structure


def _local_mean(plane: np.ndarray) -> np.ndarray:
    """Means weighted by the Gaussian, without those whose window leaves the plane."""
    kernel = cv2.getGaussianKernel(WINDOW, SIGMA, cv2.CV_64F)
    margin = WINDOW // 2
    filtered = cv2.sepFilter2D(np.ascontiguousarray(plane), cv2.CV_64F, kernel, kernel)
    return filtered[margin:-margin, margin:-margin]
