"""A run that is stopped anywhere and resumed ends to the bit as one that was not stopped."""

from __future__ import annotations

from waiting import LIMIT, wait_until

import basicsr_ext

basicsr_ext.register()

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from resume_runs import at_call, make_options, train_rank
from run_helpers import (
    final_state,
    forked,
    log_text,
    on_ranks,
    plain,
    real_esrgan_options,
    run,
    sr_options,
    write_centroids,
    write_options,
    write_pairs,
)

from basicsr_ext.cli.main import main
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.storage import open_store
from basicsr_ext.trainer import checkpoints, out_of_memory
from basicsr_ext.trainer.metrics_log import read_metrics
from basicsr_ext.trainer.resuming import check_same_data, fingerprint


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """Tiny images and centroids, read only."""
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos)
    write_centroids(root)
    return root


@pytest.fixture(scope='module')
def uninterrupted(images, tmp_path_factory):
    """Final states of runs that nobody stopped, made once a case."""
    made = {}

    def get(model: str, workers: int = 0) -> dict:
        if (model, workers) not in made:
            root = tmp_path_factory.mktemp('whole')
            options = make_options(images, model)
            options['datasets']['train']['num_worker_per_gpu'] = workers
            assert forked(run, root, write_options(root / 'o.yml', options)) == 0
            made[model, workers] = final_state(root)
        return made[model, workers]

    return get


# ---- kills -----------------------------------------------------------------------------------------------------------

# The first call after a checkpoint is there and the last one, for models with one network and with two.
HOOKS = {
    'torch.save': ((3, 8), (4, 12)),
    'os.replace': ((3, 8), (4, 12)),
    'os.fsync': ((5, 16), (7, 24)),
    'basicsr_ext.trainer.checkpoints.sha256': ((2, 4), (3, 8)),
    'basicsr_ext.trainer.checkpointing.CheckpointManager.end_iteration': ((3, 7), (3, 7)),
    'basicsr_ext.trainer.prefetching.Prefetcher.next': ((4, 8), (4, 8)),
    'basicsr.models.sr_model.SRModel.nondist_validation': ((1, 3), (1, 3)),
    'torch.optim.Adam.step': ((3, 7), (5, 14)),
}


def run_until_killed(root: Path, path: Path, hook: str, call: int) -> int:
    """Trains, and dies by kill -9 at a call of a function."""
    at_call(hook, call, lambda: os.kill(os.getpid(), signal.SIGKILL))
    return run(root, path, '--auto_resume')


def kill_plan() -> list[tuple[str, int, str, int]]:
    """20 kills: model, workers, hook, call; each hook at least twice, half of them inside saving."""
    draw = random.Random(2026)
    models = ['SRModel', 'ESRGANModel', 'ECOModel']
    plan = []
    for number in range(20):
        hook, model = list(HOOKS)[number % len(HOOKS)], models[number % 3]
        plan.append((model, 2 if number % 5 == 0 else 0, hook, draw.randint(*HOOKS[hook][model == 'ESRGANModel'])))
    return plan


@pytest.mark.parametrize(('model', 'workers', 'hook', 'call'), kill_plan())
def test_a_killed_run_ends_as_one_that_was_not(images, uninterrupted, tmp_path, model, workers, hook, call):
    options = make_options(images, model)
    options['datasets']['train']['num_worker_per_gpu'] = workers
    path = write_options(tmp_path / 'o.yml', options)
    assert forked(run_until_killed, tmp_path, path, hook, call) == -signal.SIGKILL
    assert checkpoints.newest_state(tmp_path / 'experiments/run/training_states')[0] is not None
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted(model)
    assert not list((tmp_path / 'experiments/run').rglob('*.partial'))


