"""What a worker process of the training loader does first."""

from __future__ import annotations

import os
import signal
import threading


def start_worker(worker: int) -> None:
    """Lets a worker pass over Ctrl-C, and over SIGTERM from anybody but its own rank.

    A terminal, torchrun and SLURM send them to every process of a run, but the rank still needs batches to finish its
    iteration with. torch ends its workers by SIGTERM where they do not end by themselves.

    It stands in place of BasicSR's function, which seeds the worker's generators: samples have random numbers of their own
    here. It can be unpickled where BasicSR is not made importable yet, as in workers that are spawned.

    Args:
        worker: Its number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'sigtimedwait'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # of this thread, and those that it starts
        threading.Thread(target=_end_with_the_rank, daemon=True).start()


def _end_with_the_rank() -> None:
    """Ends this worker when its rank says so, or is gone: one that was killed cannot end its workers."""
    rank = os.getppid()
    while os.getppid() == rank:
        received = signal.sigtimedwait({signal.SIGTERM}, 2)
        if received is not None and received.si_pid == rank:
            break
    os._exit(0)
