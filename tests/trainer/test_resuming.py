"""A run that is stopped anywhere and resumed ends to the bit as one that was not stopped."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from run_helpers import (
    eco_options,
    gan_options,
    log_text,
    on_ranks,
    sr_options,
    write_centroids,
    write_options,
    write_pairs,
)

from basicsr_ext.cli import main
from basicsr_ext.trainer import checkpoints
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """Tiny images and centroids, read only."""
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos)
    write_centroids(root)
    return root


def make_options(images: Path, model: str) -> dict:
    """A run of 7 iterations in epochs of 5, validated and saved every 3 and 2, with EMA and a guard."""
    if model == 'ECOModel':
        options = eco_options(images, noise_sigma=0.01)
        options['train'].update(guard={}, grad_clip={'value': 0.1})
    elif model == 'SRModel':
        options = sr_options(images)
    else:
        options = gan_options(images, model)
    options['train'].update(total_iter=7, ema_decay=0.9)
    options['train']['scheduler'] = {'type': 'MultiStepLR', 'milestones': [2, 5], 'gamma': 0.5}
    options['val']['val_freq'] = 3
    options['datasets']['train']['dataset_enlarge_ratio'] = 2
    options['logger'].update(print_freq=1, save_checkpoint_freq=2)
    return options


def plain(value):
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def final_state(root: Path, iteration: int = 7) -> dict:
    """Everything that must be equal: networks, state, metrics without wall-clock fields."""
    experiment = root / 'experiments/run'
    result = {}
    for path in sorted((experiment / 'models').glob(f'*_{iteration}.pth')):
        result[path.name] = plain(torch.load(path, weights_only=True))
    state = torch.load(experiment / f'training_states/{iteration}.state', weights_only=True)
    for key in ('networks', 'options', 'metrics_offset'):
        state.pop(key)
    result['state'] = plain(state)
    result['metrics'] = [
        {k: v for k, v in line.items() if k != 'wall'} for line in read_metrics(experiment / 'metrics.jsonl')
    ]
    return result


def run(root: Path, path: Path, *arguments: str) -> int:
    os.chdir(root)
    return main(['train', '-opt', str(path), *arguments])


def forked(function, *arguments) -> int:
    """Runs in a forked child of this warm process; returns its exit status (negative: the signal)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            status = function(*arguments)
        finally:
            sys.stdout.flush()
            os._exit(status if isinstance(status, int) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


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

HOOKS = (
    'torch.save',
    'os.replace',
    'os.fsync',
    'basicsr_ext.trainer.checkpoints.sha256',
    'basicsr_ext.trainer.keeper.Keeper.end_iteration',
    'basicsr_ext.trainer.feeding.Feeder.next',
    'basicsr.models.sr_model.SRModel.nondist_validation',
    'torch.optim.Adam.step',
)


def run_until_killed(root: Path, path: Path, hook: str, call: int) -> int:
    """Trains, and dies by kill -9 at a call of a function."""
    module, _, name = hook.rpartition('.')
    try:
        owner = __import__(module, fromlist=['_'])
    except ImportError:
        module, _, cls = module.rpartition('.')
        owner = getattr(__import__(module, fromlist=['_']), cls)
    original, calls = getattr(owner, name), [0]

    def counted(*arguments, **keywords):
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    setattr(owner, name, counted)
    return run(root, path, '--auto_resume')


def kill_plan() -> list[tuple[str, int, str, int]]:
    """20 kills: model, workers, hook, call; each hook at least twice, half of them inside saving."""
    draw = random.Random(2026)
    models = ['SRModel', 'ESRGANModel', 'ECOModel']
    plan = []
    for number in range(20):
        hook = HOOKS[number % len(HOOKS)]
        most = 3 if 'validation' in hook or 'sha256' in hook else 7
        plan.append((models[number % 3], 2 if number % 5 == 0 else 0, hook, draw.randint(1, most)))
    return plan


@pytest.mark.parametrize(('model', 'workers', 'hook', 'call'), kill_plan())
def test_a_killed_run_ends_as_one_that_was_not(images, uninterrupted, tmp_path, model, workers, hook, call):
    options = make_options(images, model)
    options['datasets']['train']['num_worker_per_gpu'] = workers
    path = write_options(tmp_path / 'o.yml', options)
    assert forked(run_until_killed, tmp_path, path, hook, call) == -signal.SIGKILL
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted(model)
    assert not list((tmp_path / 'experiments/run').rglob('*.partial'))


def _rank_until_killed(path: str, victim: int) -> None:
    torch.set_num_threads(1)
    if int(os.environ['RANK']) == victim:
        original, calls = torch.optim.Adam.step, [0]

        def step(self, *arguments):
            calls[0] += 1
            if calls[0] == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(self, *arguments)

        torch.optim.Adam.step = step
    main(['train', '-opt', path, '--launcher', 'pytorch', '--auto_resume'])


def _rank(path: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', *arguments]) == 0


def test_two_ranks_resume_to_the_bit(images, tmp_path, monkeypatch):
    options = make_options(images, 'ECOModel')
    options['datasets']['train'].update(batch_size_per_gpu=1, num_worker_per_gpu=1)
    states = []
    for name, killed in (('whole', False), ('killed', True)):
        root = tmp_path / name
        root.mkdir()
        monkeypatch.chdir(root)
        path = str(write_options(root / 'o.yml', options))
        if killed:
            with pytest.raises(AssertionError, match='ranks ended with'):
                on_ranks(2, _rank_until_killed, path, 1)
        on_ranks(2, _rank, path, '--auto_resume')
        states.append(final_state(root))
        assert len(states[-1]['state']['ranks']) == 2
    assert states[0] == states[1]


def test_a_fresh_process_killed_and_resumed(images, uninterrupted, tmp_path):
    """kill -9 of a process of its own, wherever it happens to be once a checkpoint is there."""
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))
    environment = {**os.environ, 'PYTHONPATH': str(Path(basicsr_ext.__file__).parents[1]), 'OMP_NUM_THREADS': '1'}
    command = [sys.executable, '-m', 'basicsr_ext', 'train', '-opt', str(path)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    states = tmp_path / 'experiments/run/training_states'
    while process.poll() is None and not list(states.glob('*.state')):
        pass
    process.kill()
    process.wait()
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
    (finished / 'experiments/run/models/net_g_99.pth').write_bytes(b'x')
    assert main(['train', '-opt', 'o.yml', '--auto_resume']) == 0


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


def test_keep_last_and_keep_best(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = make_options(images, 'SRModel')
    options['logger'].update(save_checkpoint_freq=1, keep_last=2, keep_best='psnr')
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 0
    state = torch.load('experiments/run/training_states/7.state', weights_only=True)
    best = state['best_metric_results']['val']['psnr']['iter']
    kept = {int(p.stem) for p in Path('experiments/run/training_states').iterdir()}
    assert kept == {6, 7, best}
    assert {p.name for p in Path('experiments/run/models').iterdir()} == {f'net_g_{i}.pth' for i in (*kept, 'latest')}


def test_keep_best_saves_when_a_validation_is_the_best(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = make_options(images, 'SRModel')
    options['logger'].update(save_checkpoint_freq=100, keep_last=1, keep_best='psnr')
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 0
    state = torch.load('experiments/run/training_states/7.state', weights_only=True)
    best = state['best_metric_results']['val']['psnr']['iter']
    assert {int(p.stem) for p in Path('experiments/run/training_states').iterdir()} == {7, best}


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


def test_another_world_size_goes_on_with_a_warning(finished):
    path = str(finished / 'o.yml')
    on_ranks(2, _rank, path, '--auto_resume', '--force_yml', 'train:total_iter=9')
    assert 'saved by 1 ranks and goes on with 2' in log_text(finished / 'experiments/run')
    state = torch.load('experiments/run/training_states/9.state', weights_only=True)
    assert state['position'] == (2, 4) or state['position'][0] >= 1  # 14 samples, then two iterations of 4


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_iteration_saves_and_says_how_to_go_on(images, uninterrupted, tmp_path, number, capfd):
    path = write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))

    def signalled() -> int:
        original, calls = torch.optim.Adam.step, [0]

        def step(self, *arguments):
            calls[0] += 1
            if calls[0] == 3:
                os.kill(os.getpid(), number)
            return original(self, *arguments)

        torch.optim.Adam.step = step
        return run(tmp_path, path)

    assert forked(signalled) == 128 + number
    assert 'stopped and saved after iteration 3; go on with --auto_resume' in capfd.readouterr().err
    assert (tmp_path / 'experiments/run/training_states/3.state').is_file()
    assert forked(run, tmp_path, path, '--auto_resume') == 0
    assert final_state(tmp_path) == uninterrupted('SRModel')


def _rank_signalled(path: str) -> None:
    torch.set_num_threads(1)
    if os.environ['RANK'] == '1':
        original, calls = torch.optim.Adam.step, [0]

        def step(self, *arguments):
            calls[0] += 1
            if calls[0] == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, *arguments)

        torch.optim.Adam.step = step
    assert main(['train', '-opt', path, '--launcher', 'pytorch']) == 128 + signal.SIGTERM


def test_ranks_stop_together_when_one_is_asked(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    on_ranks(2, _rank_signalled, str(write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))))
    saved = [int(p.stem) for p in Path('experiments/run/training_states').iterdir()]
    assert max(saved) in (2, 3)


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

    monkeypatch.setattr('torch.nn.L1Loss.forward', explode)
    monkeypatch.setattr('basicsr.losses.basic_loss.L1Loss.forward', explode)
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', sr_options(images)))]) == 2
    error = capsys.readouterr().err
    assert (
        'Out of memory with datasets.train.batch_size_per_gpu: 2, datasets.train.gt_size: 16, train.accumulate: 1'
        in error
    )