def test_a_run_killed_before_its_first_checkpoint_is_whole_starts_anew(images, uninterrupted, tmp_path):
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))
    assert forked(run_until_killed, tmp_path, path, 'os.replace', 2) == -signal.SIGKILL
    assert not list(tmp_path.rglob('*.state')) and list(tmp_path.rglob('*.pth'))
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('SRModel')


def test_real_esrgans_pool_of_pairs_and_degradations_go_on(images, uninterrupted, tmp_path, monkeypatch):
    """Killed when the pool, which holds two batches, is shuffled for the third time."""
    from basicsr.data.realesrgan_dataset import RealESRGANDataset

    original = RealESRGANDataset.__getitem__

    def small(self, index):
        sample = original(self, index)  # always 400x400 pixels
        return {**sample, 'gt': sample['gt'][:, :64, :64].clone()}

    monkeypatch.setattr(RealESRGANDataset, '__getitem__', small)
    path = write_options(tmp_path / 'o.yml', make_options(images, 'RealESRGANModel'))
    assert forked(run_until_killed, tmp_path, path, 'torch.randperm', 3) == -signal.SIGKILL
    assert checkpoints.newest_state(tmp_path / 'experiments/run/training_states')[0].stem == '4'
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('RealESRGANModel')


def test_a_fresh_process_killed_and_resumed(images, uninterrupted, tmp_path):
    """kill -9 of a process of its own, wherever it happens to be once a checkpoint is there."""
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))
    environment = {**os.environ, 'PYTHONPATH': str(Path(basicsr_ext.__file__).parents[1]), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-m', 'basicsr_ext', 'train', '-opt', str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    states = tmp_path / 'experiments/run/training_states'
    wait_until(lambda: process.poll() is not None or list(states.glob('*.state')), 'a checkpoint')
    process.kill()
    process.wait(LIMIT)
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('SRModel')


# ---- what a checkpoint is --------------------------------------------------------------------------------------------


@pytest.fixture
def finished(images, tmp_path, monkeypatch):
    """A finished run with all its checkpoints."""
    monkeypatch.chdir(tmp_path)
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))
    assert main(['train', '-opt', str(path)]) == 0
    return tmp_path


def events(root: Path) -> list[tuple[str, int]]:
    return [(line['event'], line['iteration']) for line in read_metrics(root / 'experiments/run/metrics.jsonl')]


def test_the_end_is_saved_and_validated_once_as_total_iter(finished):
    models = {p.name for p in (finished / 'experiments/run/models').iterdir()}
    assert models == {f'net_g_{i}.pth' for i in (2, 4, 6, 7, 'latest')}
    assert [e for e in events(finished) if e[0] == 'validation'] == [('validation', i) for i in (3, 6, 7)]
    latest, last = (torch.load(f'experiments/run/models/net_g_{i}.pth', weights_only=True) for i in ('latest', 7))
    assert plain(latest) == plain(last)


def test_a_checkpoint_knows_the_validation_of_its_iteration(finished):
    state = torch.load('experiments/run/training_states/6.state', weights_only=True)
    assert state['best_metric_results']['val']['psnr']['iter'] in (3, 6)
    lines = read_metrics(Path('experiments/run/metrics.jsonl'))
    kept = Path('experiments/run/metrics.jsonl').read_bytes()[: state['metrics_offset']].decode().splitlines()
    assert json.loads(kept[-1])['event'] == 'validation' and json.loads(kept[-1])['iteration'] == 6
    assert len(kept) == sum(line['iteration'] <= 6 for line in lines)


def test_resuming_a_finished_run_does_nothing(finished):
    before = final_state(finished)
    assert main(['train', '-opt', 'o.yml', '--auto_resume']) == 0
    assert final_state(finished) == before
    assert len(events(finished)) == len(before['metrics'])
    assert 'Iteration 7 of 7: nothing is left to train.' in log_text(finished / 'experiments/run')
    assert not list(finished.rglob('*.partial'))


