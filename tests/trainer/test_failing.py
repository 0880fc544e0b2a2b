"""A run of several ranks that fails ends with one clear error."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
import os
import signal
from datetime import timedelta

import pytest
import torch
from resume_runs import at_call
from run_helpers import on_ranks, sr_options, write_options, write_pairs
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from basicsr_ext.cli.main import main
from basicsr_ext.errors import RankLost, UserError
from basicsr_ext.trainer import failing
from basicsr_ext.trainer.launching import _reason


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def _rank(path: str, victim: int, killed: bool) -> None:
    torch.set_num_threads(1)

    def fail() -> None:
        if killed:
            os.kill(os.getpid(), signal.SIGKILL)
        raise UserError('the image of this rank is damaged')

    if int(os.environ['RANK']) == victim:
        at_call('torch.optim.Adam.step', 2, fail)
    status = main(['train', '-opt', path, '--launcher', 'pytorch'])
    assert status == (2 if int(os.environ['RANK']) == victim else failing.LOST)


@pytest.mark.parametrize('victim', [0, 1])
def test_the_rank_that_failed_says_why_and_the_other_nothing(root, monkeypatch, capfd, victim):
    monkeypatch.setattr(failing, '_WAIT', 5)  # nobody ends these ranks
    on_ranks(2, _rank, str(write_options(root / 'o.yml', sr_options(root))), victim, False)
    error = capfd.readouterr().err
    assert error.endswith('basicsr train: error: the image of this rank is damaged\n')
    assert error.count('basicsr train:') == 1 and 'Traceback' not in error and 'gloo' not in error


def test_a_rank_that_lost_one_that_was_killed_says_so_in_a_line(root, monkeypatch, capfd):
    monkeypatch.setattr(failing, '_WAIT', 0)
    with pytest.raises(AssertionError, match=r'ranks ended with \[0, -9\]'):
        on_ranks(2, _rank, str(write_options(root / 'o.yml', sr_options(root))), 1, True)
    *_, error = capfd.readouterr().err.splitlines()
    assert error.startswith('basicsr train: error: another rank has ended, and its output says why (here: [')


def test_a_rank_that_does_not_come_is_told(root, monkeypatch, capfd):
    """As on a machine where the command was not started."""
    monkeypatch.setattr('basicsr_ext.distributed._MEETING', timedelta(seconds=2))
    path = write_options(root / 'o.yml', sr_options(root))
    on_ranks(2, _comes_or_not, str(path))
    error = capfd.readouterr().err
    assert 'basicsr train: error: expected 2 ranks to meet at 127.0.0.1:' in error and 'one did not come' in error
    assert 'Traceback' not in error


def _comes_or_not(path: str) -> None:
    if os.environ['RANK'] == '0':
        _refused(path)


def test_wrong_options_are_told_by_one_rank(root, capfd):
    path = write_options(root / 'o.yml', sr_options(root, scale=3))
    on_ranks(2, _refused, str(path))
    assert capfd.readouterr().err.count('basicsr train: error: ') == 1


def _refused(path: str) -> None:
    assert main(['train', '-opt', path, '--launcher', 'pytorch']) == 2


def test_torchrun_ends_its_report_with_the_error(tmp_path, monkeypatch):
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    environment = {'USE_AGENT_STORE': 'True', 'RESTART_COUNT': '0', 'ERROR_FILE': str(tmp_path / 'error.json')}
    for name, value in environment.items():
        monkeypatch.setenv(f'TORCHELASTIC_{name}', value)
    monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
    monkeypatch.setenv('MASTER_PORT', str(store.port))
    monkeypatch.setattr(failing, '_WAIT', 0)
    error = UserError('lr/a.png is damaged. Replace it.')
    assert [failing.is_told_by_this_rank(e) for e in (error, error, RankLost(RuntimeError('gone')))] == [
        True,
        False,
        False,
    ]
    failure = ProcessFailure(local_rank=1, pid=1, exitcode=2, error_file=str(tmp_path / 'error.json'))
    ended = ProcessFailure(local_rank=0, pid=2, exitcode=-signal.SIGTERM, error_file='<N/A>')
    ended.timestamp = failure.timestamp + 1
    *_, last, _ = str(ChildFailedError('train', {0: ended, 1: failure})).splitlines()
    assert last == '  traceback : lr/a.png is damaged. Replace it.'
    monkeypatch.setenv('TORCHELASTIC_RESTART_COUNT', '1')
    assert failing.is_told_by_this_rank(error)
    del store
    monkeypatch.setenv('TORCHELASTIC_USE_AGENT_STORE', 'False')
    assert failing.is_told_by_this_rank(error)
    assert json.loads((tmp_path / 'error.json').read_text())['message']['message'] == str(error)


def test_what_ended_the_ranks_is_said():
    assert _reason(1) == 'The ranks ended with status 1; what went wrong is printed above.'
    assert _reason(137).startswith('A rank was ended by SIGKILL. Most likely the memory did not suffice.')
    assert _reason(139).startswith('A rank was ended by SIGSEGV. Go on')
    assert _reason(-9).startswith('torchrun was ended by SIGKILL. The ranks save and end by themselves;')
