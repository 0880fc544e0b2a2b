"""LFC-SR's mathematics against numbers of its published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from basicsr_ext.functional.admm import penalty
from basicsr_ext.functional.contextual import contextual_loss
from basicsr_ext.functional.wavelet import gaussian_low, haar_dwt, haar_idwt, haar_low


def load(golden_dir, name):
    return {key: torch.from_numpy(array) for key, array in np.load(golden_dir / f'{name}.npz').items()}


def close(ours, golden, relative=1e-5, scale=None):
    largest = (golden if scale is None else scale).abs().max().item()
    torch.testing.assert_close(ours, golden, rtol=0, atol=relative * largest)


def test_golden_haar(golden_dir):
    golden = load(golden_dir, 'haar')
    close(haar_dwt(golden['x']), golden['dwt'])
    close(haar_idwt(golden['dwt']), golden['idwt'])
    close(haar_low(golden['x'], 2), golden['dwt2_ll'])


@pytest.mark.parametrize(
    ('name', 'dual', 'low', 'of_penalty', 'of_residual'),
    [('wvt', 's', haar_low, 1e-5, 1e-5), ('gauss', 's_gauss', gaussian_low, 1e-4, 3e-3)],
)
def test_golden_constraint(golden_dir, name, dual, low, of_penalty, of_residual):
    golden = load(golden_dir, 'admm_constraint')
    bands = [low(golden[key]) for key in ('y_p', 'y_o')]
    residual = golden[f'residual_{name}']
    close(bands[0] - bands[1], residual, of_residual, scale=golden['y_p'] if name == 'wvt' else residual)
    penalties = {key: value for key, value in golden.items() if key.startswith(f'penalty_{name}')}
    assert penalties
    for key, expected in penalties.items():
        close(penalty(*bands, golden[dual], float(key.split('rho')[1])), expected, of_penalty)


@pytest.mark.parametrize('bandwidth', [0.1, 0.5])
@pytest.mark.parametrize('max_pairs', [2**22, 144 * 17])
def test_golden_contextual(golden_dir, bandwidth, max_pairs):
    golden = load(golden_dir, 'contextual')
    features = golden['x'].clone().requires_grad_()
    loss = contextual_loss(features, golden['y'], bandwidth, max_pairs)
    loss.backward()
    close(loss.detach(), golden[f'cx_bw{bandwidth}'])
    close(features.grad, golden[f'grad_cx_bw{bandwidth}'])