def test_checkpoints_carry_options_method_and_versions(finished):
    state = torch.load('experiments/run/training_states/4.state', weights_only=True)
    assert state['model_type'] == 'SRModel' and state['versions']['torch'] == torch.__version__
    assert state['options']['train']['total_iter'] == 7 and state['options']['manual_seed'] == 7
    assert state['networks'] == {'net_g_4.pth': checkpoints.sha256(Path('experiments/run/models/net_g_4.pth'))}


@pytest.mark.parametrize('victim', ['training_states/6.state', 'models/net_g_6.pth'])
@pytest.mark.parametrize('damage', ['cut', 'flip', 'missing'])
def test_a_damaged_checkpoint_is_passed_over(finished, uninterrupted, capsys, victim, damage):
    experiment = finished / 'experiments/run'
    for path in [*experiment.glob('training_states/7.state'), *experiment.glob('models/*_7.pth')]:
        path.unlink()
    path = experiment / victim
    content = bytearray(path.read_bytes())
    if damage == 'missing':
        path.unlink()
    else:
        if damage == 'flip':
            content[len(content) // 2] ^= 0xFF
        path.write_bytes(content[: len(content) // 2] if damage == 'cut' else content)
    assert main(['train', '-opt', 'o.yml', '--auto_resume']) == 0
    output = capsys.readouterr().out
    if (victim, damage) != ('training_states/6.state', 'missing'):
        assert 'Warning' in output and '6.state' in output
    assert 'iter: 4' in log_text(experiment)
    assert final_state(finished) == uninterrupted('SRModel')


def test_a_stray_network_without_a_state_is_no_checkpoint(finished):
    stray = finished / 'experiments/run/models/net_g_99.pth'
    stray.write_bytes(b'x')
    assert main(['train', '-opt', 'o.yml', '--auto_resume', '--force_yml', 'train:total_iter=8']) == 0
    assert 'Resuming training from epoch: 1, iter: 7' in log_text(finished / 'experiments/run')
    assert (finished / 'experiments/run/training_states/8.state').is_file() and stray.read_bytes() == b'x'


def test_checkpoints_of_which_none_is_whole_are_an_error(finished, capsys):
    """They would else be put aside with the whole experiment."""
    states = sorted((finished / 'experiments/run/training_states').iterdir())
    for state in states:
        state.write_bytes(state.read_bytes()[:100])
    assert main(['train', '-opt', 'o.yml', '--auto_resume']) == 2
    output = capsys.readouterr()
    assert 'expected a checkpoint that is whole' in output.err and '7.state' in output.err
    assert 'The checkpoint before it is taken' not in output.out
    assert sorted((finished / 'experiments/run/training_states').iterdir()) == states
    assert [path.name for path in (finished / 'experiments').iterdir()] == ['run']


def test_an_explicit_state_that_is_damaged_is_an_error(finished, capsys):
    Path('experiments/run/models/net_g_4.pth').write_bytes(b'x')
    text = (
        Path('o.yml').read_text().replace('resume_state: null', 'resume_state: experiments/run/training_states/4.state')
    )
    Path('o.yml').write_text(text)
    assert main(['train', '-opt', 'o.yml']) == 2
    assert 'net_g_4.pth is damaged, so iteration 4 cannot be resumed' in capsys.readouterr().err


def test_a_full_disk_stops_the_run_and_keeps_the_last_checkpoint(images, tmp_path, capfd):
    """A limit on the size of files stands for the disk."""
    import resource

    options = make_options(images, 'SRModel')
    options['network_g']['num_feat'] = 64  # larger files than the log and what pytest captures
    path = write_options(tmp_path / 'o.yml', options)
    assert forked(run, tmp_path, path, '--force_yml', 'train:total_iter=3') == 0
    size = max(p.stat().st_size for p in (tmp_path / 'experiments/run').rglob('*.pth'))

    def limited() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))
        return run(tmp_path, path, '--auto_resume')

    assert forked(limited) == 2
    assert 'cannot be written' in capfd.readouterr().err
    assert not list(tmp_path.rglob('*.partial'))
    assert {p.name for p in (tmp_path / 'experiments/run/training_states').iterdir()} == {'2.state', '3.state'}
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path)['state']['iter'] == 7


