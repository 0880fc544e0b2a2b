"""Batches that a thread reads ahead: the same, in order, with errors in their turn, and no thread left behind."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import subprocess
import sys
import threading

import pytest
import torch
from run_helpers import eco_options, sr_options, write_centroids, write_options, write_pairs

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.trainer.prefetching import Prefetcher, read_ahead
from basicsr_ext.trainer.session import Run


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith('read_ahead')]


def test_batches_come_in_order_and_the_thread_ends():
    readers = set()

    def batches():
        for number in range(7):
            readers.add(threading.current_thread().name)
            yield number

    assert list(read_ahead(batches(), 3)) == list(range(7))
    assert len(readers) == 1 and threading.current_thread().name not in readers
    assert not threads()


def test_no_more_is_read_than_asked_for():
    taken = []
    reading = read_ahead((taken.append(number) or number for number in range(100)), 2)
    assert [next(reading), next(reading)] == [0, 1]
    reading.close()
    assert len(taken) <= 4
    assert not threads()


def test_an_error_comes_in_its_turn():
    def batches():
        yield 1
        raise UserError('image "a" is damaged')

    reading = read_ahead(batches(), 2)
    assert next(reading) == 1
    with pytest.raises(UserError, match=r'^image "a" is damaged$'):
        next(reading)
    assert not threads()


def test_a_thread_that_cannot_begin_says_why(monkeypatch):
    """As where the GPU of a rank is gone."""

    def fail(number):
        raise RuntimeError('no such GPU')

    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.cuda, 'current_device', lambda: 3)
    monkeypatch.setattr(torch.cuda, 'set_device', fail)
    with pytest.raises(RuntimeError, match='no such GPU'):
        next(read_ahead(iter(range(3)), 2))
    assert not threads()


def test_a_thread_that_hangs_is_an_error(monkeypatch):
    monkeypatch.setattr('basicsr_ext.trainer.prefetching.BATCH_LIMIT', 1)
    go_on = threading.Event()
    with pytest.raises(UserError, match=r'^datasets\.train: expected a batch within .* found none'):
        next(read_ahead((go_on.wait(60) for _ in range(2)), 1))
    go_on.set()
    for thread in threads():
        thread.join(60)
    assert not threads()


@pytest.mark.parametrize('ending', ['', 'raise SystemExit(3)'])
def test_a_program_may_end_without_closing_the_generator(ending):
    program = (
        'import torch\nfrom basicsr_ext.trainer.prefetching import read_ahead\n'
        'batches = (torch.rand(100, 100) @ torch.rand(100, 100) for _ in range(10**6))\n'
        f'kept = [read_ahead(batches, 2)]\nkept.append(kept)\nnext(kept[0])\n{ending}\n'
    )
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [sys.executable, '-c', program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == (3 if ending else 0), ended.stderr


def test_the_feeder_ends_its_thread_when_a_run_is_left():
    def stop(iteration):
        if iteration == 2:
            raise KeyboardInterrupt

    feeder = Prefetcher([{'lq': number} for number in range(9)], 0, 9, stop, ahead=2)
    feeder.reset()
    assert [feeder.next(), feeder.next()] == [{'lq': 0}, {'lq': 1}]
    assert threads()
    with pytest.raises(KeyboardInterrupt):
        feeder.next()
    feeder.close()
    assert not threads()


def test_the_feeder_ends_its_thread_with_the_run():
    feeder = Prefetcher([{'lq': number} for number in range(9)], 0, 3, lambda iteration: None, ahead=2)
    feeder.reset()
    assert [feeder.next() for _ in range(4)] == [{'lq': 0}, {'lq': 1}, {'lq': 2}, None]
    assert not threads()


@pytest.fixture
def root(tmp_path, photos, monkeypatch):
    """Tiny images in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def store_options(root, **changes):
    options = sr_options(root)
    options['datasets']['train'].pop('io_backend')
    options['datasets']['train'].update({'type': 'PairedStoreDataset', **changes})
    return options


def created(root, options):
    """A session that has built its training loader."""
    session = Run(options, is_train=True, root=root)
    opt, _ = session.parse_options(str(root))
    loader, _ = session._create_train_loader({**opt['datasets']['train'], 'phase': 'train', 'scale': 2})
    return session, loader


@pytest.mark.parametrize(
    ('changes', 'ahead'),
    [
        ({}, 2),
        ({'num_worker_per_gpu': None}, 2),
        ({'num_prefetch_queue': 4}, 5),
        ({'prefetch_mode': 'cpu'}, 2),
        ({'num_worker_per_gpu': 1}, 0),
        ({'type': 'PairedImageDataset', 'io_backend': {'type': 'disk'}}, 0),
    ],
)
def test_a_thread_reads_ahead_where_no_worker_does_and_the_dataset_allows_it(root, changes, ahead):
    session, loader = created(root, store_options(root, **changes))
    assert session.read_ahead == ahead
    assert loader.num_workers == (changes.get('num_worker_per_gpu', 0) or 0)


def networks(root, name):
    return torch.load(root / f'experiments/{name}/models/net_g_latest.pth', weights_only=True)['params']


def test_runs_with_and_without_workers_end_with_the_same_weights(root):
    write_centroids(root)
    options = eco_options(root)
    for name, workers in (('thread', 0), ('one', 1), ('two', 2)):
        options['datasets']['train']['num_worker_per_gpu'] = workers
        assert main(['train', '-opt', str(write_options(root / f'{name}.yml', {**options, 'name': name}))]) == 0
    for name in ('one', 'two'):
        assert all(torch.equal(value, networks(root, 'thread')[key]) for key, value in networks(root, name).items())
    assert not threads()


def test_a_damaged_image_ends_the_run_with_its_key(root, capsys):
    victim = root / 'hr' / 'coffee.png'
    victim.write_bytes(victim.read_bytes()[:200])  # the header stays
    options = store_options(root)
    options['train']['total_iter'] = 20
    options.pop('val')
    options['datasets'].pop('val')
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    error = capsys.readouterr().err.partition('basicsr train: error: ')[2]
    assert 'coffee' in error and 'Traceback' not in error
    assert not threads()


def test_an_error_of_the_model_ends_the_thread(root, monkeypatch):
    def explode(*_):
        raise ZeroDivisionError

    monkeypatch.setattr('basicsr.models.sr_model.SRModel.optimize_parameters', explode)
    with pytest.raises(ZeroDivisionError):
        main(['train', '-opt', str(write_options(root / 'o.yml', store_options(root)))])
    assert not threads()
