"""The SSIM map against the formula as the paper writes it, its range, and its precision."""

from __future__ import annotations

import pytest
import torch
from ssim_images import HARD_IMAGES, pair, textbook_map, with_edges

from basicsr_ext.functional import ssim_map as module
from basicsr_ext.functional.ssim_map import SSIMSettings, gaussian_window, ssim_map


@pytest.mark.parametrize('shape', [(1, 1, 1, 1), (2, 3, 7, 160), (1, 1, 97, 5), (3, 3, 48, 49), (1, 2, 150, 101)])
@pytest.mark.parametrize('settings', [SSIMSettings(), SSIMSettings(1 / 255), SSIMSettings(2, 0.02, 0.1, 7, 0.8)])
def test_equals_the_formula_in_float64(shape, settings):
    x, y = pair(*shape)
    torch.testing.assert_close(ssim_map(x, y, settings), textbook_map(x, y, settings), rtol=0, atol=1e-9)


def test_planes_are_computed_in_chunks_and_not_mixed(monkeypatch):
    x, y = pair(2, 3, 20, 30)
    whole = ssim_map(x, y)
    monkeypatch.setattr(module, 'PIXELS_PER_CHUNK', 1300)  # two planes
    assert [chunk for chunk, _ in module.ssim_chunks(x, y, SSIMSettings())] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert torch.equal(ssim_map(x, y), whole)
    assert torch.equal(ssim_map(x[1, 2], y[1, 2]), whole[1, 2])
    channels_last = (image.contiguous(memory_format=torch.channels_last) for image in (x, y))
    assert torch.equal(ssim_map(*channels_last), whole)


def test_one_pixel_by_hand():
    """Around one pixel there are zeros: the mean is w x and the variance w x^2 - (w x)^2, w the window's middle weight."""
    w = float(gaussian_window(11, 1.5)[5]) ** 2
    x, y = 0.5, 0.8
    luminance = (2 * w * w * x * y + 1e-4) / (w * w * (x * x + y * y) + 1e-4)
    contrast = (2 * (w - w * w) * x * y + 9e-4) / ((w - w * w) * (x * x + y * y) + 9e-4)
    result = ssim_map(torch.full((1, 1), x, dtype=torch.float64), torch.full((1, 1), y, dtype=torch.float64))
    assert result.item() == pytest.approx(luminance * contrast, abs=1e-12)


def test_window_is_the_gaussian():
    window = gaussian_window(11, 1.5)
    assert window.sum().item() == pytest.approx(1, abs=1e-15)
    assert (window[5] / window[3]).item() == pytest.approx(2.718281828459045 ** (4 / 4.5))
    assert torch.equal(window, window.flip(0))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('scale', [1.0, 255.0])
def test_stays_within_its_bounds(dtype, scale):
    """The usual formula leaves them by far where rounding makes variances negative."""
    x, y = pair(1, 3, 64, 64, dtype=dtype)
    for other in (y, -x, x, 1 - x, torch.zeros_like(x), torch.ones_like(x)):
        result = ssim_map(scale * x, scale * other)
        assert result.min() >= -1 and result.max() <= 1
    assert torch.equal(ssim_map(x, x), torch.ones_like(x))
    assert ssim_map(scale * (x - 0.5), scale * (0.5 - x)).min() < -0.9


def test_stays_within_its_bounds_where_rounding_makes_variances_negative():
    x = torch.rand(8, 1, 1) + 255 + 1e-4 * torch.rand(8, 64, 64, generator=torch.manual_seed(0))
    result = ssim_map(x, x + 0.1, SSIMSettings(data_range=1e-4))
    assert result.isfinite().all() and result.min() >= -1 and result.max() <= 1


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize('images', HARD_IMAGES)
@pytest.mark.parametrize('data_range', [1.0, 1 / 255, 255.0])
def test_float32_is_nearer_to_float64_than_the_usual_formula(images, seed, data_range):
    """On average and at the worst pixel, with the paper's constants, the published ones, and images in [0, 255]."""
    x, y = (image * max(data_range, 1) for image in images(seed))
    settings = SSIMSettings(data_range)
    exact = textbook_map(x.double(), y.double(), settings)
    ours, usual = ((values - exact).abs() for values in (ssim_map(x, y, settings), textbook_map(x, y, settings)))
    assert ours.max() < 0.5 * usual.max() and ours.mean() < 0.5 * usual.mean()


