"""AIL's runs that are killed, stopped or go on with other ranks, in a round or in an update, end to the bit as others."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from ail_runs import ail_options, at_call, train, write_ail_images
from basicsr.utils.registry import ARCH_REGISTRY
from run_helpers import (
    assert_same_weights,
    final_state,
    forked,
    log_text,
    network_weights,
    on_ranks,
    run,
    write_options,
)

from basicsr_ext.cli.main import main
from basicsr_ext.trainer import failing
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """A tiny image set and a teacher; read only."""
    return write_ail_images(tmp_path_factory.mktemp('ail'), photos)


def test_maps_stay_until_two_checkpoints_are_past_them(images, tmp_path):
    assert train(tmp_path, ail_options(images)) == 0
    assert [p.name for p in sorted((tmp_path / 'experiments/run/importance').glob('round_*'))] == ['round_002']
    options = ail_options(images, rounds=3)
    assert train(tmp_path, {**options, 'name': 'other'}) == 0  # the last round has one checkpoint only
    names = [p.name for p in sorted((tmp_path / 'experiments/other/importance').glob('round_*'))]
    assert names == ['round_002', 'round_003']


# ---- resuming and ranks ------------------------------------------------------------------------------------------------


def ended_at(root: Path, options: dict, target: str, call: int, number: int) -> int:
    """Trains until a call of a function, when the run gets a signal; returns its status."""
    path = write_options(root / 'o.yml', options)

    def child() -> int:
        at_call(target, call, lambda: os.kill(os.getpid(), number))
        return run(root, path)

    return forked(child)


@pytest.mark.parametrize(
    ('target', 'call'),
    [
        ('basicsr_ext.models.ail.map_files.ImportanceMaps.write', 3),  # making the first maps
        ('basicsr_ext.models.ail.map_files.ImportanceMaps.write', 8),  # in the first update
        ('basicsr_ext.models.ail.map_files.ImportanceMaps.commit', 3),
        ('basicsr_ext.models.ail.ail_model.AILModel._note_round', 2),  # after an update
        ('basicsr_ext.models.ail.ail_model.AILModel.training_step', 4),  # within a round
    ],
)
def test_recursive_form_resumes_to_the_bit(images, tmp_path, uninterrupted, target, call):
    assert ended_at(tmp_path, ail_options(images), target, call, signal.SIGKILL) == -signal.SIGKILL
    assert forked(run, tmp_path, tmp_path / 'o.yml', '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('recursive')[0]
    assert (tmp_path / 'experiments/run/importance/rounds.json').read_text() == uninterrupted('recursive')[1]


@pytest.mark.parametrize(('call', 'iteration'), [(3, 0), (8, 2)])
def test_a_stopped_update_goes_on_to_the_bit(images, tmp_path, uninterrupted, capfd, call, iteration):
    """In the first maps, and in the first update; checkpoints are few, and the iteration before the update is kept."""
    options = ail_options(images)
    options['logger']['save_checkpoint_freq'] = 5
    target = 'basicsr_ext.models.ail.map_files.ImportanceMaps.write'
    assert ended_at(tmp_path, options, target, call, signal.SIGTERM) == 128 + signal.SIGTERM
    assert f'stopped and saved after iteration {iteration}; go on with --auto_resume' in capfd.readouterr().err
    (partial,) = (tmp_path / 'experiments/run/importance').glob('*.partial')
    assert forked(run, tmp_path, tmp_path / 'o.yml', '--auto_resume') == 0
    assert not partial.exists()
    assert f'Importance of round {iteration // 2}: 2 of 5 images are to do.' in log_text(tmp_path / 'experiments/run')
    assert final_state(tmp_path) == uninterrupted('recursive')[0]
    assert (tmp_path / 'experiments/run/importance/rounds.json').read_text() == uninterrupted('recursive')[1]


def test_first_maps_go_on_though_nothing_was_trained_when_the_run_was_killed(images, tmp_path, uninterrupted):
    target = 'basicsr_ext.models.ail.map_files.ImportanceMaps.write'
    assert ended_at(tmp_path, ail_options(images), target, 3, signal.SIGKILL) == -signal.SIGKILL
    assert forked(run, tmp_path, tmp_path / 'o.yml', '--auto_resume') == 0
    assert 'Importance of round 0: 3 of 5 images are to do.' in log_text(tmp_path / 'experiments/run')
    assert final_state(tmp_path) == uninterrupted('recursive')[0]


@pytest.mark.parametrize('call', [4, 6])  # in a round, and after the last iteration of one
def test_direct_form_resumes_to_the_bit(images, tmp_path, uninterrupted, call):
    target = 'basicsr_ext.models.ail.ail_model.AILModel.training_step'
    assert ended_at(tmp_path, ail_options(images, form='direct'), target, call, signal.SIGKILL) == -signal.SIGKILL
    assert forked(run, tmp_path, tmp_path / 'o.yml', '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('direct')[0]
    assert (tmp_path / 'experiments/run/importance/rounds.json').read_text() == uninterrupted('direct')[1]


@pytest.fixture(scope='module')
def uninterrupted(images, tmp_path_factory):
    """Final states, and records of the rounds, of runs that nobody stopped."""
    made = {}

    def get(form: str) -> tuple[dict, str]:
        if form not in made:
            root = tmp_path_factory.mktemp('whole')
            assert train(root, ail_options(images, form=form)) == 0
            made[form] = final_state(root), (root / 'experiments/run/importance/rounds.json').read_text()
        return made[form]

    return get


def test_lost_maps_are_an_error(images, tmp_path, capfd):
    options = ail_options(images, rounds=1)
    options['train']['total_iter'] = 4
    assert train(tmp_path, options) == 0
    (tmp_path / 'experiments/run/importance/round_001/maps.bin').write_bytes(b'')
    options['train']['total_iter'] = 5
    assert train(tmp_path, options, '--auto_resume') == 2
    assert 'importance maps of round 1 are missing' in capfd.readouterr().err


def ranks_run(root: str, path: str, *arguments: str, status: int = 0) -> None:
    os.chdir(root)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', *arguments]) == status


@pytest.mark.parametrize('form', ['recursive', 'direct'])
def test_two_ranks_train_as_one(images, tmp_path, form):
    options = ail_options(images, form=form)
    roots = [tmp_path / 'one', tmp_path / 'two']
    for root in roots:
        root.mkdir()
    assert train(roots[0], options) == 0
    options['datasets']['train']['batch_size_per_gpu'] = 1
    on_ranks(2, ranks_run, str(roots[1]), str(write_options(roots[1] / 'o.yml', options)))
    assert_same_weights(*(network_weights(root, iteration=7) for root in roots), tolerance=1e-6)
    if form == 'recursive':
        records = [json.loads((r / 'experiments/run/importance/rounds.json').read_text()) for r in roots]
        for one, two in zip(*records, strict=True):
            assert one['mean'] == pytest.approx(two['mean'], abs=1e-5)


@pytest.mark.parametrize('form', ['recursive', 'direct'])
def test_a_round_goes_on_with_another_number_of_ranks(images, tmp_path, form):
    """Saved within round 1, which is known to every rank; rounds of so many iterations stay as long."""
    options = ail_options(images, form=form, rounds=1)
    options['train']['total_iter'] = 3
    assert train(tmp_path, options) == 0
    options['train']['total_iter'] = 4
    on_ranks(2, ranks_run, str(tmp_path), str(write_options(tmp_path / 'o.yml', options)), '--auto_resume')
    lines = read_metrics(tmp_path / 'experiments/run/metrics.jsonl')
    assert [(x['iteration'], x['round']) for x in lines if x['event'] == 'train'][2:] == [(3, 1), (4, 1)]
    if form == 'recursive':
        records = json.loads((tmp_path / 'experiments/run/importance/rounds.json').read_text())
        assert [record['round'] for record in records] == [0, 1]


def two_ranks(images: Path) -> dict:
    options = ail_options(images)
    options['datasets']['train']['batch_size_per_gpu'] = 1
    return options


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory):
    """Final state of two ranks that nobody stopped."""
    root = tmp_path_factory.mktemp('two')
    on_ranks(2, ranks_run, str(root), str(write_options(root / 'o.yml', two_ranks(images))))
    return final_state(root)


def _ended_rank(root: str, path: str, victim: str, number: int, status: int) -> None:
    failing._WAIT = 0  # nobody ends the rank that is left
    if os.environ['RANK'] == victim:
        at_call('basicsr_ext.models.ail.map_files.ImportanceMaps.write', 5, lambda: os.kill(os.getpid(), number))
    ranks_run(root, path, status=status)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGKILL])
def test_two_ranks_stopped_in_an_update_go_on_to_the_bit(images, tmp_path, whole, number):
    """One of them is, in the second image of its share of the first update; the other one ends with it."""
    path = str(write_options(tmp_path / 'o.yml', two_ranks(images)))
    if number == signal.SIGTERM:
        on_ranks(2, _ended_rank, str(tmp_path), path, '0', number, 128 + number)
    else:
        with pytest.raises(AssertionError, match='ranks ended with'):
            on_ranks(2, _ended_rank, str(tmp_path), path, '0', number, 0)
    assert not (tmp_path / 'experiments/run/importance/round_001').exists()
    on_ranks(2, ranks_run, str(tmp_path), path, '--auto_resume')
    done = 4 if number == signal.SIGTERM else 2
    assert f'Importance of round 1: {5 - done} of 5 images are to do.' in log_text(tmp_path / 'experiments/run')
    assert final_state(tmp_path) == whole


def _rank_with_a_full_disk(root: str, path: str) -> None:
    def full():
        raise OSError(28, 'No space left on device')

    if os.environ['RANK'] == '1':
        at_call('basicsr_ext.models.ail.map_files.ImportanceMaps.write', 4, full)
    ranks_run(root, path, status=2)


def test_two_ranks_end_together_where_the_disk_of_one_is_full(images, tmp_path, whole, capfd):
    path = str(write_options(tmp_path / 'o.yml', two_ranks(images)))
    on_ranks(2, _rank_with_a_full_disk, str(tmp_path), path)
    error = capfd.readouterr().err
    assert error.count('importance maps cannot be written ([Errno 28] No space left on device)') == 1  # of either rank
    on_ranks(2, ranks_run, str(tmp_path), path, '--auto_resume')
    assert final_state(tmp_path) == whole


def test_a_round_of_epochs_that_get_shorter_cannot_go_on(images, tmp_path, capfd):
    options = ail_options(images, round_iterations=None, round_epochs=0.4)  # 2 iterations with one rank, and 1 with two
    target = 'basicsr_ext.models.ail.ail_model.AILModel.training_step'
    assert ended_at(tmp_path, options, target, 4, signal.SIGKILL) == -signal.SIGKILL
    path = str(write_options(tmp_path / 'o.yml', options))
    on_ranks(2, _refused, str(tmp_path), path)
    assert 'the checkpoint was saved with rounds of 2 iterations, and here they have 1' in capfd.readouterr().err


def _refused(root: str, path: str) -> None:
    ranks_run(root, path, '--auto_resume', status=2)


class Normalised(torch.nn.Module):
    """Its running statistics differ from rank to rank."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.up = torch.nn.ConvTranspose2d(3, 3, 2, 2)

    def forward(self, x):
        return self.up(self.norm(x))


def test_ranks_agree_on_maps_though_running_statistics_differ(images, tmp_path):
    ARCH_REGISTRY._do_register('AILTestNormalised', Normalised) if 'AILTestNormalised' not in ARCH_REGISTRY else None
    options = ail_options(images, rounds=1)
    options['network_g'] = {'type': 'AILTestNormalised'}
    options['datasets']['train']['batch_size_per_gpu'] = 1
    on_ranks(2, ranks_run, str(tmp_path), str(write_options(tmp_path / 'o.yml', options)))
