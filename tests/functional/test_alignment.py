"""Whether the images of a pair show the same place."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_ext.functional.alignment import best_shift
from basicsr_ext.functional.resize import downsample


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
@pytest.mark.parametrize(('rows', 'columns'), [(0, 0), (3, -3), (-2, 1)])
def test_the_shift_is_found_in_whole_lq_pixels(photos, rows, columns, dtype):
    photo = photos['coffee'].astype(dtype) * {'uint8': 1, 'uint16': 257, 'float32': 1 / np.float32(255)}[dtype]
    photo = photo.astype(dtype)
    gt = photo[100:220, 100:260]
    lq = downsample(photo[100 + 4 * rows : 220 + 4 * rows, 100 + 4 * columns : 260 + 4 * columns], 4)
    found = best_shift(gt, lq, 4)
    assert (found.rows, found.columns) == (rows, columns)
    assert found.psnr > 50 and (found.psnr_unshifted < 30 or rows == columns == 0)


def test_psnr_is_that_of_the_grey_images(photos):
    """Against float64 on what lies 5 LQ pixels or more inside."""
    gt = photos['chelsea'][:96, :120]
    lq = np.clip(downsample(gt, 2) + np.random.default_rng(0).integers(-9, 10, (48, 60, 3)), 0, 255).astype(np.uint8)
    found = best_shift(gt, lq, 2)
    difference = (lq.mean(2) - downsample(gt.mean(2), 2))[5:-5, 5:-5] / 255
    assert found.psnr == found.psnr_unshifted
    assert found.psnr == pytest.approx(-10 * np.log10(np.mean(difference**2) + 1 / 12 / 255**2), abs=1e-3)


def test_nothing_is_seen_in_flat_noisy_or_small_images():
    random = np.random.default_rng(0)
    flat = np.full((80, 80, 3), 90, np.uint8)
    noisy = (flat + random.integers(0, 3, flat.shape)).astype(np.uint8)
    for gt in (flat, noisy):
        found = best_shift(gt, flat[:20, :20], 4)
        assert found.psnr - found.psnr_unshifted < 1
    assert best_shift(flat[:68, :68], flat[:17, :17], 4) is None


def test_large_images_are_compared_in_their_middle(photos):
    photo = np.tile(photos['rocket'], (3, 4, 1))[:1200, :2000]
    found = best_shift(photo[:-2, :-1], photo[2:, 1:], 1)
    assert (found.rows, found.columns) == (2, 1)
