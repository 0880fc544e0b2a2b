"""torchrun's launcher without its tracebacks: a rank that failed, or was stopped, has said why itself.

It ends, and its ranks with it, when the command that started it is gone.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence

from basicsr_ext.processes import end_with_parent
from basicsr_ext.trainer.failing import LOST

_GRACE = 60  # seconds, of which torchrun gives its ranks 30 to end


def main(arguments: Sequence[str]) -> int:
    """Runs torchrun with its own arguments; returns the first failed rank's exit status, or 128 and the signal's number."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for name in ('api', 'errors', 'errors.error_handler'):  # which speak of failed ranks, too
        logging.getLogger(f'torch.distributed.elastic.multiprocessing.{name}').setLevel(logging.CRITICAL)
    try:
        torchrun(list(arguments))
    except ChildFailedError as error:
        # the others have ended after it, perhaps in the same second
        followed = (-signal.SIGTERM, LOST)
        first = min(error.failures.values(), key=lambda failure: (failure.exitcode in followed, failure.timestamp))
        status = first.exitcode
        return status if status > 0 else 128 - status
    except SignalException as signalled:
        return 128 + signalled.sigval
    return 0


if __name__ == '__main__':
    end_with_parent(int(sys.argv[1]), _GRACE)
    sys.exit(main(sys.argv[2:]))
