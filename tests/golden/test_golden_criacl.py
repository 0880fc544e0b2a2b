"""Cria-CL's network against the output of its published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.archs.criaclnet_arch import CriaCLNet
from basicsr_ext.networks.weights import fit_weights


def test_golden_released_network(golden_dir):
    golden = {key: torch.from_numpy(array) for key, array in np.load(golden_dir / 'ccl_rrdb_x4.npz').items()}
    network = CriaCLNet(num_feat=8, num_grow_ch=4, num_block=2, variant='release')
    weights = {key.removeprefix('w/'): value for key, value in golden.items() if key.startswith('w/')}
    fit_weights(network, weights, 'ccl_rrdb_x4')
    with torch.no_grad():
        output = network(golden['x'])
        views = network(golden['x'], return_views=True)
    torch.testing.assert_close(output, golden['y'], rtol=0, atol=1e-5 * golden['y'].abs().max().item())
    torch.testing.assert_close(views.sr, output, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('arguments', 'values'),
    [
        ({'num_block': 20}, 15_127_856),
        ({'num_block': 19}, 14_408_432),
        ({'num_block': 23, 'variant': 'release'}, 17_286_473),
        ({'num_block': 20, 'variant': 'release'}, 15_128_201),
    ],
)
def test_published_sizes(arguments, values):
    with torch.device('meta'):
        assert sum(parameter.numel() for parameter in CriaCLNet(**arguments).parameters()) == values
