"""Several ranks that are killed or asked to stop, and resumed, end to the bit as those that were not; torchrun's too."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from resume_runs import at_call, make_options, train_rank
from run_helpers import final_state, on_ranks, write_centroids, write_options, write_pairs

from basicsr_ext.cli.main import main
from basicsr_ext.trainer import failing


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """Tiny images and centroids, read only."""
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos)
    write_centroids(root)
    return root


def two_ranks(images: Path, workers: int) -> dict:
    """Options of a run of two ranks, each with so many workers of its loader."""
    options = make_options(images, 'ECOModel')
    options['datasets']['train'].update(batch_size_per_gpu=1, num_worker_per_gpu=workers)
    return options


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory):
    """Final state of two ranks that nobody stopped."""
    root = tmp_path_factory.mktemp('whole')
    path = str(write_options(root / 'o.yml', two_ranks(images, workers=0)))
    on_ranks(2, _in_folder, root, path)
    state = final_state(root)
    assert len(state['state']['ranks']) == 2
    return state


def _in_folder(root: Path, path: str) -> None:
    os.chdir(root)
    train_rank(path)


# ---- forked ranks ----------------------------------------------------------------------------------------------------


def _rank_until_killed(path: str, victim: int) -> None:
    torch.set_num_threads(1)
    failing._WAIT = 0  # nobody ends the rank that is left
    if int(os.environ['RANK']) == victim:
        at_call('torch.optim.Adam.step', 4, lambda: os.kill(os.getpid(), signal.SIGKILL))
    main(['train', '-opt', path, '--launcher', 'pytorch', '--auto_resume'])


@pytest.mark.parametrize('workers', [0, 2])
def test_two_ranks_resume_to_the_bit(images, whole, tmp_path, monkeypatch, workers):
    monkeypatch.chdir(tmp_path)
    path = str(write_options(tmp_path / 'o.yml', two_ranks(images, workers)))
    with pytest.raises(AssertionError, match='ranks ended with'):
        on_ranks(2, _rank_until_killed, path, 1)
    assert saved_iterations(tmp_path) == [2]
    on_ranks(2, train_rank, path, '--auto_resume')
    assert final_state(tmp_path) == whole


def _rank_signalled(path: str) -> None:
    torch.set_num_threads(1)
    if os.environ['RANK'] == '1':
        at_call('torch.optim.Adam.step', 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(['train', '-opt', path, '--launcher', 'pytorch']) == 128 + signal.SIGTERM


def test_ranks_stop_together_when_one_is_asked(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    on_ranks(2, _rank_signalled, str(write_options(tmp_path / 'o.yml', make_options(images, 'SRModel'))))
    saved = [int(p.stem) for p in Path('experiments/run/training_states').iterdir()]
    assert max(saved) in (2, 3)


# ---- torchrun --------------------------------------------------------------------------------------------------------

# Python imports this module by itself where it finds it. It acts on the call of Adam's step given by CALL, on the rank
# given by VICTIM: ends it by kill -9, or sends a signal to the first process and to those that stayed in its group, as a
# terminal does, and waits until it has come back. Ranks are in groups of their own.
_AT_A_STEP = """
import os, signal, sys, time

os.environ.setdefault('FIRST', str(os.getpid()))
if os.environ.get('RANK') == os.environ.get('VICTIM'):
    import torch

    from basicsr_ext.trainer.stopping import StopRequests

    original, calls, received = torch.optim.Adam.step, [0], []
    enter, remember = StopRequests.__enter__, StopRequests._remember
    number = int(os.environ['NUMBER'])

    def start_counting(self):  # not while the options are checked
        torch.optim.Adam.step = step
        return enter(self)

    def noted(self, number, frame):
        remember(self, number, frame)
        received.append(number)

    def step(self, *arguments):
        calls[0] += 1
        if calls[0] == int(os.environ['CALL']):
            if number == signal.SIGKILL:
                os.kill(os.getpid(), signal.SIGKILL)
            os.killpg(int(os.environ['FIRST']), number)
            for _ in range(2000):
                if received:
                    break
                time.sleep(0.01)
        return original(self, *arguments)

    StopRequests.__enter__, StopRequests._remember = start_counting, noted
