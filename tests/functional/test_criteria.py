"""Cria-CL's criteria and their comparison: by hand, limits, gradients."""

from __future__ import annotations

import math

import pytest
import torch

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.functional.criteria import (
    ADVERSARIAL,
    adversarial_map,
    align_loss,
    dissimilarity_map,
    enlarged,
    feature_map,
    pixel_map,
    spatial_mean,
    uniformity_loss,
)
from basicsr_ext.functional.ssim_map import SSIMSettings, ssim_map


def images(*shape, seed=0):
    torch.manual_seed(seed)
    return torch.rand(2, *shape, dtype=torch.float64)


def test_pixel_map_by_hand():
    image = torch.tensor([3.0, 0.0, 1.0, 1.0]).view(1, 2, 1, 2)
    target = torch.tensor([0.0, 0.0, 5.0, 1.0]).view(1, 2, 1, 2)
    assert pixel_map(image, target).flatten().tolist() == pytest.approx([math.sqrt((9 + 16) / 2), 1e-6])
    assert pixel_map(image, target, 'l1').flatten().tolist() == [3.5, 0]


def test_equal_images_have_finite_gradients():
    image = images(1, 3, 13, 13)[0].requires_grad_()
    (pixel_map(image, image.detach()) + dissimilarity_map(image, image.detach())).sum().backward()
    assert image.grad.isfinite().all() and image.grad.abs().max() < 1e-3


@pytest.mark.parametrize('settings', [SSIMSettings(), SSIMSettings(data_range=1 / 255, window_size=7, sigma=1.0)])
def test_dissimilarity_is_one_minus_ssim(settings):
    x, y = images(2, 3, 24, 17)
    expected = 1 - ssim_map(x, y, settings).mean(1, keepdim=True)
    torch.testing.assert_close(dissimilarity_map(x, y, settings), expected, rtol=0, atol=1e-9)


def test_dissimilarity_ignores_autocast():
    x, y = images(1, 3, 16, 16).float()
    with torch.autocast('cpu', torch.bfloat16):
        inside = dissimilarity_map(x, y)
    torch.testing.assert_close(inside, dissimilarity_map(x, y))


def test_feature_map_is_enlarged_and_averaged():
    found = {'a': torch.full((1, 4, 2, 2), 3.0), 'b': torch.full((1, 8, 1, 1), 5.0), 'c': torch.zeros(1, 1, 1, 1)}
    wanted = {'a': torch.ones(1, 4, 2, 2), 'b': torch.zeros(1, 8, 1, 1), 'c': torch.ones(1, 1, 1, 1)}
    torch.testing.assert_close(feature_map(found, wanted, {'a': 1, 'b': 1}, (8, 6)), torch.full((1, 1, 8, 6), 3.5))
    torch.testing.assert_close(feature_map(found, wanted, {'a': 1, 'b': 3}, (8, 6)), torch.full((1, 1, 8, 6), 4.25))
    assert feature_map(found, wanted, {'a': 1}, (4, 4), 'l2', 'max').flatten().tolist() == pytest.approx([2.0] * 16)


def test_enlargements_by_hand():
    values = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
    assert enlarged(values, (1, 4)).flatten().tolist() == [0, 1, 3, 4]
    assert enlarged(values, (1, 4), 'nearest').flatten().tolist() == [0, 0, 4, 4]
    assert enlarged(values, (1, 2)) is values
    image, target = torch.zeros(1, 1, 1, 2), values
    assert feature_map({'a': image}, {'a': target}, {'a': 1}, (1, 4), enlargement='nearest').flatten().tolist() == [
        0,
        0,
        4,
        4,
    ]
    logits = torch.tensor([0.0, 9.0]).view(1, 1, 1, 2)
    assert len(adversarial_map(logits, (1, 4), enlargement='nearest').unique()) == 2
    assert len(adversarial_map(logits, (1, 4)).unique()) == 4


def test_the_channel_that_differs_most():
    x, y = images(2, 3, 16, 16)
    torch.testing.assert_close(pixel_map(x, y, 'l1', 'max'), (x - y).abs().amax(1, keepdim=True))
    torch.testing.assert_close(pixel_map(x, y, 'l2', 'max'), (x - y).abs().amax(1, keepdim=True))
    expected = (1 - ssim_map(x, y)).amax(1, keepdim=True)
    torch.testing.assert_close(dissimilarity_map(x, y, channels='max'), expected, rtol=0, atol=1e-9)


