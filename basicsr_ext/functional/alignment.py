"""Whether the images of a pair show the same place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from basicsr_ext.functional.resize import downsample

SHIFTS = 3  # LQ pixels on each side
_BORDER = 2  # LQ pixels in which the bicubic kernel reaches beyond the window
_LARGEST = 768  # LQ pixels of a window's side: enough to see a shift
_SMALLEST = 8  # of what is compared
_ROUNDING = 1 / 12 / 255**2  # mean square of the rounding to 8 bits: equal images have no infinite PSNR


class Shift(NamedTuple):
    """How an LQ image lies on its GT image.

    Attributes:
        rows: LQ pixels by which the place that the LQ image shows lies further down in the GT image.
        columns: The same to the right.
        psnr: In dB, at that place.
        psnr_unshifted: In dB, at the same place.
    """

    rows: int
    columns: int
    psnr: float
    psnr_unshifted: float


def best_shift(gt: np.ndarray, lq: np.ndarray, scale: int) -> Shift | None:
    """Finds the integer shift by which an LQ image fits its GT image best, which is downsampled by MATLAB's bicubic.

    Only the middle of large images is compared, as the mean of the channels.

    Args:
        gt: Array (height, width, channels) of integers, or floating point on [0, 1].
        lq: As ``gt``, smaller by ``scale``; ``gt`` may have rows and columns beyond that, at the bottom and the right.
        scale: GT pixels per LQ pixel.

    Returns:
        The best shift of at most 3 LQ pixels, rows and columns; ``None`` where the images are too small to tell.
    """
    height, width = lq.shape[:2]
    margin = SHIFTS + _BORDER
    if min(height, width) < 2 * margin + _SMALLEST:
        return None
    top, left = max(0, (height - _LARGEST) // 2), max(0, (width - _LARGEST) // 2)
    height, width = min(height, _LARGEST), min(width, _LARGEST)
    gt = gt[scale * top : scale * (top + height), scale * left : scale * (left + width)]
    shown = _grey(lq[top : top + height, left : left + width])[margin:-margin, margin:-margin]
    expected = downsample(_grey(gt), scale)
    errors = {
        (rows, columns): _mean_square(
            shown - expected[margin + rows : height - margin + rows, margin + columns : width - margin + columns]
        )
        for rows in range(-SHIFTS, SHIFTS + 1)
        for columns in range(-SHIFTS, SHIFTS + 1)
    }
    best = min(errors, key=lambda shift: (errors[shift], abs(shift[0]) + abs(shift[1])))
    psnr, psnr_unshifted = (-10 * np.log10(errors[shift] + _ROUNDING) for shift in (best, (0, 0)))
    return Shift(*best, float(psnr), float(psnr_unshifted))


def _grey(image: np.ndarray) -> np.ndarray:
    grey = image.mean(axis=2, dtype=np.float32)
    return grey / np.float32(np.iinfo(image.dtype).max) if image.dtype.kind != 'f' else grey


def _mean_square(difference: np.ndarray) -> float:
    return float(np.square(difference).mean(dtype=np.float64))
