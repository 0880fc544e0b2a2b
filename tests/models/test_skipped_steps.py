"""Steps that the guard or an overflow in fp16 skips are counted until a line is printed."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import math

import pytest
import torch
from run_helpers import eco_options, model_options, sr_options, write_options, write_pairs

from basicsr_ext.cli.main import main
from basicsr_ext.models.guard import Guard
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.trainer.metrics_log import read_metrics


def make_model(root, **changes):
    options = sr_options(root)
    options['train'].update(changes)
    with model_options(options, root) as opt:
        return TrainingModel(opt)


def step(model, iteration, spoiled=False):
    generator = torch.Generator().manual_seed(iteration)
    data = {side: torch.rand(2, 3, size, size, generator=generator) for side, size in (('lq', 8), ('gt', 16))}
    if spoiled:
        data['lq'][0, 0, 0, 0] = math.nan
    model.update_learning_rate(iteration)
    model.feed_data(data)
    model.optimize_parameters(iteration)


@pytest.mark.parametrize('changes', [{'guard': {}}, {'precision': 'fp16'}])
def test_skips_between_two_printed_lines_are_counted_also_over_a_resume(tmp_path, changes):
    model = make_model(tmp_path, **changes)
    step(model, 1)
    assert model.get_current_log()['skipped'] == 0
    step(model, 2, spoiled=True)
    step(model, 3, spoiled=True)
    step(model, 4)
    resumed = make_model(tmp_path, **changes)
    resumed.load_extra_state(model.extra_state())
    step(resumed, 5)
    step(model, 5)
    assert model.get_current_log()['skipped'] == resumed.get_current_log()['skipped'] == 2
    step(model, 6)
    assert model.get_current_log()['skipped'] == 0


@pytest.mark.parametrize('held', [False, True])
def test_a_schedule_may_rest_where_a_step_is_skipped_also_over_a_resume(tmp_path, held):
    """Milestone 3: the rate of iteration 4 is halved, or that of iteration 6 where two steps were skipped before."""
    changes = {'guard': {'hold_scheduler': held}}
    model, rates = make_model(tmp_path, **changes), []
    for iteration in range(1, 8):
        if iteration == 4:  # in the middle of two skips
            state = model.extra_state()
            schedulers = [scheduler.state_dict() for scheduler in model.schedulers]
            optimizers = [optimizer.state_dict() for optimizer in model.optimizers]
            model = make_model(tmp_path, **changes)
            model.load_extra_state(state)
            model.resume_training({'optimizers': optimizers, 'schedulers': schedulers})
        step(model, iteration, spoiled=iteration in (3, 4))
        rates.append(model.get_current_learning_rate()[0])
    falls = 5 if held else 3
    assert rates == [1e-3] * falls + [5e-4] * (7 - falls)


@pytest.mark.parametrize('changes', [{'guard': {'max_skips': 100}}, {'precision': 'fp16'}])
def test_an_interval_without_a_step_warns(tmp_path, capfd, changes):
    model = make_model(tmp_path, **changes)
    for iterations, said in ((range(1, 4), False), (range(4, 7), True)):
        for iteration in iterations:
            step(model, iteration, spoiled=iteration != 2)
        model.get_current_log()
        assert ('All 3 steps up to iteration 6 since the last line were skipped' in capfd.readouterr().err) == said


def test_without_guard_and_fp16_nothing_is_counted(tmp_path):
    model = make_model(tmp_path)
    step(model, 1)
    assert 'skipped' not in model.get_current_log()


def test_a_growing_scale_is_no_skip(tmp_path):
    model = make_model(tmp_path, precision='fp16')
    scaler = model.players['g'].scaler
    scaler.set_growth_interval(1)
    scale = scaler.get_scale()
    step(model, 1)
    step(model, 2)
    assert scaler.get_scale() > scale and model.get_current_log()['skipped'] == 0


def test_a_run_records_them_with_the_next_line(tmp_path, photos, monkeypatch):
    """Printed every third iteration; saved and resumed in between."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    options = eco_options(tmp_path, objective='vanilla')
    train = options['datasets']['train']
    train['type'] = 'PairedStoreDataset'
    del train['dataroot_centroid'], train['dataroot_centroid_lq']
    options['train'].update(guard={}, total_iter=6)
    options['logger'].update(print_freq=3, save_checkpoint_freq=2)
    path = str(write_options(tmp_path / 'o.yml', options))
    accepts, calls = (
        Guard.accepts,
        iter([False, True, False, False, True, True]),
    )  # checkpoints need a step that is taken
    monkeypatch.setattr(Guard, 'accepts', lambda self, *arguments: accepts(self, *arguments) and next(calls))
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=2']) == 0
    assert main(['train', '-opt', path, '--auto_resume']) == 0
    lines = [line for line in read_metrics(tmp_path / 'experiments/run/metrics.jsonl') if line['event'] == 'train']
    assert [(line['iteration'], line['skipped']) for line in lines] == [(3, 2), (6, 1)]


def test_a_run_without_a_step_says_what_the_first_loss_was_compared_with(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    options = sr_options(tmp_path)
    options['model_type'] = 'TrainingModel'
    options['train'].update(guard={'initial': 1e-6}, total_iter=2)
    path = str(write_options(tmp_path / 'o.yml', options))
    assert main(['train', '-opt', path]) == 2
    error = capsys.readouterr().err
    assert 'No step was taken at all: every loss was above 5 times train.guard.initial (1e-06).' in error
