"""What a loader's worker may be handed, and what it passes over; which block of options a dataset names."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from basicsr.data import build_dataset
from run_helpers import sr_options, write_pairs
from torch.utils.data import DataLoader
from waiting import LIMIT, read_soon, status_of_child

from basicsr_ext.data.sample_id import SampleId
from basicsr_ext.options.complete import complete_options
from basicsr_ext.processes import start_worker, worker_context
from basicsr_ext.trainer.prefetching import Prefetcher
from basicsr_ext.trainer.randomness import KeyedDataset

SAMPLE = SampleId(index=1, epoch=0, position=3, iteration=1, seed=9)


def test_a_spawned_worker_unpickles_a_stock_dataset(tmp_path, photos):
    """As on macOS: the worker is a fresh process, in which nobody has made BasicSR importable."""
    write_pairs(tmp_path, photos)
    block = sr_options(tmp_path)['datasets']['train'] | {'phase': 'train', 'scale': 2}
    dataset = KeyedDataset(build_dataset(block))
    pickled = pickle.dumps((start_worker, dataset))
    code = (
        'import pickle, sys\n'
        'start_worker, dataset = pickle.loads(sys.stdin.buffer.read())\n'
        'start_worker(0)\n'
        'from basicsr_ext.data.sample_id import SampleId\n'
        f'sample = dataset[SampleId{tuple(SAMPLE)!r}]\n'
        'print(sample["lq_path"], sample["lq"].double().sum().item())'
    )
    environment = {**os.environ, 'PYTHONPATH': str(Path(basicsr_ext.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, '-c', code], input=pickled, capture_output=True, env=environment, timeout=120
    )
    assert result.returncode == 0, result.stderr.decode()[-2000:]
    expected = dataset[SAMPLE]
    found = result.stdout.decode().splitlines()[-1].rsplit(' ', 1)
    assert found == [expected['lq_path'], repr(expected['lq'].double().sum().item())]


def _answer(connection) -> None:
    """A worker that answers until it is ended."""
    start_worker()
    while True:
        connection.send(connection.recv())


forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork on this system')


@forks
def test_a_worker_passes_over_signals_and_ends_when_its_rank_wants_it_to():
    context = worker_context('fork')
    ours, theirs = context.Pipe()
    worker = context.Process(target=_answer, args=(theirs,))
    worker.start()
    for name in ('INT', 'TERM'):  # also before it has come to ignore them
        assert subprocess.run(['sh', '-c', f'kill -{name} {worker.pid}'], timeout=LIMIT).returncode == 0
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(worker.pid, number)
    ours.send('here')
    assert ours.poll(LIMIT)
    assert ours.recv() == 'here'
    worker.terminate()
    worker.join(LIMIT)
    assert worker.exitcode == -signal.SIGKILL


# In a small process, of which a fork is cheap. A second process sends each worker a SIGTERM at about the time at which the
# rank ends it: where that was by SIGTERM too, the two were one.
_BOTH_A_THOUSAND_TIMES = """
import os, signal, sys, time
from multiprocessing import active_children
from basicsr_ext.processes import start_worker, worker_context

assert 'torch' not in sys.modules

def work(started):
    start_worker()
    os.write(started, b'.')
    time.sleep(600)

numbers, to_sender = os.pipe()
if os.fork() == 0:
    os.close(to_sender)
    for line in os.fdopen(numbers):
        os.kill(int(line), signal.SIGTERM)
    os._exit(0)
context = worker_context('fork')
started, started_there = os.pipe()
for _ in range(1000):
    worker = context.Process(target=work, args=(started_there,), daemon=True)
    worker.start()
    os.read(started, 1)
    os.write(to_sender, b'%d\\n' % worker.pid)
    worker.terminate()
    worker.join(20)
    if worker.exitcode is None:
        sys.exit('a worker goes on')
"""


@forks
def test_a_worker_ends_whatever_else_is_sent():
    environment = {**os.environ, 'PYTHONPATH': str(Path(basicsr_ext.__file__).parents[1])}
    result = subprocess.run(
        [sys.executable, '-c', _BOTH_A_THOUSAND_TIMES], env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert result.returncode == 0, result.stderr


@forks
def test_a_rank_that_ends_waits_for_no_worker(monkeypatch):
    """As at the end of a program, where multiprocessing joins all that it has started."""
    monkeypatch.setattr('basicsr_ext.processes._PATIENCE', 0.1)
    worker = worker_context('fork').Process(target=time.sleep, args=(600,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL


def _hang(sample) -> None:
    time.sleep(600)


@forks
def test_a_batch_that_does_not_come_is_an_error(monkeypatch):
    monkeypatch.setattr('basicsr_ext.trainer.prefetching.BATCH_LIMIT', 60)
    loader = DataLoader(
        [1], num_workers=1, collate_fn=_hang, timeout=0.5, multiprocessing_context=worker_context('fork')
    )
    feeder = Prefetcher(loader, 0, 1, lambda iteration: None)
    feeder.reset()
    with pytest.raises(basicsr_ext.UserError, match=r'^datasets\.train: expected a batch within 1 minutes, found none'):
        feeder.next()
    feeder.close()


@pytest.mark.parametrize('name', ['val', 'val_2'])
def test_a_dataset_names_its_own_block(tmp_path, photos, name):
    write_pairs(tmp_path, photos)
    options = sr_options(tmp_path)
    block = options['datasets'].pop('val')
    block.pop('io_backend')
    options['datasets'][name] = {**block, 'type': 'PairedStoreDataset', 'dataroot_gt': str(tmp_path / 'nowhere')}
    completed = complete_options(options, tmp_path, is_train=True, debug=False)
    with pytest.raises(basicsr_ext.UserError, match=rf'^datasets\.{name}\.dataroot_gt: '):
        build_dataset(completed['datasets'][name])
    completed['datasets'][name]['dataroot_gt'] = str(tmp_path / 'hr')
    completed['datasets'][name]['gt_sise'] = 3
    with pytest.raises(basicsr_ext.UserError, match=rf'^datasets\.{name}\.gt_sise: unknown option'):
        build_dataset(completed['datasets'][name])


@forks
def test_a_worker_ends_when_its_rank_was_killed():
    reader, writer = os.pipe()
    rank = os.fork()
    if rank == 0:
        context = worker_context('fork')
        ours, theirs = context.Pipe()
        context.Process(target=_answer, args=(theirs,)).start()
        ours.send('here')
        ours.poll(LIMIT)
        os.write(writer, b'ready')  # the worker holds this pipe, too
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    assert read_soon(reader, 5) == b'ready'
    assert status_of_child(rank) == -signal.SIGKILL
    assert read_soon(reader, 1) == b''  # comes when the worker is gone
