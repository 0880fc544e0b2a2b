"""Cria-CL's network: forms, scales, masks."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch

from basicsr_ext.archs.criaclnet_arch import CriaCLNet
from basicsr_ext.errors import UserError

TINY = {'num_feat': 4, 'num_grow_ch': 2, 'num_block': 1}


@pytest.mark.parametrize('variant', ['paper', 'release'])
@pytest.mark.parametrize('upscale', [1, 2, 4])
def test_scales_and_views(variant, upscale):
    network = CriaCLNet(**TINY, upscale=upscale, variant=variant)
    x = torch.rand(2, 3, 7, 10)
    views = network(x, return_views=True)
    torch.testing.assert_close(views.sr, network(x))
    assert views.sr.shape == views.align.shape == views.unif.shape == (2, 3, 7 * upscale, 10 * upscale)
    assert views.mask.shape == (2, 1, 7 * upscale, 10 * upscale)
    assert views.mask.min() >= 0 and views.mask.max() <= 1


@pytest.mark.parametrize('num_mask', [1, 2])
def test_the_result_is_the_mixture_of_equation_10(num_mask):
    views = CriaCLNet(**TINY, num_mask=num_mask)(torch.rand(1, 3, 6, 6), return_views=True)
    torch.testing.assert_close(views.sr, views.align * views.mask + views.unif * (1 - views.mask))
    assert views.mask.std() > 0


def test_without_projector_the_result_is_the_mean():
    network = CriaCLNet(**TINY, projector=False)
    views = network(torch.rand(1, 3, 6, 6), return_views=True)
    torch.testing.assert_close(views.sr, (views.align + views.unif) / 2)
    assert (views.mask == 0.5).all()
    assert not any(name.startswith('projector') for name, _ in network.named_parameters())


def released(x: torch.Tensor, **choice: str):
    torch.manual_seed(0)
    network = CriaCLNet(**TINY, variant='release', **choice)
    image = network.conv_image(network._features(x))
    return network, image, torch.softmax(network.projector(image), 1), network(x, return_views=True)


def test_mask_of_the_release():
    """The mean of a softmax over features says nothing; their maximum does."""
    x = torch.rand(1, 3, 6, 6)
    _, _, masks, views = released(x)
    torch.testing.assert_close(views.mask, torch.full_like(views.mask, 1 / 4))
    _, _, masks, views = released(x, release_mask='max')
    torch.testing.assert_close(views.mask, masks.amax(1, keepdim=True))
    assert views.mask.std() > 0


def test_views_of_the_release():
    x = torch.rand(1, 3, 6, 6)
    network, image, _, views = released(x)
    torch.testing.assert_close(views.align, network.tail_align(network.branch_align(image)))
    torch.testing.assert_close(views.unif, network.tail_unif(network.branch_unif(image)))
    masked = released(x, release_views='masked')[-1]
    torch.testing.assert_close(masked.sr, views.sr)
    torch.testing.assert_close(masked.align + masked.unif, masked.sr)
    assert (masked.align - views.align).abs().max() > 1e-3


def test_blocks_of_the_branches():
    network = CriaCLNet(**TINY, num_branch_block=2, tail_kernel=5)
    assert len(network.branch_align) == len(network.branch_unif) == 2
    assert network.tail_align.kernel_size == network.tail_unif.kernel_size == (5, 5)
    assert network(torch.rand(1, 3, 6, 6)).shape == (1, 3, 24, 24)


@pytest.mark.parametrize('variant', ['paper', 'release'])
def test_every_weight_learns_from_the_result(variant):
    network = CriaCLNet(**TINY, variant=variant)
    network(torch.rand(1, 3, 6, 6)).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in network.parameters())


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'upscale': 3}, 'upscale of CriaCLNet: expected one of 1, 2, 4, found 3'),
        ({'variant': 'code'}, 'variant of CriaCLNet'),
        ({'num_mask': 3}, 'num_mask of CriaCLNet'),
        ({'tail_kernel': 2}, 'tail_kernel of CriaCLNet: expected an odd number'),
        ({'release_mask': 'sum'}, 'release_mask of CriaCLNet'),
        ({'release_views': 'none'}, 'release_views of CriaCLNet'),
        ({'num_feat': 0}, 'num_feat of CriaCLNet'),
        ({'variant': 'release', 'projector': False}, 'projector of CriaCLNet'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        CriaCLNet(**{**TINY, **arguments})
