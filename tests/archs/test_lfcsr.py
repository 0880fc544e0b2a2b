"""The network of two stages: order, roles, weights of a stage or of both, what it needs of its input."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import numpy as np
import pytest
import torch
from run_helpers import model_options, sr_options

from basicsr_ext.archs.cliquerefiner_arch import CliqueRefiner
from basicsr_ext.archs.han_arch import HAN
from basicsr_ext.archs.lfcsr_arch import LFCSR
from basicsr_ext.errors import UserError
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.requirements import requirements_of
from basicsr_ext.networks.weights import fit_weights

SR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2}
REFINER = {'type': 'CliqueRefiner', 'num_feat': 2, 'num_block': 1}
TINY_HAN = {'type': 'HAN', 'num_feat': 4, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 2, 'upscale': 4}


@pytest.mark.parametrize('order', ['op', 'po'])
def test_stages_run_in_order_and_keep_their_roles(order):
    torch.manual_seed(0)
    options = {'stage_o': SR, 'stage_p': REFINER} if order == 'op' else {'stage_o': REFINER, 'stage_p': SR}
    network = LFCSR(**options, order=order)
    x = torch.rand(2, 3, 7, 9)
    stages = network(x, return_stages=True)
    first, second = (stages.objective, stages.perceptual) if order == 'op' else (stages.perceptual, stages.objective)
    enlarging, refining = (network.stage_o, network.stage_p) if order == 'op' else (network.stage_p, network.stage_o)
    assert first.shape == second.shape == (2, 3, 14, 18)
    torch.testing.assert_close(first, enlarging(x), rtol=0, atol=0)
    torch.testing.assert_close(second, refining(first), rtol=0, atol=0)
    torch.testing.assert_close(network(x), second, rtol=0, atol=0)
    assert network.first is enlarging and network.second is refining
    assert {name.split('.')[0] for name in network.state_dict()} == {'stage_o', 'stage_p'}


def test_stage_p_is_the_papers_unless_said_otherwise():
    with torch.device('meta'):
        network = LFCSR({'type': 'HAN'})
    assert sum(p.numel() for p in network.stage_p.parameters()) + 24 == 2_601_444
    assert sum(p.numel() for p in network.parameters()) + 48 == 2_601_444 + 16_071_769


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'order': 'oo'}, "order of LFCSR: expected one of op, po, found 'oo'"),
        ({'stage_p': {'num_feat': 3}}, 'stage_p of LFCSR: expected the option of a network'),
        ({'stage_o': 'HAN'}, "stage_o of LFCSR: expected the option of a network, with its type, found 'HAN'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        LFCSR(**{'stage_o': SR, 'stage_p': REFINER, **arguments})


def test_published_weights_of_both_stages(golden_dir):
    """``D.`` and ``P.``, with the published names of the stages' own tensors."""
    stages = {'D': np.load(golden_dir / 'han_x4.npz'), 'P': np.load(golden_dir / 'clique_nstage2.npz')}
    state = {
        f'{letter}.{key.removeprefix("w/")}': torch.from_numpy(golden[key])
        for letter, golden in stages.items()
        for key in golden
        if key.startswith('w/')
    }
    network = LFCSR(
        {'type': 'HAN', 'num_feat': 16, 'num_group': 10, 'num_block': 1, 'img_range': 1},
        {'type': 'CliqueRefiner', 'num_feat': 4, 'num_block': 2, 'img_range': 1},
    )
    assert fit_weights(network, state, 'both.pth').share.endswith('tensors matched (100%)')
    with torch.no_grad():
        for stage, letter in ((network.stage_o, 'D'), (network.stage_p, 'P')):
            golden = stages[letter]
            torch.testing.assert_close(
                stage(torch.from_numpy(golden['x'])), torch.from_numpy(golden['y']), rtol=0, atol=1e-5
            )


def test_a_second_stage_that_enlarges_is_refused():
    network = LFCSR(SR, REFINER, order='po')
    with pytest.raises(
        UserError, match='with order: po stage_p enlarges and stage_o keeps the size, found images of 8x6'
    ):
        network(torch.rand(1, 3, 8, 6))


@pytest.mark.parametrize('order', ['op', 'po'])
@pytest.mark.parametrize('prefix', ['', 'own'])
def test_weights_of_the_first_stage_alone_start_a_run(tmp_path, order, prefix):
    """As a network of its own, or as the part of another LFCSR; the other stage is new. The EMA network starts alike."""
    torch.manual_seed(5)
    sr = HAN(**{key: value for key, value in TINY_HAN.items() if key != 'type'})
    other = 'po'['op'.index(order[0])]
    state = (
        sr.state_dict() if not prefix else {f'stage_{order[0]}.{key}': value for key, value in sr.state_dict().items()}
    )
    torch.save({'params': state}, tmp_path / 'HAN.pth')
    options = sr_options(tmp_path, scale=4)
    stages = {f'stage_{order[0]}': dict(TINY_HAN), f'stage_{other}': dict(REFINER)}
    options['network_g'] = {'type': 'LFCSR', **stages, 'order': order}
    options['train']['ema_decay'] = 0.9
    options['path'].update(
        pretrain_network_g=str(tmp_path / 'HAN.pth'), pretrain_network_g_leave_out=[f'stage_{other}.']
    )
    with model_options(options, tmp_path) as opt:
        model = TrainingModel(opt)
    for network in (model.net_g, model.net_g_ema):
        assert all(torch.equal(value, sr.state_dict()[name]) for name, value in network.first.state_dict().items())
        fresh = CliqueRefiner(num_feat=2, num_block=1).state_dict()
        assert any(not torch.equal(value, fresh[name]) for name, value in network.second.state_dict().items())
    del options['path']['pretrain_network_g_leave_out']
    with (
        model_options(options, tmp_path) as opt,
        pytest.raises(UserError, match=rf'missing in the file \(stage_{other}\.'),
    ):
        TrainingModel(opt)


def test_its_needs_are_those_of_its_stages():
    swin = {'type': 'SwinIR', 'window_size': 8}
    assert requirements_of({'type': 'LFCSR', 'stage_o': SR, 'stage_p': REFINER}) == (1, False)
    assert requirements_of({'type': 'LFCSR', 'stage_o': swin, 'stage_p': {'type': 'SwinIR', 'window_size': 6}}) == (
        24,
        False,
    )
    grey = {'type': 'LFCSR', 'stage_o': {**SR, 'num_in_ch': 1}, 'stage_p': {**REFINER, 'num_in_ch': 1}}
    assert requirements_of(grey) == (1, True)