def test_adversarial_map_is_the_loss_of_the_generator():
    """Its mean is BasicSR's loss of that name."""
    from basicsr.losses.gan_loss import GANLoss

    torch.manual_seed(0)
    logits = torch.randn(2, 1, 5, 7)
    for gan_type in ADVERSARIAL:
        expected = GANLoss(gan_type)(logits, True, is_disc=False)
        torch.testing.assert_close(adversarial_map(logits, (5, 7), gan_type).mean(), expected)
        assert adversarial_map(logits, (5, 7), gan_type).min() >= 0


def test_adversarial_map():
    logits = torch.tensor([0.0, 2.0]).view(2, 1)
    spread = adversarial_map(logits, (3, 4))
    assert spread.shape == (2, 1, 3, 4)
    assert spread[0].flatten().tolist() == pytest.approx([math.log(2)] * 12)
    assert spread[1, 0, 0, 0].item() == pytest.approx(math.log(1 + math.exp(-2)))
    spatial = torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(adversarial_map(spatial, (4, 4)), torch.log1p(torch.exp(-spatial)))
    assert adversarial_map(spatial, (8, 8)).shape == (2, 1, 8, 8)


def test_align_loss_by_hand():
    anchor = torch.full((1, 1, 2, 2), 1.0)
    positives = [torch.full_like(anchor, 0.5), torch.full_like(anchor, 3.0)]
    torch.testing.assert_close(align_loss(anchor, positives), torch.full_like(anchor, 0.25 + 4))
    torch.testing.assert_close(align_loss(anchor, positives, eta=1), torch.full_like(anchor, 0.5 + 2))
    assert align_loss(anchor, [anchor, anchor]).abs().max() == 0
    assert align_loss(anchor, []).abs().max() == 0


def test_uniformity_loss_by_hand():
    anchor = torch.full((1, 1, 2, 2), 0.5)
    negatives = [torch.full_like(anchor, 0.5), torch.full_like(anchor, 1.0)]
    expected = -math.log(math.exp(-2 * 1.0) + math.exp(-2 * 2.25))
    torch.testing.assert_close(uniformity_loss(anchor, negatives), torch.full_like(anchor, expected))
    assert uniformity_loss(torch.zeros_like(anchor), [torch.zeros_like(anchor)] * 3).mean().item() == pytest.approx(
        -math.log(3)
    )
    assert uniformity_loss(anchor, []).abs().max() == 0


def test_large_criteria_keep_finite_gradients():
    anchor = torch.full((1, 1, 2, 2), 100.0, requires_grad=True)
    loss = uniformity_loss(anchor, [torch.full((1, 1, 2, 2), 300.0), torch.full((1, 1, 2, 2), 200.0)]).sum()
    loss.backward()
    torch.testing.assert_close(anchor.grad, torch.full_like(anchor, 2 * 2 * 300.0))  # that of the smaller sum


def test_masks_of_zero_and_one():
    loss = images(1, 1, 4, 4)[0]
    assert spatial_mean(loss, torch.zeros_like(loss)) == 0
    torch.testing.assert_close(spatial_mean(loss, torch.ones_like(loss)), spatial_mean(loss))
    half = torch.zeros_like(loss)
    half[..., :2, :] = 1
    torch.testing.assert_close(spatial_mean(loss, half), loss[..., :2, :].sum() / 16)


def test_gradients():
    anchor, first, second = (images(1, 1, 3, 3, seed=seed)[0].requires_grad_() for seed in range(3))
    assert torch.autograd.gradcheck(lambda a, p, q: align_loss(a, [p, q]), (anchor, first, second))
    assert torch.autograd.gradcheck(lambda a, p, q: uniformity_loss(a, [p, q]), (anchor, first, second))
    assert torch.autograd.gradcheck(spatial_mean, (first, second))
    image, target = images(1, 2, 6, 6)
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pixel_map(x, target), image)
    small = SSIMSettings(window_size=3)
    assert torch.autograd.gradcheck(lambda x: dissimilarity_map(x, target, small), image)
    logits = torch.randn(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: adversarial_map(x, (4, 4)), logits)
    assert torch.autograd.gradcheck(lambda x: feature_map({'a': x}, {'a': target}, {'a': 1}, (9, 9)), image)
