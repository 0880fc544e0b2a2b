"""LFCSRModel against four iterations of PD-ADMM, computed with the published implementation's stages."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from run_helpers import model_options, sr_options
from torch import nn
from torch.nn import functional

import basicsr_ext

basicsr_ext.register()

from basicsr.utils.registry import ARCH_REGISTRY

from basicsr_ext.models.lfcsr.lfcsr_model import LFCSRModel
from basicsr_ext.networks.weights import fit_weights


@ARCH_REGISTRY.register()
class TraceStageO(nn.Module):
    """The trace's objective stage."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 48, 3, padding=1), nn.PixelShuffle(4)
        )

    def forward(self, x):
        return self.body(x) + functional.interpolate(x, scale_factor=4, mode='nearest')


@pytest.fixture(scope='module')
def golden(golden_dir):
    return {key: torch.from_numpy(array) for key, array in np.load(golden_dir / 'admm_trace.npz').items()}


def weights(golden, part):
    return {key.removeprefix(f'{part}/'): value for key, value in golden.items() if key.startswith(f'{part}/')}


def trace_options(golden, root, forwards):
    options = sr_options(root, model_type='LFCSRModel', scale=4)
    refiner = {'type': 'CliqueRefiner', 'num_feat': 4, 'num_block': 1, 'img_range': 1}
    options['network_g'] = {'type': 'LFCSR', 'stage_o': {'type': 'TraceStageO'}, 'stage_p': refiner}
    adam = {'type': 'Adam', 'lr': golden['lr'].item(), 'betas': [0.9, 0.999], 'eps': 1e-8}
    options['train'] = {
        'total_iter': 4,
        'pixel_opt': {'type': 'L1Loss'},
        'pixel_p_opt': {'type': 'L1Loss'},
        'optim_o': adam,
        'optim_p': dict(adam),
        'scheduler': {'type': 'MultiStepLR', 'milestones': [100]},
        'lfcsr': {'rho': golden['rho'].item(), 'forwards': forwards},
    }
    return options


def assert_near(value, expected):
    scale = expected.abs().max().item()
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize('forwards', ['shared', 'lean', 'full'])
def test_golden_trace(golden, tmp_path, forwards):
    with model_options(trace_options(golden, tmp_path, forwards), tmp_path) as opt:
        model = LFCSRModel(opt)
    stages = {'o': model.net_g.stage_o, 'p': model.net_g.stage_p}
    fit_weights(stages['p'], weights(golden, 'init_p'), 'init_p')
    stages['o'].load_state_dict(dict(zip(stages['o'].state_dict(), weights(golden, 'init_o').values(), strict=True)))
    for k in range(4):
        model.update_learning_rate(k + 1)
        model.feed_data({'lq': golden[f'lq{k}'], 'gt': golden[f'gt{k}']})
        model.optimize_parameters(k + 1)
        log = model.get_current_log()
        for stage in 'op':
            loss = torch.tensor(log[f'l_{stage}_pix'] + log[f'l_{stage}_constraint'])
            assert_near(loss, golden[f'loss_{stage}{k}'].float())
        assert_near(model.dual, golden[f's{k}'])
        assert log['dual'] == pytest.approx(golden[f's{k}'].abs().mean().item(), rel=1e-4)
    final_p = type(stages['p']).published_keys(weights(golden, 'final_p'))
    for name, value in stages['p'].state_dict().items():
        assert_near(value, final_p[name])
    for value, expected in zip(stages['o'].state_dict().values(), weights(golden, 'final_o').values(), strict=True):
        assert_near(value, expected)
