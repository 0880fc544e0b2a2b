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
