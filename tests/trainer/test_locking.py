"""One run at a time in an experiment's folder; nothing of a run survives those that started it."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from resume_runs import at_call
from run_helpers import forked, on_ranks, sr_options, write_options, write_pairs, write_weights
from waiting import LIMIT, is_running, read_soon, status_of_child, wait_until

from basicsr_ext.cli.main import main
from basicsr_ext.trainer.locking import ExperimentLock


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def start(work) -> tuple[int, int]:
    """Forks a process that does something; returns it, and a pipe that tells what work writes to its argument."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os._exit(work(writer) or 0)
        finally:
            os._exit(99)
    os.close(writer)
    return child, reader


@pytest.fixture
def held(root):
    """The lock of the experiment "run" while another process holds it; its number."""

    def hold(started: int) -> None:
        ExperimentLock(root / 'experiments/run').acquire()
        os.write(started, b'.')
        signal.pause()

    child, reader = start(hold)
    assert read_soon(reader, 1) == b'.'
    yield child
    os.kill(child, signal.SIGKILL)
    status_of_child(child)
    os.close(reader)


# ---- the lock --------------------------------------------------------------------------------------------------------


def test_a_lock_that_another_process_holds_is_refused_with_its_holder(root, held):
    for _ in range(2):  # a refusal leaves the name of the holder
        with pytest.raises(basicsr_ext.UserError) as refused:
            ExperimentLock(root / 'experiments/run').acquire()
        assert f'found process {held} on {socket.gethostname()}. Wait until it has ended' in str(refused.value)
    other = ExperimentLock(root / 'experiments/runs')
    other.acquire()
    other.release()
    assert os.listdir('experiments') == ['.run.lock']


def test_a_lock_of_a_dead_process_is_free_while_its_children_live(root):
    def hold(started: int) -> None:
        ExperimentLock(root / 'experiments/run').acquire()
        child = os.fork()
        if child == 0:
            signal.pause()
        os.write(started, str(child).encode())
        os.kill(os.getpid(), signal.SIGKILL)

    holder, reader = start(hold)
    child = int(read_soon(reader, 20))
    assert status_of_child(holder) == -signal.SIGKILL
    try:
        lock = ExperimentLock(root / 'experiments/run')
        lock.acquire()
        assert lock.file.read_text() == f'process {os.getpid()} on {socket.gethostname()}'
        assert is_running(child)
        lock.release()
        assert not lock.file.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reader)


