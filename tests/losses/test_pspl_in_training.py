"""PSPLLoss in trainings: stock and our models, our command and BasicSR's, alone and with ECO, stopped and resumed."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from checking.option_checks import changed, problems
from run_helpers import (
    assert_same_weights,
    eco_options,
    final_state,
    forked,
    gan_options,
    model_options,
    network_weights,
    run,
    sr_options,
    write_centroids,
    write_options,
    write_pairs,
)

from basicsr_ext.functional.self_paced import attention
from basicsr_ext.functional.ssim_map import ssim_map
from basicsr_ext.losses.pspl_loss import PSPLLoss
from basicsr_ext.trainer.metrics_log import read_metrics
from basicsr_ext.trainer.patches.basicsr_losses import tell_losses_the_iteration

PSPL = {'type': 'PSPLLoss', 'step_iters': 2}  # else the first iterations have no loss


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos)
    write_centroids(root)
    return root


def options_with(options: dict, **pspl) -> dict:
    """A run with PSPL as its pixel loss: 7 iterations, validated and saved every 3 and 2."""
    options['train'].update(total_iter=7, pixel_opt={**PSPL, **pspl})
    options['val']['val_freq'] = 3
    return options


@pytest.fixture
def deltas(monkeypatch):
    """Collects the width of the attention at each call of a loss."""
    seen = []
    forward = PSPLLoss.forward

    def noted(self, *arguments):
        result = forward(self, *arguments)
        seen.append((self.delta, self._is_told))
        return result

    monkeypatch.setattr(PSPLLoss, 'forward', noted)
    return seen


def models(images: Path) -> dict[str, dict]:
    eco = eco_options(images, schedule={'type': 'linear'})
    vanilla = eco_options(images, objective='vanilla')
    accumulating = eco_options(images, objective='vanilla')
    accumulating['train']['accumulate'] = 2
    stock, gan = sr_options(images), gan_options(images)
    options = {'SRModel': stock, 'ESRGANModel': gan, 'ECO': eco, 'vanilla': vanilla, 'accumulating': accumulating}
    return {name: options_with(option) for name, option in options.items()}


@pytest.mark.parametrize('model', ['SRModel', 'ESRGANModel', 'ECO', 'vanilla', 'accumulating'])
def test_every_model_tells_the_loss(images, tmp_path, deltas, model):
    assert run(tmp_path, write_options(tmp_path / 'o.yml', models(images)[model])) == 0
    calls = 2 if model == 'accumulating' else 1
    assert deltas == [(iteration / 2, True) for iteration in range(1, 8) for _ in range(calls)]


@pytest.mark.parametrize('model', ['SRModel', 'ECO', 'accumulating'])
def test_delta_and_attention_are_logged(images, tmp_path, monkeypatch, model):
    """Of every printed line; the attention is that of the last call."""
    seen = []
    forward = PSPLLoss.forward

    def noted(self, pred, target, *others):
        similarity = ssim_map(pred.detach(), target, self.settings)
        seen.append(attention(similarity, self.delta).mean().item())
        return forward(self, pred, target, *others)

    monkeypatch.setattr(PSPLLoss, 'forward', noted)
    options = models(images)[model]
    options['logger']['print_freq'] = 1
    assert run(tmp_path, write_options(tmp_path / 'o.yml', options)) == 0
    lines = [line for line in read_metrics(tmp_path / 'experiments/run/metrics.jsonl') if line['event'] == 'train']
    assert [line['pspl_delta'] for line in lines] == [iteration / 2 for iteration in range(1, 8)]
    calls = seen[1::2] if model == 'accumulating' else seen
    assert [line['pspl_attention'] for line in lines] == pytest.approx(calls, rel=1e-4)
    assert 0 < lines[-1]['pspl_attention'] < 2


def test_basicsrs_own_command_has_the_loss_count(images, tmp_path, deltas, monkeypatch):
    from basicsr.train import train_pipeline

    path = write_options(tmp_path / 'o.yml', options_with(sr_options(images)))
    path.write_text(path.read_text().replace('lr: 0.001', 'lr: !!float 1e-3'))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['train.py', '-opt', str(path)])
    train_pipeline(str(tmp_path))
    assert deltas == [(iteration / 2, False) for iteration in range(1, 8)]
    log = next((tmp_path / 'experiments/run').glob('train_*.log')).read_text()
    assert log.count('PSPLLoss is not told the iteration, and counts its calls, from 0 on') == 1
    assert 'start_iteration' in log


def test_counting_and_being_told_train_to_the_same_weights(images, tmp_path):
    from basicsr.models import build_model

    batch = {'lq': torch.rand(2, 3, 8, 8), 'gt': torch.rand(2, 3, 16, 16)}
    with model_options(options_with(sr_options(images)), tmp_path) as opt:
        results = []
        for tell in (False, True):
            torch.manual_seed(0)
            opt['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3}  # BasicSR takes its type away
            opt['train']['scheduler'] = {'type': 'MultiStepLR', 'milestones': [3]}
            opt['train']['pixel_opt'] = dict(PSPL)
            model = build_model(opt)
            if tell:
                tell_losses_the_iteration(model)
            for iteration in range(1, 5):
                model.feed_data(batch)
                model.optimize_parameters(iteration)
            assert model.cri_pix.iteration == 4
            results.append({'params': model.net_g.state_dict()})
    assert_same_weights(*results)


def run_until_killed(root: Path, path: Path, call: int) -> int:
    original, calls = torch.optim.Adam.step, [0]

    def step(self, *arguments):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, *arguments)

    torch.optim.Adam.step = step
    return run(root, path, '--auto_resume')


@pytest.mark.parametrize('model', ['SRModel', 'ECO'])
def test_a_killed_run_ends_as_one_that_was_not(images, tmp_path, model):
    states = []
    for name in ('whole', 'killed'):
        root = tmp_path / name
        root.mkdir()
        path = write_options(root / 'o.yml', models(images)[model])
        if name == 'killed':
            assert forked(run_until_killed, root, path, 6) == -signal.SIGKILL
        assert forked(run, root, path, '--auto_resume') == 0
        states.append(final_state(root))
    assert states[0] == states[1]
    (rank,) = torch.load(root / 'experiments/run/training_states/7.state', weights_only=True)['ranks']
    kept = rank['losses']['cri_pix'] if model == 'SRModel' else rank['extra_state']['criterion_pixel']
    assert kept == {'iteration': 7}
    first = network_weights(root, iteration=2)['params']['conv_first.weight']
    assert not torch.equal(first, network_weights(root)['params']['conv_first.weight'])


def test_a_loss_that_counts_is_restored_from_a_checkpoint(images, tmp_path):
    """Where nobody tells it, as in a model that makes its losses later."""
    from basicsr.models import build_model

    from basicsr_ext.trainer.checkpoints import rank_state, restore_rank_state

    with model_options(options_with(sr_options(images)), tmp_path) as opt:
        model = build_model(opt)
        model.cri_pix.iteration = 41
        state = rank_state(model)
        assert state['losses'] == {'cri_pix': {'iteration': 41}}
        model.cri_pix.iteration = 0
        restore_rank_state(model, state)
        assert model.cri_pix.iteration == 41
        restore_rank_state(model, {key: state[key] for key in state if key != 'losses'})  # of a run before it was kept


def test_wrong_options_are_found_before_training(images, tmp_path):
    options = options_with(sr_options(images))
    assert problems(options, tmp_path) == []
    for key, value, message in (
        ('gama', 1, 'did you mean "gamma"'),
        ('criterion', 'mse', 'expected one of l1, l2, charbonnier'),
        ('window_size', 10, 'expected an odd'),
        ('step_iters', '1k', 'expected a number'),
        ('reduction', 'none', 'expected mean or sum'),
    ):
        wrong = changed(options_with(sr_options(images)), f'train.pixel_opt.{key}', value)
        found = problems(wrong, tmp_path)
        assert len(found) == 1 and 'train.pixel_opt' in found[0] and message in found[0]