"""


TORCHRUN = ('torch.distributed.run', '--standalone', '--nproc_per_node', '2', '-m')


def on_two_ranks(
    root: Path, path: Path, *arguments: str, by: tuple[str, ...] = TORCHRUN, **environment: str
) -> subprocess.CompletedProcess:
    """Runs our command on two ranks as a user would, with a session of its own as a terminal gives it."""
    package = Path(basicsr_ext.__file__).parents[1]
    (root / 'site').mkdir(exist_ok=True)
    (root / 'site/sitecustomize.py').write_text(_AT_A_STEP)
    python_path = os.pathsep.join(filter(None, [str(root / 'site'), str(package), os.environ.get('PYTHONPATH')]))
    command = [sys.executable, '-m', *by, 'basicsr_ext', 'train', '-opt', str(path), *arguments]
    command += ['--launcher', 'pytorch'] if by else []
    variables = {**os.environ, 'PYTHONPATH': python_path, 'OMP_NUM_THREADS': '1', 'VICTIM': 'none', **environment}
    return subprocess.run(
        command, cwd=root, capture_output=True, text=True, timeout=300, env=variables, start_new_session=True
    )


def saved_iterations(root: Path) -> list[int]:
    return sorted(int(p.stem) for p in (root / 'experiments/run/training_states').glob('*.state'))


def test_torchrun_with_a_killed_rank_is_resumed_by_torchrun(images, whole, tmp_path):
    path = write_options(tmp_path / 'o.yml', two_ranks(images, workers=2))
    killed = on_two_ranks(tmp_path, path, VICTIM='1', CALL='4', NUMBER=str(int(signal.SIGKILL)))
    assert killed.returncode != 0 and 'SIGKILL' in killed.stderr, killed.stderr[-3000:]
    assert saved_iterations(tmp_path) == [2]
    resumed = on_two_ranks(tmp_path, path, '--auto_resume')
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert 'iter: 2' in resumed.stdout + resumed.stderr
    assert final_state(tmp_path) == whole


@pytest.mark.parametrize('launcher', ['torchrun', '--nproc'])
def test_ranks_that_are_asked_to_stop_save_and_say_how_to_go_on(images, whole, tmp_path, monkeypatch, launcher):
    """torchrun sends SIGTERM to the ranks and, with them, to their workers; a terminal sends Ctrl-C to all it started."""
    path = write_options(tmp_path / 'o.yml', two_ranks(images, workers=1))
    if launcher == 'torchrun':
        stopped = on_two_ranks(tmp_path, path, VICTIM='0', CALL='3', NUMBER=str(int(signal.SIGTERM)))
        assert stopped.returncode != 0
    else:
        number = str(int(signal.SIGINT))
        stopped = on_two_ranks(tmp_path, path, '--nproc', '2', by=(), VICTIM='0', CALL='3', NUMBER=number)
        assert stopped.returncode == 128 + signal.SIGINT and 'Traceback' not in stopped.stderr, stopped.stderr[-3000:]
        assert stopped.stderr.endswith('the ranks were stopped; what they have saved is said above\n')
    (last,) = [iteration for iteration in saved_iterations(tmp_path) if iteration != 2]
    assert last in (3, 4)  # ranks agree one iteration later
    assert f'stopped and saved after iteration {last}; go on with --auto_resume' in stopped.stderr
    assert stopped.stdout.count('Stopping after this iteration') == 2  # once a rank, and not from workers
    monkeypatch.chdir(tmp_path)
    on_ranks(2, train_rank, str(path), '--auto_resume')
    assert final_state(tmp_path) == whole