def test_a_constant_added_to_both_images_changes_only_the_means():
    """Variances are taken of what differs from the mean: those of a bright image are as exact as those of a dark one."""
    x, y = with_edges(0)
    settings = SSIMSettings(data_range=1 / 255)
    errors = []
    for offset in (0, 30):
        shifted = x + offset, y + offset
        exact = textbook_map(*(image.double() for image in shifted), settings)[..., 5:-5, 5:-5]
        errors.append((ssim_map(*shifted, settings)[..., 5:-5, 5:-5] - exact).abs().mean())
    assert errors[1] < 100 * errors[0]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    x, y = pair(1, 3, 40, 40, dtype=dtype)
    exact = ssim_map(x.float(), y.float())
    result = ssim_map(x, y)
    assert result.dtype == torch.float32 and torch.equal(result, exact)
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(ssim_map(x.float(), y.float()), exact)
    assert torch.equal(ssim_map(x, y.float()), exact)


def test_no_product_is_taken_in_less_than_float32(monkeypatch):
    seen = []
    original = torch.mm

    def mm(*arguments, **keywords):
        seen.append((torch.get_float32_matmul_precision(), arguments[0].dtype))
        return original(*arguments, **keywords)

    monkeypatch.setattr(torch, 'mm', mm)
    torch.set_float32_matmul_precision('medium')
    try:
        ssim_map(*pair(1, 1, 16, 16, dtype=torch.float32))
        assert torch.get_float32_matmul_precision() == 'medium'
    finally:
        torch.set_float32_matmul_precision('highest')
    assert set(seen) == {('highest', torch.float32)}


def test_no_gradient_flows_and_images_are_left_alone():
    x, y = pair(1, 1, 20, 20)
    before = x.clone()
    x.requires_grad_()
    assert not ssim_map(x, y).requires_grad
    assert torch.equal(x, before)


def test_what_inference_mode_cached_can_be_used_outside():
    x, y = pair(1, 1, 33, 35, dtype=torch.float32)
    module._blocks.cache_clear()
    module._weight_outside.cache_clear()
    with torch.inference_mode():
        ssim_map(x, y)
    assert ssim_map(x, y).add_(1).isfinite().all()


def test_not_a_number_is_passed_on():
    x, y = pair(1, 2, 30, 30)
    x[0, 0, 3, 3] = float('nan')
    result = ssim_map(x, y)
    assert result[0, 0, 3, 3].isnan() and result[0, 1].isfinite().all()


def test_wrong_images_and_settings():
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r'same shape, found \(1, 3, 8, 8\) and \(3, 8, 8\)'):
        ssim_map(image, image[0])
    with pytest.raises(ValueError, match='same shape'):
        ssim_map(image[..., :0], image[..., :0])
    with pytest.raises(TypeError, match=r'floating-point type, found torch.uint8'):
        ssim_map(image.byte(), image.byte())
    for name, value in (('data_range', 0), ('k1', -1), ('k2', float('nan')), ('sigma', float('inf'))):
        with pytest.raises(ValueError, match=f'{name}: expected a positive, finite number'):
            SSIMSettings(**{name: value})
    for value in (10, 0, -3, 2.5):
        with pytest.raises(ValueError, match='window_size: expected an odd, positive whole number'):
            SSIMSettings(window_size=value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_on_a_gpu_as_on_the_cpu():
    x, y = pair(2, 3, 192, 192, dtype=torch.float32)
    exact = ssim_map(x.double(), y.double())
    torch.set_float32_matmul_precision('high')
    try:
        with torch.autocast('cuda', dtype=torch.bfloat16):
            result = ssim_map(x.cuda(), y.cuda())
    finally:
        torch.set_float32_matmul_precision('highest')
    torch.testing.assert_close(result.cpu().double(), exact, rtol=0, atol=1e-3)
