"""The Haar transform: by hand, inverse, levels, odd sizes, gradients."""

from __future__ import annotations

import pytest
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.functional.wavelet import gaussian_low, haar_dwt, haar_high, haar_idwt, haar_low


def test_bands_of_a_block_by_hand():
    block = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert haar_dwt(block).flatten().tolist() == [7.5, 2.5, 4.5, 1.5]


@pytest.mark.parametrize('size', [(8, 12), (7, 12), (8, 5), (9, 7), (1, 1)])
def test_inverse(size):
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    bands = haar_dwt(images)
    assert bands.shape == (2, 12, -(-size[0] // 2), -(-size[1] // 2))
    torch.testing.assert_close(haar_idwt(bands, size), images, rtol=0, atol=1e-14)


def test_the_transform_is_orthonormal():
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert haar_dwt(images).square().sum().item() == pytest.approx(images.square().sum().item(), rel=1e-12)


@pytest.mark.parametrize('levels', [1, 2, 3])
def test_levels_of_a_constant(levels):
    low = haar_low(torch.full((1, 2, 16, 24), 0.3), levels)
    torch.testing.assert_close(low, torch.full((1, 2, 16 >> levels, 24 >> levels), 0.3 * 2**levels))


def test_high_bands_are_what_low_leaves():
    images = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(torch.cat([haar_low(images), haar_high(images)], 1), haar_dwt(images), rtol=0, atol=0)
    assert haar_high(torch.ones(1, 1, 4, 4)).abs().max() == 0


def test_gradients():
    images = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(haar_dwt, images)
    assert torch.autograd.gradcheck(lambda x: haar_low(x, 2), images)
    bands = torch.randn(1, 8, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: haar_idwt(x, (3, 5)), bands)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    images = torch.rand(1, 3, 8, 8)
    low = haar_dwt(images.to(dtype))
    assert low.dtype == dtype
    torch.testing.assert_close(low.float(), haar_dwt(images), rtol=0, atol=0.02)


def test_wrong_number_of_bands():
    with pytest.raises(UserError, match='found 6 channels'):
        haar_idwt(torch.zeros(1, 6, 2, 2))


def test_blur_keeps_constants_and_removes_high_frequencies():
    torch.testing.assert_close(gaussian_low(torch.full((1, 3, 16, 12), 0.7)), torch.full((1, 3, 16, 12), 0.7))
    checkers = (torch.arange(16)[:, None] + torch.arange(16)[None]) % 2 * 1.0
    blurred = gaussian_low(checkers[None, None].double(), size=21, sigma=3.0)
    torch.testing.assert_close(blurred, torch.full_like(blurred, 0.5), rtol=0, atol=2e-3)
    with pytest.raises(UserError, match='more than 10 pixels'):
        gaussian_low(torch.zeros(1, 3, 10, 40))
