"""Processes that share a step's images."""

from __future__ import annotations

import json
import multiprocessing.queues
import subprocess
import sys
from functools import partial
from operator import add

import cv2
import numpy as np
import pytest

from basicsr_ext.cli.main import main
from basicsr_ext.prepare.jobs import run_jobs
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.prepare.subimages import make_subimages
from basicsr_ext.storage import open_store

COUNTS = (6, 60)


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """A small and a large folder of tiny images, which are flat but for their noise; and the same as stores."""
    root = tmp_path_factory.mktemp('sets')
    random = np.random.default_rng(0)
    for count in COUNTS:
        (root / str(count)).mkdir()
        for number in range(count):
            image = random.integers(100, 110, (24, 24, 3), dtype=np.uint8)
            cv2.imwrite(str(root / f'{count}/{number:04d}.png'), image)
        make_store(root / str(count), root / f'{count}.lmdb', num_workers=1)
    return root


@pytest.fixture
def sent(monkeypatch):
    """Sizes of all that this process sends to its workers."""
    sizes = []

    class Counting(multiprocessing.queues._ForkingPickler):
        @classmethod
        def dumps(cls, *arguments, **options):
            content = super().dumps(*arguments, **options)
            sizes.append(len(content))
            return content

    monkeypatch.setattr(multiprocessing.queues, '_ForkingPickler', Counting)
    return sizes


def steps(source, out, network_option, weights) -> dict[str, list[str]]:
    one = ['-i', str(source), '-o', f'{out}/one.lmdb']
    folder = ['-i', str(source), '-o', f'{out}/folder']
    two = [*one, '--output_lq', f'{out}/two.lmdb']
    teacher = ['--network', json.dumps(network_option), '--scale', '2', '--weights', str(weights), '--device', 'cpu']
    return {
        'lr': ['lr', *one, '-s', '2'],
        'lmdb': ['lmdb', *one, '--layout', 'basicsr'],
        'subimages': ['subimages', *folder, '--size', '12', '--step', '12'],
        'luma': ['luma', *two, '-s', '2', '--patch_size', '10'],
        'noise': ['noise', *one, '--size', '16', '--least', '0.01', '--most', '200', '--flatness', '10'],
        'centroids': ['centroids', *two, *teacher],
        'check': ['check', '--gt', str(source)],
    }


@pytest.mark.parametrize('kind', ['', '.lmdb'])
@pytest.mark.parametrize('step', ['lr', 'lmdb', 'subimages', 'luma', 'noise', 'centroids', 'check'])
def test_what_a_job_costs_does_not_grow_with_the_set(folders, tmp_path, sent, step, kind, network_option, weights):
    if step == 'centroids' and kind:
        pytest.skip('images of a raw store are not looked at in processes')
    largest = []
    for count in COUNTS:
        out = tmp_path / str(count)
        out.mkdir()
        sent.clear()
        arguments = steps(folders / f'{count}{kind}', out, network_option, weights)[step]
        assert main(['prepare', *arguments, '--num_workers', '2']) == 0
        assert len(sent) >= count  # every job, and the workers' ends
        largest.append(max(sent))
    assert largest[1] <= largest[0] + 8  # the integers of a job may take some more bytes


def test_spawned_processes_make_the_same(folders, tmp_path, monkeypatch):
    make_subimages(folders / '6.lmdb', tmp_path / 'forked', size=12, step=12, num_workers=2)
    monkeypatch.setattr(multiprocessing, 'get_all_start_methods', lambda: ['spawn'])
    make_subimages(folders / '6.lmdb', tmp_path / 'spawned', size=12, step=12, num_workers=2)
    forked, spawned = open_store(tmp_path / 'forked'), open_store(tmp_path / 'spawned')
    assert forked.keys() == spawned.keys() and len(forked) == 24
    for key in forked.keys():
        assert forked.file(key).read_bytes() == spawned.file(key).read_bytes()


def test_functions_follow_one_another_in_one_process():
    for term in (1, 10):
        assert sorted(run_jobs(partial(add, term), [1, 2, 3], num_workers=2, description='sums')) == [
            term + 1, term + 2, term + 3,
        ]  # fmt: skip


OPENCV_BEFORE_FORKS = """
import cv2, numpy as np
from basicsr_ext.prepare.jobs import run_jobs
cv2.setNumThreads(2)
for _ in range(20):
    cv2.cvtColor(np.zeros((1400, 2000, 3), np.uint8), cv2.COLOR_BGR2RGB)  # starts threads
    assert sorted(run_jobs(abs, [1, 2], num_workers=2, description='numbers')) == [1, 2]
assert cv2.getNumThreads() == 2
"""


def test_processes_start_after_opencv_has_used_its_threads():
    subprocess.run([sys.executable, '-c', OPENCV_BEFORE_FORKS], check=True, timeout=100, capture_output=True)