def test_a_lock_that_its_holder_has_removed_meanwhile_is_taken_anew(root, monkeypatch):
    lock, original, calls = ExperimentLock(root / 'experiments/run'), fcntl.lockf, []

    def removed_meanwhile(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            lock.file.unlink()
        if len(calls) == 2:  # and made by a third run
            lock.file.rename('elsewhere')
            lock.file.touch()
        return original(*arguments)

    monkeypatch.setattr(fcntl, 'lockf', removed_meanwhile)
    lock.acquire()
    assert len(calls) == 3
    assert lock.file.read_text() == f'process {os.getpid()} on {socket.gethostname()}'
    lock.release()


def test_a_file_system_without_locks_is_told(root, monkeypatch, capsys):
    def fail(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'lockf', fail)
    lock = ExperimentLock(root / 'experiments/run')
    lock.acquire()
    lock.release()
    assert re.search(r'Warning: .*\.run\.lock cannot be locked \(No locks available\)', capsys.readouterr().out)


def test_a_place_where_no_lock_can_be_is_told(root):
    (root / 'file').touch()
    with pytest.raises(basicsr_ext.UserError, match=r'file/\.run\.lock: writing failed \('):
        ExperimentLock(root / 'file/run').acquire()


# ---- runs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('arguments', [(), ('--auto_resume',)])
def test_a_second_run_of_the_name_is_refused_and_changes_nothing(root, capfd, arguments):
    path = str(write_options(root / 'o.yml', sr_options(root)))
    go_on, let_go_on = os.pipe()

    def first_run(in_training: int) -> int:
        def wait() -> None:
            os.write(in_training, b'.')
            read_soon(go_on, 1)

        at_call('torch.optim.Adam.step', 3, wait)
        return main(['train', '-opt', path, *arguments])

    child, in_training = start(first_run)
    assert read_soon(in_training, 1) == b'.'
    before = {file: file.stat().st_mtime_ns for file in root.rglob('*')}
    capfd.readouterr()
    assert forked(main, ['train', '-opt', path, *arguments]) == 2
    error = capfd.readouterr().err
    assert re.search(
        rf'error: .*experiments/run: expected that no other run is at work there, found process {child} on ', error
    )
    assert {file: file.stat().st_mtime_ns for file in root.rglob('*')} == before
    os.write(let_go_on, b'.')
    assert status_of_child(child) == 0
    assert os.listdir('experiments') == ['run']


def _rank(path: str) -> None:
    assert main(['train', '-opt', path, '--launcher', 'pytorch']) == 2


def test_all_ranks_leave_where_the_first_is_refused_and_one_says_why(root, capfd, held):
    on_ranks(2, _rank, str(write_options(root / 'o.yml', sr_options(root))))
    error = capfd.readouterr().err
    assert error.count('basicsr train: error: ') == 1 and f'found process {held} on ' in error


def test_other_commands_are_not_refused(root, held):
    options = sr_options(root)
    path = str(write_options(root / 'o.yml', options))
    assert main(['check', '-opt', path]) == 0
    assert main(['prepare', 'lr', '-i', 'hr', '-o', 'small', '-s', '2', '--num_workers', '0']) == 0
    for key in ('train', 'logger'):
        options.pop(key)
    options['datasets'] = {'test_1': options['datasets']['val']}
    options['path'] = {'pretrain_network_g': write_weights(root / 'a.pth')}
    options['val'].pop('val_freq')
    assert main(['test', '-opt', str(write_options(root / 't.yml', options))]) == 0


# ---- those that started it -------------------------------------------------------------------------------------------


def children(parent: int) -> list[int]:
    """Processes that another one has started."""
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rpartition(')')[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(stat.parent.name))
    return sorted(found)


@pytest.mark.skipif(sys.platform != 'linux', reason='needs /proc')
@pytest.mark.parametrize('victim', ['command', 'torchrun', 'rank'])
def test_no_rank_survives_those_that_started_it(root, victim):
    """kill -9 of one process of ``basicsr train --nproc 2``."""
    options = sr_options(root)
    options['train']['total_iter'] = 10**6
    options['logger']['save_checkpoint_freq'] = 10**6
    options['datasets']['train'].update(num_worker_per_gpu=1, dataset_enlarge_ratio=10**5)
    options.pop('val')
    options['datasets'].pop('val')
    path = str(write_options(root / 'o.yml', options))
    environment = {**os.environ, 'PYTHONPATH': str(Path(basicsr_ext.__file__).parents[1]), 'OMP_NUM_THREADS': '1'}
    line = [sys.executable, '-m', 'basicsr_ext', 'train', '-opt', path, '--nproc', '2']
    with open('out', 'w') as out, open('err', 'w') as err:
        command = subprocess.Popen(line, env=environment, stdout=out, stderr=err)
    started: list[int] = []
    try:
        metrics = root / 'experiments/run/metrics.jsonl'
        wait_until(lambda: metrics.exists() and metrics.stat().st_size, 'an iteration')
        (torchrun,) = children(command.pid)
        ranks = children(torchrun)
        started = [torchrun, *ranks, *(worker for rank in ranks for worker in children(rank))]
        assert len(started) == 5
        os.kill({'command': command.pid, 'torchrun': torchrun, 'rank': ranks[1]}[victim], signal.SIGKILL)
        status = command.wait(LIMIT)
        wait_until(lambda: not any(map(is_running, started)), 'the end of the ranks')
    finally:
        for process in (command.pid, *started):
            if is_running(process):
                os.kill(process, signal.SIGKILL)
    lock = ExperimentLock(root / 'experiments/run')
    lock.acquire()  # is free
    lock.release()
    states = list(root.glob('experiments/run/training_states/*.state'))
    last = Path('err').read_text().splitlines()[-1]
    if victim == 'rank':
        assert not states
        assert status == 2
        assert last == (
            'basicsr train: error: A rank was ended by SIGKILL. Most likely the memory did not suffice. Go on with '
            '--auto_resume.'
        )
    else:
        assert len(states) == 1  # the ranks were asked to stop
        assert 'Traceback' not in Path('err').read_text()
        assert status == (-signal.SIGKILL if victim == 'command' else 2)