@pytest.fixture
def falling_scores(monkeypatch):
    """Each validation of five images is worse than the one before: the best is that of iteration 3."""
    calls = iter(range(1000))
    monkeypatch.setattr(
        'basicsr_ext.trainer.patches.image_io.basicsr_calculate_metric', lambda *_: 30.0 - next(calls) // 5
    )


def test_keep_last_and_keep_best(images, tmp_path, monkeypatch, falling_scores):
    monkeypatch.chdir(tmp_path)
    options = make_options(images, 'SRModel')
    options['logger'].update(save_checkpoint_freq=1, keep_last=2, keep_best='psnr')
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 0
    state = torch.load('experiments/run/training_states/7.state', weights_only=True)
    assert state['best_metric_results']['val']['psnr'] == {'better': 'higher', 'val': 30.0, 'iter': 3}
    kept = {int(p.stem) for p in Path('experiments/run/training_states').iterdir()}
    assert kept == {3, 6, 7}
    assert {p.name for p in Path('experiments/run/models').iterdir()} == {f'net_g_{i}.pth' for i in (*kept, 'latest')}


@pytest.mark.parametrize(('hook', 'call'), [('rename', 2), *(('unlink', call) for call in (7, 8, 9))])
def test_a_kill_while_the_last_old_checkpoint_is_removed_leaves_nothing_for_good(images, tmp_path, hook, call):
    """Two networks; nothing is left to train afterwards."""
    options = make_options(images, 'ESRGANModel')
    options['train']['total_iter'] = 3
    options['logger'].update(save_checkpoint_freq=1, keep_last=1)
    options['datasets'].pop('val')
    options.pop('val')
    path = write_options(tmp_path / 'o.yml', options)
    assert forked(run_until_killed, tmp_path, path, f'pathlib.Path.{hook}', call) == -signal.SIGKILL
    models = tmp_path / 'experiments/run/models'
    assert (models / 'net_g_2.pth').exists() == ((hook, call) != ('unlink', 9))
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert [file.name for file in (tmp_path / 'experiments/run/training_states').iterdir()] == ['3.state']
    assert {file.name for file in models.iterdir()} == {f'net_{n}_{i}.pth' for n in 'gd' for i in (3, 'latest')}


@pytest.mark.parametrize('call', [3, 4])
def test_a_kill_while_a_checkpoint_is_written_leaves_nothing_for_good(images, tmp_path, call):
    """Where the run that goes on writes none at this iteration."""
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))
    assert forked(run_until_killed, tmp_path, path, 'os.replace', call) == -signal.SIGKILL
    models = tmp_path / 'experiments/run/models'
    assert (models / 'net_g_4.pth').exists() == (call == 4)
    rarely = ('--force_yml', 'logger:save_checkpoint_freq=100')
    assert forked(run, tmp_path, path, '--auto_resume', *rarely) == 0
    assert {file.name for file in (tmp_path / 'experiments/run/training_states').iterdir()} == {'2.state', '7.state'}
    assert {file.name for file in models.iterdir()} == {f'net_g_{i}.pth' for i in (2, 7, 'latest')}


