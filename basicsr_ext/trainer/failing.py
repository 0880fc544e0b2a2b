"""What is said where a run of several ranks fails: one error, of the rank that failed first."""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta

from basicsr_ext.errors import RankLost, UserError

LOST = 3  # exit status of a rank that has merely lost another
_WAIT = 10  # seconds in which torchrun ends the ranks that are left


def is_told_by_this_rank(error: UserError) -> bool:
    """Says whether this process is to print an error; one alone of the ranks that torchrun has started is.

    torchrun ends all ranks soon after the first that fails. Those that have merely lost it wait for that.

    Args:
        error: Why this process ends.
    """
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True':
        return True
    if isinstance(error, RankLost):
        if error.stopping:
            return False
        time.sleep(_WAIT)
    else:
        _note_for_torchrun(error)
    return _is_first()


def _is_first() -> bool:
    """Whether no other rank has called this yet; in doubt, true."""
    from torch.distributed import TCPStore

    address, port = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    try:
        store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add(f'basicsr_ext/failed/{attempt}', 1) == 1
    except RuntimeError:  # torchrun is gone
        return True


def _note_for_torchrun(error: UserError) -> None:
    """Leaves the error where torchrun takes what it prints last from."""
    file = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if file:
        message = {'message': str(error), 'extraInfo': {'timestamp': str(int(time.time()))}}
        with open(file, 'w') as opened:
            json.dump({'message': message}, opened)
