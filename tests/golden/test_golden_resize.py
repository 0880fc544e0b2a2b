"""Published images that MATLAB's imresize made, from the data beside the project."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from basicsr_ext.functional.resize import downsample, imresize, mod_crop, upsample

SET5 = ('baby', 'bird', 'butterfly', 'head', 'woman')


def read(path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, f'{path} is missing or no image'
    return image


@pytest.mark.parametrize('scale', [2, 3, 4])
@pytest.mark.parametrize('name', SET5)
def test_golden_set5_lr_images_have_no_differing_pixel(bench_dir, name, scale):
    gt = mod_crop(read(bench_dir / 'Set5' / 'HR' / f'{name}.png'), scale)
    published = read(bench_dir / 'Set5' / 'LR_bicubic' / f'X{scale}' / f'{name}x{scale}.png')
    np.testing.assert_array_equal(downsample(gt, scale), published)


@pytest.fixture
def matlab_doubles(bench_dir) -> dict[str, np.ndarray]:
    """Images of MATLAB's im2double form, times 255: the file's luminance lies in 16 to 235, its RGB in 0 to 255."""
    scipy_io = pytest.importorskip('scipy.io')
    return scipy_io.loadmat(str(bench_dir / 'Set5_VDSR_mat_float64' / 'butterfly_GT_x3.mat'))


def test_golden_double_precision_luminance(matlab_doubles):
    np.testing.assert_allclose(downsample(matlab_doubles['im_gt_y'], 3), matlab_doubles['im_l_y'], rtol=1e-12)
    np.testing.assert_allclose(imresize(matlab_doubles['im_gt_y'], 1 / 3), matlab_doubles['im_l_y'], rtol=1e-12)
    np.testing.assert_allclose(upsample(matlab_doubles['im_l_y'], 3), matlab_doubles['im_b_y'], rtol=1e-12)


def test_golden_double_precision_rgb(matlab_doubles):
    gt = matlab_doubles['im_gt'].astype(np.float64)
    np.testing.assert_allclose(downsample(gt, 3), matlab_doubles['im_l'], rtol=1e-12)
    # The file's enlarged RGB image was clipped to 0 to 255 afterwards, which its luminance did not need.
    enlarged = upsample(matlab_doubles['im_l'], 3)
    assert enlarged.max() > 255
    np.testing.assert_allclose(enlarged.clip(0, 255), matlab_doubles['im_b'], rtol=1e-12)