def test_networks_that_a_user_kept_without_their_states_stay(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = make_options(images, 'SRModel')
    options['train']['total_iter'] = 4
    path = write_options(tmp_path / 'o.yml', options)
    assert main(['train', '-opt', str(path)]) == 0
    Path('experiments/run/training_states/2.state').unlink()
    assert (
        main(['train', '-opt', str(path), '--auto_resume', '--force_yml', 'logger:keep_last=1', 'train:total_iter=6'])
        == 0
    )
    assert {int(p.stem) for p in Path('experiments/run/training_states').iterdir()} == {6}
    assert {p.name for p in Path('experiments/run/models').iterdir()} == {f'net_g_{i}.pth' for i in (2, 6, 'latest')}


def test_keep_best_saves_when_a_validation_is_the_best(images, tmp_path, monkeypatch, falling_scores):
    monkeypatch.chdir(tmp_path)
    options = make_options(images, 'SRModel')
    options['logger'].update(save_checkpoint_freq=100, keep_last=1, keep_best='psnr')
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 0
    assert {int(p.stem) for p in Path('experiments/run/training_states').iterdir()} == {3, 7}


# ---- what may change -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('assignment', 'key'),
    [
        ('network_g:num_feat=6', r'network_g\.num_feat \(was 4, is 6\)'),
        ('train:pixel_opt:type=MSELoss', r"train\.pixel_opt\.type \(was 'L1Loss', is 'MSELoss'\)"),
        ('train:optim_g:lr=1', r'train\.optim_g\.lr'),
        ('datasets:train:gt_size=24', r'datasets\.train\.gt_size'),
        ('datasets:train:batch_size_per_gpu=1', r'datasets\.train\.batch_size_per_gpu'),
        ('manual_seed=8', 'manual_seed'),
    ],
)
def test_another_network_loss_data_or_batch_cannot_go_on(finished, capsys, assignment, key):
    import re

    assert main(['train', '-opt', 'o.yml', '--auto_resume', '--force_yml', assignment]) == 2
    assert re.search(f'trained with other options: {key}', capsys.readouterr().err)


def test_frequencies_workers_and_length_may_change(finished):
    arguments = ['train:total_iter=9', 'val:val_freq=2', 'logger:print_freq=2', 'datasets:train:num_worker_per_gpu=2']
    assert main(['train', '-opt', 'o.yml', '--auto_resume', '--force_yml', *arguments]) == 0
    assert events(finished)[-2:] == [('validation', 8), ('validation', 9)]


def test_a_metric_and_a_set_may_be_added(finished, images):
    options = make_options(images, 'SRModel')
    options['train']['total_iter'] = 9
    options['val']['metrics']['ssim'] = {'type': 'calculate_ssim', 'crop_border': 2}
    options['datasets']['val_2'] = {**options['datasets']['val'], 'name': 'again'}
    before = torch.load('experiments/run/training_states/7.state', weights_only=True)['best_metric_results']['val']
    assert main(['train', '-opt', str(write_options(finished / 'more.yml', options)), '--auto_resume']) == 0
    best = torch.load('experiments/run/training_states/9.state', weights_only=True)['best_metric_results']
    assert best['val']['ssim']['iter'] == 9 and best['again'].keys() == {'psnr', 'ssim'}
    assert best['val']['psnr'] == before['psnr'] or best['val']['psnr']['iter'] == 9


