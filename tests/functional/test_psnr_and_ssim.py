import math

import numpy as np
import pytest

from basicsr_ext.functional.luminance import luminance
from basicsr_ext.functional.psnr import psnr
from basicsr_ext.functional.ssim import ssim


@pytest.fixture
def pair(photos):
    image = photos['chelsea'][40:101, 60:133]
    noise = np.random.default_rng(0).normal(0, 12, image.shape)
    return image, np.clip(image + noise, 0, 255).round().astype(np.uint8)


def test_luminance_of_primary_colours():
    image = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0]]], np.uint8)
    np.testing.assert_allclose(luminance(image)[0], [81.481, 144.553, 40.966, 235, 16], atol=1e-12)
    with pytest.raises(ValueError, match='RGB'):
        luminance(np.zeros((4, 4)))


def test_psnr_by_hand():
    image, reference = np.zeros((2, 2), np.uint8), np.array([[0, 3], [0, 4]], np.uint8)
    assert psnr(image, reference) == pytest.approx(10 * math.log10(255**2 / 6.25), abs=1e-12)
    assert psnr(image, image) == math.inf
    assert psnr(image / 255, reference / 255, peak=1.0) == pytest.approx(psnr(image, reference), abs=1e-9)
    with pytest.raises(ValueError, match='one shape'):
        psnr(image, reference[:1])


def test_ssim_of_constant_images_by_hand():
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 140 + c1) / (100**2 + 140**2 + c1)
    assert ssim(np.full((11, 14), 100.0), np.full((11, 14), 140.0)) == pytest.approx(expected, abs=1e-9)


def test_ssim_is_the_formula(pair):
    """Window by window, with sums written out, on the first channel of a few pixels."""
    x, y = (image[:13, :12, 0].astype(np.float64) for image in pair)
    axis = np.arange(-5, 6)
    window = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(3):
        for left in range(2):
            a, b = (image[top : top + 11, left : left + 11] for image in (x, y))
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
            )
    assert ssim(x, y) == pytest.approx(np.mean(values), abs=1e-10)


def test_ssim_is_that_of_scikit_image(pair):
    from skimage.metrics import structural_similarity

    expected = structural_similarity(
        *pair, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(*pair) == pytest.approx(expected, abs=1e-9)
    assert ssim(pair[0], pair[0]) == pytest.approx(1)


def test_ssim_refuses_what_it_cannot_measure(pair):
    with pytest.raises(ValueError, match='11x11'):
        ssim(pair[0][:10], pair[1][:10])
    with pytest.raises(ValueError, match='one shape'):
        ssim(pair[0], pair[1][:20])
