"""Running a network over images: luminance, orientations, tiles, precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from basicsr_ext.functional.resize import upsample
from basicsr_ext.functional.ycbcr import rgb_to_ycbcr, ycbcr_to_rgb
from basicsr_ext.networks.inference import Inference, super_resolve
from basicsr_ext.networks.self_ensemble import self_ensemble


def make_network(channels: int, scale: int = 2) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(channels, channels * scale**2, 3, padding=1), nn.PixelShuffle(scale))
    return layers.eval().requires_grad_(False)


def test_ycbcr_is_that_of_matlab():
    # white, black and red, as rgb2ycbcr gives them
    colours = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]]).T.reshape(1, 3, 1, 3)
    expected = np.array([[235, 128, 128], [16, 128, 128], [81.481, 90.203, 240]]) / 255
    np.testing.assert_allclose(rgb_to_ycbcr(colours)[0, :, 0].T, expected, atol=1e-6)
    image = torch.rand(2, 3, 5, 4, dtype=torch.float64)
    torch.testing.assert_close(ycbcr_to_rgb(rgb_to_ycbcr(image)), image, rtol=0, atol=1e-12)


def test_ycbcr_agrees_with_basicsr():
    import basicsr_ext

    basicsr_ext.register()
    from basicsr.utils.color_util import rgb2ycbcr

    image = np.random.default_rng(0).random((6, 5, 3), dtype=np.float32)
    ours = rgb_to_ycbcr(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(ours, rgb2ycbcr(image), atol=1e-6)


def test_a_luminance_network_on_colour_images():
    network = make_network(1)
    image = torch.rand(2, 3, 12, 9)
    result = super_resolve(network, image, Inference(luminance=True, scale=2))
    ycbcr = rgb_to_ycbcr(image)
    torch.testing.assert_close(result.luminance, network(ycbcr[:, :1]))
    of_result = rgb_to_ycbcr(result.images)
    torch.testing.assert_close(of_result[:, :1], network(ycbcr[:, :1]), rtol=0, atol=1e-5)
    torch.testing.assert_close(of_result[:, 1:], upsample(ycbcr[:, 1:], 2), rtol=0, atol=1e-5)


def test_a_luminance_network_on_luminance_images():
    network, image = make_network(1), torch.rand(2, 1, 12, 9)
    result = super_resolve(network, image, Inference(luminance=True))
    assert result.luminance is None
    torch.testing.assert_close(result.images, network(image))


def test_orientations_and_tiles_together():
    network, image = make_network(3), torch.rand(1, 3, 30, 25)
    expected = self_ensemble(network, image)
    for tile in (None, 12):
        how = Inference(tile=tile, overlap=4, batch_size=3, self_ensemble=True)
        torch.testing.assert_close(super_resolve(network, image, how).images, expected, rtol=0, atol=1e-5)
    assert (super_resolve(network, image, Inference()).images - expected).abs().max() > 1e-3


@pytest.mark.parametrize('precision', ['bf16', 'fp16'])
def test_half_precision_gives_float32(precision):
    network, image = make_network(3), torch.rand(1, 3, 16, 16)
    half = super_resolve(network, image, Inference(precision=precision)).images
    full = super_resolve(network, image, Inference()).images
    assert half.dtype == torch.float32
    assert 0 < (half - full).abs().max() < 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason='a GPU is needed')
def test_images_may_stay_on_the_cpu():
    network, image = make_network(3).cuda(), torch.rand(1, 3, 40, 40)
    result = super_resolve(network, image, Inference(tile=16, overlap=4, precision='bf16')).images
    assert result.device.type == 'cpu'
    whole = super_resolve(network, image.cuda(), Inference()).images.cpu()
    torch.testing.assert_close(result, whole, rtol=0, atol=0.02)