def test_without_a_seed_the_first_one_is_gone_on_with(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = make_options(images, 'SRModel')
    del options['manual_seed']
    path = str(write_options(tmp_path / 'o.yml', options))
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=5']) == 0
    first = torch.load('experiments/run/training_states/5.state', weights_only=True)['options']['manual_seed']
    assert main(['train', '-opt', path, '--auto_resume']) == 0
    state = torch.load('experiments/run/training_states/7.state', weights_only=True)
    assert state['options']['manual_seed'] == first
    assert yaml.safe_load(Path('experiments/run/o.yml').read_text())['manual_seed'] == first
    whole = tmp_path / 'whole'
    whole.mkdir()
    assert forked(run, whole, path, '--force_yml', f'manual_seed={first}') == 0
    ended, expected = final_state(tmp_path), final_state(whole)
    assert ended['net_g_7.pth'] == expected['net_g_7.pth']


@pytest.mark.parametrize('change', ['gone', 'renamed', 'moved'])
def test_other_training_images_cannot_go_on(images, tmp_path, monkeypatch, capsys, change):
    monkeypatch.chdir(tmp_path)
    for part in ('hr', 'lr'):
        shutil.copytree(images / part, tmp_path / 'data' / part)
    options = make_options(images, 'SRModel')
    options['datasets']['train'].update(dataroot_gt='data/hr', dataroot_lq='data/lr')
    path = str(write_options(tmp_path / 'o.yml', options))
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=3']) == 0
    for part in ('hr', 'lr'):
        image = tmp_path / 'data' / part / 'coffee.png'
        image.unlink() if change == 'gone' else image.rename(image.with_stem('tea')) if change == 'renamed' else None
    arguments = []
    if change == 'moved':
        (tmp_path / 'data').rename('elsewhere')
        arguments = ['datasets:train:dataroot_gt=elsewhere/hr', 'datasets:train:dataroot_lq=elsewhere/lr']
    status = main(['train', '-opt', path, '--auto_resume', '--force_yml', 'train:total_iter=4', *arguments])
    expected = {'gone': 'with 5 samples, and there are 4', 'renamed': 'with images of other names', 'moved': ''}
    assert status == (0 if change == 'moved' else 2) and expected[change] in capsys.readouterr().err


def test_the_same_images_in_another_order_are_a_warning():
    class Images(list):
        paths = property(list)

    first = fingerprint(Images(['/a/x.png', '/a/y.PNG', '/a/z.jpeg']))
    assert fingerprint(Images(['b/x', 'b/y', 'b/z'])) == first  # as the keys of an LMDB
    other = fingerprint(Images(['/a/y.png', '/a/x.png', '/a/z.png']))
    assert 'listed in another order' in check_same_data(first, other)
    assert check_same_data(first, first) == check_same_data(None, other) == check_same_data({'length': 3}, other) == ''


@pytest.mark.parametrize('kind', ['stock', 'folder', 'raw', 'raw without checksums'])
def test_other_pixels_under_the_same_names_are_refused(images, tmp_path, monkeypatch, capsys, kind):
    """Two images swapped: sizes of files tell it in a folder, checksums in a raw store."""
    monkeypatch.chdir(tmp_path)
    raw = kind.startswith('raw')

    def make_sets(*files) -> None:
        for part in ('hr', 'lr'):
            shutil.rmtree(tmp_path / part, ignore_errors=True)
            shutil.rmtree(tmp_path / f'{part}.lmdb', ignore_errors=True)
            shutil.copytree(images / part, tmp_path / part)
            for file, source in zip(('coffee', 'rocket'), files, strict=True):
                shutil.copy(images / part / f'{source}.png', tmp_path / part / f'{file}.png')
            if raw:
                make_store(tmp_path / part, tmp_path / f'{part}.lmdb', num_workers=0)
            if kind == 'raw without checksums':
                index = json.loads((tmp_path / f'{part}.lmdb/meta.json').read_text())
                del index['crc32']
                (tmp_path / f'{part}.lmdb/meta.json').write_text(json.dumps(index))

    make_sets('coffee', 'rocket')
    options = make_options(images, 'SRModel')
    ending = '.lmdb' if raw else ''
    options['datasets']['train'].update(dataroot_gt=f'hr{ending}', dataroot_lq=f'lr{ending}')
    if kind != 'stock':
        options['datasets']['train']['type'] = 'PairedStoreDataset'
        options['datasets']['train'].pop('io_backend', None)
    path = str(write_options(tmp_path / 'o.yml', options))
    assert main(['train', '-opt', path, '--force_yml', 'train:total_iter=3']) == 0
    arguments = ['train', '-opt', path, '--auto_resume', '--force_yml']
    make_sets('coffee', 'rocket')  # made again, and equal
    assert main([*arguments, 'train:total_iter=4']) == 0
    make_sets('rocket', 'coffee')
    status = main([*arguments, 'train:total_iter=5'])
    if kind == 'raw without checksums':
        assert status == 0
    else:
        found = 'checksums' if raw else 'sizes of files'
        assert status == 2
        assert f'with other pixels under the same names (lq: {found}, gt: {found})' in capsys.readouterr().err.replace(
            f'(gt: {found}, lq: {found})', f'(lq: {found}, gt: {found})'
        )


def test_images_may_move_from_a_folder_into_a_store(images, tmp_path):
    def fingerprint_of(root: str, ending: str) -> dict:
        roots = {f'dataroot_{key}': str(Path(root, f'{part}{ending}')) for key, part in (('gt', 'hr'), ('lq', 'lr'))}
        return fingerprint(PairedStoreDataset({'name': 'n', 'phase': 'train', 'scale': 2, 'gt_size': 16, **roots}))

    for part in ('hr', 'lr'):
        make_store(images / part, tmp_path / f'{part}.lmdb', num_workers=0)
    folder, store = fingerprint_of(images, ''), fingerprint_of(tmp_path, '.lmdb')
    assert folder['pixels'].keys() == {'gt bytes', 'lq bytes'} and store['pixels'].keys() == {'gt crc32', 'lq crc32'}
    assert check_same_data(folder, store) == check_same_data(store, folder) == ''
    del folder['pixels']  # as checkpoints of earlier versions
    assert check_same_data(folder, store) == ''


def test_a_run_begins_with_a_look_at_pixels(images, tmp_path, monkeypatch, capsys):
    """Sixteen images of each store, hence all of these."""
    monkeypatch.chdir(tmp_path)
    for part in ('hr', 'lr'):
        make_store(images / part, tmp_path / f'{part}.lmdb', num_workers=0)
    image = open_store(tmp_path / 'lr.lmdb').read('rocket').tobytes()
    content = bytearray((tmp_path / 'lr.lmdb/data.mdb').read_bytes())
    content[content.index(image) + 50] ^= 255
    (tmp_path / 'lr.lmdb/data.mdb').write_bytes(content)
    options = make_options(images, 'SRModel')
    options['datasets']['train'].update(type='PairedStoreDataset', dataroot_gt='hr.lmdb', dataroot_lq='lr.lmdb')
    options['datasets']['train'].pop('io_backend', None)
    path = str(write_options(tmp_path / 'o.yml', options))
    for command in ('check', 'train'):
        assert main([command, '-opt', path]) == 2
        message = capsys.readouterr().err
        assert 'datasets.train.dataroot_lq' in message and 'image "rocket": its pixels are not those' in message
    assert not (tmp_path / 'experiments').exists()


def test_another_world_size_goes_on_with_a_warning(finished):
    path = str(finished / 'o.yml')
    on_ranks(2, train_rank, path, '--auto_resume', '--force_yml', 'train:total_iter=9')
    assert 'saved by 1 ranks and goes on with 2' in log_text(finished / 'experiments/run')
    state = torch.load('experiments/run/training_states/9.state', weights_only=True)
    # epochs of 10 samples; 4 of the second are done, then there is one iteration of 4 in it, and one in the third
    assert state['position'] == (2, 4)


def _rank_noting_its_guard(path: str, *arguments: str) -> None:
    from basicsr_ext.models.guard import Guard

    original = Guard.load_extra_state

    def noted(self, state):
        original(self, state)
        Path(f'guard_{os.environ["RANK"]}.json').write_text(json.dumps(self.extra_state()))

    Guard.load_extra_state = noted
    train_rank(path, *arguments)


def test_what_all_ranks_share_goes_on_with_another_number_of_ranks(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(write_options(tmp_path / 'o.yml', make_options(images, 'ECOModel')))
    assert forked(run, tmp_path, path) == 0
    saved = torch.load('experiments/run/training_states/7.state', weights_only=True)['ranks'][0]['extra_state']['guard']
    assert saved['last_accepted']['g'] > 0
    on_ranks(2, _rank_noting_its_guard, path, '--auto_resume', '--force_yml', 'train:total_iter=8')
    assert [json.loads(Path(f'guard_{rank}.json').read_text()) for rank in (0, 1)] == [saved] * 2


def test_a_model_says_what_any_rank_may_go_on_from():
    class Model:
        loaded = None

        def shared_state(self, state):
            return {key: value for key, value in state.items() if key != 'own'}

        def load_extra_state(self, state):
            self.loaded = state

    model, state = Model(), {'extra_state': {'own': 1, 'common': 2}, 'generators': None}
    checkpoints.restore_shared_state(model, state)  # leaves the generators alone
    assert model.loaded == {'common': 2}


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(images, uninterrupted, tmp_path, number, capfd):
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))

    def signalled() -> int:
        at_call('torch.optim.Adam.step', 3, lambda: os.kill(os.getpid(), number))
        return run(tmp_path, path)

    assert forked(signalled) == 128 + number
    assert 'stopped and saved after iteration 3; go on with --auto_resume' in capfd.readouterr().err
    assert (tmp_path / 'experiments/run/training_states/3.state').is_file()
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('SRModel')


