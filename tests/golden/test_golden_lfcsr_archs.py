"""LFC-SR's networks against outputs of its published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.archs.cliquerefiner_arch import CliqueRefiner
from basicsr_ext.archs.han_arch import HAN
from basicsr_ext.networks.weights import fit_weights


def load(golden_dir, name):
    golden = {key: torch.from_numpy(array) for key, array in np.load(golden_dir / f'{name}.npz').items()}
    return golden, {key.removeprefix('w/'): value for key, value in golden.items() if key.startswith('w/')}


def test_golden_han(golden_dir):
    golden, weights = load(golden_dir, 'han_x4')
    network = HAN(num_feat=16, num_group=10, num_block=1, squeeze_factor=16, upscale=4, img_range=1)
    fit_weights(network, weights, 'han_x4')
    with torch.no_grad():
        output = network(golden['x'])
    torch.testing.assert_close(output, golden['y'], rtol=0, atol=1e-5 * golden['y'].abs().max().item())


@pytest.mark.parametrize('stages', [1, 2])
def test_golden_clique_refiner(golden_dir, stages):
    golden, weights = load(golden_dir, f'clique_nstage{stages}')
    network = CliqueRefiner(num_feat=4, num_block=2, num_stage=stages, img_range=1)
    fit_weights(network, weights, 'clique')
    with torch.no_grad():
        output = network(golden['x'])
    torch.testing.assert_close(output, golden['y'], rtol=0, atol=1e-5 * golden['y'].abs().max().item())


@pytest.mark.parametrize(('network', 'values'), [(HAN, 16_071_769), (CliqueRefiner, 2_601_444)])
def test_published_sizes(network, values):
    with torch.device('meta'):
        assert sum(p.numel() for p in network().parameters()) + 24 == values
