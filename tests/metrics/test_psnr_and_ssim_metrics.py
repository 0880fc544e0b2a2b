import numpy as np
import pytest

import basicsr_ext

basicsr_ext.register()

from basicsr.metrics import calculate_metric


@pytest.fixture
def images(photos):
    image = photos['coffee'][50:131, 60:152, ::-1]
    noise = np.random.default_rng(1).normal(0, 6, image.shape)
    return {'img': np.clip(image + noise, 0, 255).round().astype(np.uint8), 'img2': np.ascontiguousarray(image)}


@pytest.mark.parametrize(('ours', 'stock'), [('PSNR', 'calculate_psnr'), ('SSIM', 'calculate_ssim')])
@pytest.mark.parametrize('options', [{}, {'test_y_channel': True}, {'test_y_channel': True, 'crop_border': 5}])
def test_stock_metrics_to_their_precision(images, ours, stock, options):
    options = {'crop_border': 0, **options}
    assert calculate_metric(images, {'type': ours, **options, 'better': 'higher'}) == pytest.approx(
        calculate_metric(images, {'type': stock, **options}), abs=1e-5
    )


def test_luminance_is_measured_unrounded_and_in_the_right_order():
    """Blue counts less than red: 24.966 against 65.481 of 255."""
    black, blue = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    blue[..., 0] = 100
    value = calculate_metric({'img': blue, 'img2': black}, {'type': 'PSNR', 'crop_border': 0, 'test_y_channel': True})
    assert value == pytest.approx(20 * np.log10(255 / (24.966 * 100 / 255)), abs=1e-9)


def test_other_forms_of_the_same_images(images):
    options = {'type': 'PSNR', 'crop_border': 3, 'test_y_channel': True}
    value = calculate_metric(images, options)
    as_float = {key: image.astype(np.float64) for key, image in images.items()}
    assert calculate_metric(as_float, options) == value
    first = {key: image.transpose(2, 0, 1) for key, image in images.items()}
    assert calculate_metric(first, {**options, 'input_order': 'CHW'}) == value


def test_grey_images_are_their_own_luminance(images):
    grey = {key: image[..., 0] for key, image in images.items()}
    values = [
        calculate_metric(data, {'type': 'SSIM', 'crop_border': 0, 'test_y_channel': on_luminance})
        for data in (grey, {key: image[..., None] for key, image in grey.items()})
        for on_luminance in (True, False)
    ]
    assert len(set(values)) == 1


@pytest.mark.parametrize(
    ('change', 'options', 'message'),
    [
        (lambda image: image[:-1], {}, 'expected an image of the same size as its GT image'),
        (lambda image: image[..., :2], {}, 'expected an image with 1 or 3 channels'),
        (lambda image: image.astype(np.uint16), {}, 'expected uint8, or floating point values'),
        (lambda image: image, {'crop_border': 41}, 'crop_border: 41 leaves nothing of an image of 81x92 pixels'),
        (lambda image: image, {'crop_border': -1}, 'crop_border: expected a whole number'),
        (lambda image: image, {'crop_border': 37}, 'SSIM needs 11x11 pixels, and 7x18 are left'),
        (lambda image: image, {'input_order': 'HW'}, 'input_order: expected HWC or CHW'),
    ],
)
def test_what_cannot_be_measured(images, change, options, message):
    data = {'img': change(images['img']), 'img2': images['img2']}
    with pytest.raises(basicsr_ext.UserError, match=message):
        calculate_metric(data, {'type': 'SSIM', 'crop_border': 0, **options})


# ---- SSIM as PSPL's published code measures it ---------------------------------------------------------------------------


def ssim_by_hand(x, y):
    """Window by window on [0, 1], with zeros around the images, every pixel."""
    offsets = np.arange(11) - 5
    kernel = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = np.outer(kernel, kernel) / kernel.sum() ** 2
    x, y = (np.pad(values, 5) for values in (x, y))
    total = 0.0
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            covariance = (window * a * b).sum() - mean_a * mean_b
            total += ((2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)) / (
                (mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)
            )
    return total / ((x.shape[0] - 10) * (x.shape[1] - 10))


PSPL = {'type': 'SSIM', 'crop_border': 0, 'test_y_channel': True, 'protocol': 'pspl'}


def test_pspls_ssim_of_colour_images(images):
    weights = np.array([25.064, 129.057, 65.738]) / 256 / 255  # BGR
    small = {key: image[:25, :22] for key, image in images.items()}
    expected = ssim_by_hand(*(image.astype(np.float64) @ weights for image in small.values()))
    assert calculate_metric(small, PSPL) == pytest.approx(expected, abs=1e-9)


def test_pspls_ssim_of_luminance(images):
    """The one channel is multiplied by the sum of three weights; results are rounded, GT images are not."""
    image, gt = (image[:25, :22].astype(np.float64) @ [0.1, 0.5, 0.25] + 16.3 for image in images.values())
    expected = ssim_by_hand(np.rint(image) / 255 * (219.859 / 256), gt / 255 * (219.859 / 256))
    data = {'img': image[..., None], 'img2': gt[..., None]}
    assert calculate_metric(data, PSPL) == pytest.approx(expected, abs=1e-9)
    usual = calculate_metric(data, {**PSPL, 'protocol': 'usual'})
    assert calculate_metric(data, PSPL) > usual + 1e-3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'crop_border': 4}, 'pspl measures luminance of whole images'),
        ({'test_y_channel': False}, 'pspl measures luminance of whole images'),
        ({'protocol': 'psql'}, 'protocol: expected usual or pspl'),
    ],
)
def test_pspls_ssim_refuses(images, options, message):
    with pytest.raises(basicsr_ext.UserError, match=message):
        calculate_metric(images, {**PSPL, **options})