# ---- pieces ----------------------------------------------------------------------------------------------------------


def test_stock_datasets_get_numbers_of_their_own_and_leave_the_generators_alone():
    from basicsr_ext.data.sample_id import SampleId
    from basicsr_ext.trainer.randomness import KeyedDataset, generator_states, restore_generator_states

    class Drawing(torch.utils.data.Dataset):
        opt = {'name': 'x'}

        def __len__(self):
            return 3

        def __getitem__(self, index):
            return index, random.random(), np.random.rand(), torch.rand(1).item()

    dataset = KeyedDataset(Drawing())
    before = plain(generator_states())
    first = dataset[SampleId(2, epoch=1, position=5, iteration=1, seed=9)]
    assert plain(generator_states()) == before
    assert dataset[SampleId(2, 1, 5, 1, 9)] == first and first[0] == 2
    others = [dataset[SampleId(2, *key)] for key in ((1, 6, 1, 9), (2, 5, 1, 9), (1, 5, 1, 8))]
    assert len({first, *others}) == 4
    assert dataset.opt == {'name': 'x'} and len(dataset) == 3
    states = generator_states()
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    restore_generator_states(states)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


def test_out_of_memory_names_what_to_lower(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def explode(*_):
        raise torch.cuda.OutOfMemoryError('CUDA out of memory')

    monkeypatch.setattr('basicsr.losses.basic_loss.L1Loss.forward', explode)
    options = sr_options(images, model_type='TrainingModel')
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 2
    error = capsys.readouterr().err
    assert (
        'Out of memory with datasets.train.batch_size_per_gpu: 2, datasets.train.gt_size: 16, train.accumulate: 1, '
        'train.precision: fp32. Lower the batch' in error
    )


def test_out_of_memory_names_only_what_the_model_has(images):
    options = {**sr_options(images), 'is_train': True}
    found = out_of_memory.message(options)
    assert 'train.accumulate: 1' not in found and 'model_type: TrainingModel, which has train.accumulate' in found
    found = out_of_memory.message({**real_esrgan_options(images), 'is_train': True, 'gt_size': 32})
    assert ', gt_size: 32' in found and 'accumulate' not in found
    found = out_of_memory.message({**options, 'is_train': False, 'val': {'tile': 64}})
    assert found == 'Out of memory with val.tile: 64. Lower val.tile.'


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (MemoryError(), True),
        (torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate'), True),
        (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`'), True),
        (RuntimeError('cuDNN error: CUDNN_STATUS_ALLOC_FAILED'), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError('shape mismatch'), False),
    ],
)
def test_how_memory_runs_out(error, expected):
    assert out_of_memory.is_out_of_memory(error) is expected
