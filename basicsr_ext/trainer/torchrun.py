"""torchrun's launcher without its tracebacks: a rank that failed, or was stopped, has said why itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> int:
    """Runs torchrun with its own arguments; returns the first failed rank's exit status, or 128 and the signal's number."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    try:
        torchrun(list(arguments))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        return status if status > 0 else 128 - status
    except SignalException as signalled:
        return 128 + signalled.sigval
    return 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
