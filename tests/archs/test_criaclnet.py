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
        ({'num_feat': 0}, 'num_feat of CriaCLNet'),
        ({'variant': 'release', 'projector': False}, 'projector of CriaCLNet'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        CriaCLNet(**{**TINY, **arguments})
