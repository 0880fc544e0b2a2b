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

from basicsr_ext.data.sample_id import SampleId
from basicsr_ext.trainer.options import complete_options
from basicsr_ext.trainer.randomness import KeyedDataset
from basicsr_ext.trainer.workers import start_worker

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


def _forked_worker() -> tuple[int, int]:
    """A child that has started as a worker; its number, and the end of a pipe that closes with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        start_worker(0)
        os.write(writer, b'ready')
        while True:
            time.sleep(60)
    os.close(writer)
    assert os.read(reader, 5) == b'ready'
    return child, reader


@pytest.mark.skipif(not hasattr(signal, 'sigtimedwait'), reason='needs sigtimedwait')
def test_a_worker_passes_over_signals_that_are_not_of_its_rank():
    child, reader = _forked_worker()
    try:
        for name in ('INT', 'TERM'):  # of another process, and delivered when it is over
            assert subprocess.run(['sh', '-c', f'kill -{name} {child}']).returncode == 0
        os.kill(child, 0)
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        os.set_blocking(reader, True)
        os.kill(child, signal.SIGTERM)  # of its rank
        assert os.read(reader, 1) == b''
    finally:
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        os.close(reader)
    assert status == 0


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


@pytest.mark.skipif(not hasattr(signal, 'sigtimedwait'), reason='needs sigtimedwait')
def test_a_worker_ends_when_its_rank_was_killed():
    reader, writer = os.pipe()
    rank = os.fork()
    if rank == 0:
        _forked_worker()
        os.write(writer, b'ready')  # the worker holds this pipe, too
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(writer)
    assert os.read(reader, 5) == b'ready'
    os.waitpid(rank, 0)
    assert os.read(reader, 1) == b''  # waits until the worker is gone
