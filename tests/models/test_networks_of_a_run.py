"""Networks of a run: what they start from, on every rank, and what is saved of them; each player's schedule."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from run_helpers import TINY_EDSR, model_options, on_ranks, sr_options

from basicsr_ext.distributed import on_all_ranks
from basicsr_ext.models.training_model import TrainingModel

TINY_CRITIC = {**TINY_EDSR, 'num_feat': 2}


class WithCritic(TrainingModel):
    """Two networks and two players; only ``g`` moves."""

    def setup_players(self):
        super().setup_players()
        self.net_d = self.saved_networks['net_d'] = self.build_network('d')
        self.add_player('d', self.net_d)


def critic_options(root):
    options = sr_options(root)
    options['network_d'] = dict(TINY_CRITIC)
    options['train'].update(ema_decay=0.5, optim_d={'type': 'Adam', 'lr': 1e-2})
    return options


def numbers(network):
    return torch.cat([value.detach().flatten() for value in network.state_dict().values()])


def batch():
    generator = torch.Generator().manual_seed(0)
    return {side: torch.rand(2, 3, size, size, generator=generator) for side, size in (('lq', 8), ('gt', 16))}


def step(model, iteration=1):
    model.update_learning_rate(iteration)
    model.feed_data(batch())
    model.optimize_parameters(iteration)


# ---- ranks -----------------------------------------------------------------------------------------------------------


def _first_ranks_seed_and_weights(root):
    options = critic_options(root)
    options['manual_seed'] = None
    with model_options(options, root, launcher='pytorch') as opt:
        seeds = on_all_ranks(opt['manual_seed'])
        assert seeds[0] == seeds[1]
        drawn = on_all_ranks(torch.rand(1).item())
        assert drawn[0] != drawn[1]  # so that equal weights are not equal by the same draw
        model = WithCritic(opt)
        for network in (model.net_g, model.net_g_ema, model.net_d):
            first, second = on_all_ranks(numbers(network))
            assert torch.equal(first, second)
        bare = on_all_ranks(numbers(model.build_network('d')))  # without the wrapper, which would send weights itself
        assert torch.equal(*bare)


def test_all_ranks_take_the_first_ranks_seed_and_weights(tmp_path):
    on_ranks(2, _first_ranks_seed_and_weights, tmp_path)


def _log_is_averaged(root):
    with model_options(sr_options(root), root, launcher='pytorch') as opt:
        model = TrainingModel(opt)
        model.log('number', float(opt['rank']))
        model.log('tensor', torch.tensor([1.0, 3.0]) * (opt['rank'] + 1))
        assert model.get_current_log() == {'number': 0.5, 'tensor': 3.0}


def test_logged_values_are_averaged_over_ranks(tmp_path):
    on_ranks(2, _log_is_averaged, tmp_path)


# ---- weights to start from -------------------------------------------------------------------------------------------


def start_from(root, content, **path_options):
    torch.save(content, root / 'start.pth')
    options = sr_options(root)
    options['path'] = {'pretrain_network_g': str(root / 'start.pth'), **path_options}
    with model_options(options, root) as opt:
        return TrainingModel(opt)


def states(count):
    torch.manual_seed(5)
    return [build_network(TINY_EDSR).state_dict() for _ in range(count)]


@pytest.mark.parametrize(
    ('key', 'index'), [({}, 0), ({'param_key_g': 'params_ema'}, 1), ({'param_key_g': 'params'}, 0)]
)
def test_param_key_g_chooses_the_weights(tmp_path, key, index):
    plain, averaged = states(2)
    model = start_from(tmp_path, {'params': plain, 'params_ema': averaged}, **key)
    expected = (plain, averaged)[index]
    assert all(torch.equal(value, expected[name]) for name, value in model.net_g.state_dict().items())


def test_strict_load_g_says_whether_every_tensor_must_fit(tmp_path):
    (state,) = states(1)
    removed = state.pop('conv_last.weight')
    for strict in ({}, {'strict_load_g': True}):
        with pytest.raises(basicsr_ext.UserError, match=r'1 missing in the file \(conv_last\.weight\)'):
            start_from(tmp_path, {'params': state}, **strict)
    model = start_from(tmp_path, {'params': state}, strict_load_g=False)
    own = model.net_g.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())
    assert not torch.equal(own['conv_last.weight'], removed)


# ---- schedules -------------------------------------------------------------------------------------------------------


def test_a_player_may_have_a_schedule_of_its_own(tmp_path):
    options = critic_options(tmp_path)
    options['train']['scheduler_d'] = {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1}
    with model_options(options, tmp_path) as opt:
        model = WithCritic(opt)
    rates = []
    for iteration in (1, 2, 3, 4):
        model.update_learning_rate(iteration)
        rates.append([player.optimizer.param_groups[0]['lr'] for player in model.players.values()])
    assert rates == [pytest.approx(pair) for pair in ([1e-3, 1e-2], [1e-3, 1e-3], [1e-3, 1e-3], [5e-4, 1e-3])]


# ---- saving ----------------------------------------------------------------------------------------------------------


def test_the_averaged_and_the_further_networks_are_saved(tmp_path):
    with model_options(critic_options(tmp_path), tmp_path) as opt:
        for folder in ('models', 'training_states'):
            Path(opt['path'][folder]).mkdir(parents=True)
        model = WithCritic(opt)
        step(model)
        model.save(epoch=0, current_iter=1)
    files = {path.name: torch.load(path, weights_only=True) for path in Path(opt['path']['models']).iterdir()}
    expected = {
        'net_g_1.pth': {'params': model.net_g, 'params_ema': model.net_g_ema},
        'net_d_1.pth': {'params': model.net_d},
    }
    assert files.keys() == expected.keys()
    for name, networks in expected.items():
        assert files[name].keys() == networks.keys()
        for key, network in networks.items():
            assert all(torch.equal(files[name][key][k], v) for k, v in network.state_dict().items())
    assert not torch.equal(numbers(model.net_g), numbers(model.net_g_ema))
