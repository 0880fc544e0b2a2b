"""Stores across threads, forks, spawned processes, and a DataLoader's workers."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading

import numpy as np
import pytest
from storage_samples import KINDS, random_image, write_raw
from storage_workers import StoreDataset, send_all
from waiting import LIMIT, join_all, status_of_child

from basicsr_ext.storage import RawLmdbStore
from basicsr_ext.storage.forking import ForkGate

IMAGES = {f'{number:02}': random_image((80, 30, 3), seed=number) for number in range(8)}
forks = pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork on this system')


def in_child(function):
    """Runs a function in a forked child; returns its exit status: 0 if it returned true."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = 0 if function() else 2
        finally:
            os._exit(status)
    return status_of_child(pid, seconds=30)


def reads_right(store):
    return all(np.array_equal(store.read(key), image) for key, image in IMAGES.items())


@forks
@pytest.mark.parametrize('used_before', [False, True])
@pytest.mark.parametrize('kind', KINDS)
def test_a_forked_child_reads(kind, used_before, make_store):
    store = make_store(kind, IMAGES)
    if used_before:
        store.read('00')
    assert in_child(lambda: reads_right(store)) == 0
    assert reads_right(store)


@forks
@pytest.mark.parametrize('kind', ['basicsr', 'raw'])
def test_a_forked_child_has_its_own_environment(kind, make_store):
    store = make_store(kind, IMAGES)
    inherited = store._reader._environment

    def check():
        return store._reader._environment is None and reads_right(store) and store._reader._environment is not inherited

    assert inherited is not None
    assert in_child(check) == 0
    assert store._reader._environment is inherited


@forks
def test_a_forked_child_looks_images_up_anew(make_store):
    """What the parent has looked up may lie in LMDB's map, which the child leaves."""
    store = make_store('raw', IMAGES)
    store.read('00')
    kept = store._reader.kept
    assert in_child(lambda: not store._reader.kept and reads_right(store)) == 0
    assert store._reader.kept is kept
    assert '00' in kept


@forks
def test_a_grandchild_reads(make_store):
    store = make_store('raw', IMAGES)
    assert in_child(lambda: reads_right(store) and in_child(lambda: reads_right(store)) == 0) == 0


@forks
@pytest.mark.parametrize('kind', ['basicsr', 'raw'])
def test_forks_while_other_threads_read(kind, make_store):
    """Without the gate, about every second child hangs in closing what it inherited."""
    store = make_store(kind, IMAGES)
    stop = threading.Event()
    wrong = []

    def keep_reading():
        while not stop.is_set():
            if not reads_right(store):
                wrong.append(True)

    threads = [threading.Thread(target=keep_reading) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        statuses = []
        while len(statuses) < 15 and not any(statuses):
            statuses.append(in_child(lambda: reads_right(store)))
    finally:
        stop.set()
        join_all(threads)
    assert statuses == [0] * 15
    assert not wrong


@pytest.mark.parametrize('kind', KINDS)
def test_threads_read_side_by_side(kind, make_store):
    store = make_store(kind, IMAGES)
    right = []
    threads = [threading.Thread(target=lambda: right.append(reads_right(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    join_all(threads)
    assert right == [True] * 8


@pytest.mark.parametrize(
    'method', [name for name in ('fork', 'spawn') if name in multiprocessing.get_all_start_methods()]
)
@pytest.mark.parametrize('kind', KINDS)
def test_processes_of_both_start_methods(kind, method, make_store):
    store = make_store(kind, IMAGES)
    store.read('00')
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=send_all, args=(store, theirs))
    process.start()
    theirs.close()
    assert ours.poll(LIMIT)
    found = ours.recv()
    process.join(LIMIT)
    assert process.exitcode == 0
    for image, expected in zip(found, IMAGES.values(), strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    'method', [name for name in ('fork', 'spawn') if name in multiprocessing.get_all_start_methods()]
)
def test_workers_of_a_data_loader(method, tmp_path):
    from torch.utils.data import DataLoader

    store = RawLmdbStore(write_raw(tmp_path / 'a.lmdb', IMAGES))
    loader = DataLoader(StoreDataset(store), batch_size=4, num_workers=2, multiprocessing_context=method)
    for _ in range(2 if method == 'fork' else 1):
        found = np.concatenate([batch.numpy() for batch in loader])
        np.testing.assert_array_equal(found, np.stack(list(IMAGES.values())))


def test_two_stores_of_one_file_share_the_environment(tmp_path):
    path = write_raw(tmp_path / 'a.lmdb', IMAGES)
    (tmp_path / 'link.lmdb').symlink_to(path)
    first, second = RawLmdbStore(path), RawLmdbStore(tmp_path / 'link.lmdb')
    assert pickle.loads(pickle.dumps(first))._reader is first._reader is second._reader
    assert reads_right(first)
    assert reads_right(second)


def test_a_file_is_closed_with_its_last_store(tmp_path):
    import lmdb

    path = write_raw(tmp_path / 'a.lmdb', IMAGES)
    first, second = RawLmdbStore(path), RawLmdbStore(path)
    del first
    assert reads_right(second)
    del second
    lmdb.open(str(path), readonly=True, lock=False).close()


def test_a_pickle_is_small_and_holds_no_pixels(tmp_path):
    store = RawLmdbStore(write_raw(tmp_path / 'a.lmdb', IMAGES))
    assert len(pickle.dumps(store)) < next(iter(IMAGES.values())).nbytes


@forks
def test_the_gate_makes_a_fork_wait():
    gate = ForkGate()
    inside, leave, forked = threading.Event(), threading.Event(), threading.Event()
    events = []

    def stay():
        with gate:
            inside.set()
            leave.wait(30)
            events.append('left')

    def fork():
        gate._shut()
        events.append('forked')
        gate._reopen()
        forked.set()

    threads = [threading.Thread(target=stay), threading.Thread(target=fork)]
    threads[0].start()
    assert inside.wait(30)
    threads[1].start()
    assert not forked.wait(0.05)
    leave.set()
    assert forked.wait(30)
    with gate:
        events.append('entered')
    join_all(threads)
    assert events == ['left', 'forked', 'entered']
