"""Processes that end with their parent: workers of a loader or a pool, whatever signals they are sent, and ranks."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context
from multiprocessing.process import BaseProcess
from typing import Any

_PATIENCE = 10  # seconds that a worker has to end by itself
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Worker(BaseProcess):
    """A process that its parent ends by SIGKILL: signals that are pending already swallow a SIGTERM."""

    def start(self) -> None:
        with _signals_blocked():  # until start_worker ignores them: a worker begins with the handlers of its parent
            super().start()
        self._popen.terminate = self._popen.kill  # what multiprocessing calls when the parent exits

    def terminate(self) -> None:
        self.kill()

    def join(self, timeout: float | None = None) -> None:
        """Waits for the end; without a limit, a worker that does not end by itself is killed."""
        if timeout is not None:
            super().join(timeout)
            return
        super().join(_PATIENCE)
        if self.is_alive():
            self.kill()
            super().join(_PATIENCE)


class _SpawnedWorker(_Worker, context.SpawnProcess):
    pass


_PROCESSES: dict[str, type[BaseProcess]] = {'spawn': _SpawnedWorker}

if hasattr(context, 'ForkProcess'):  # not on Windows

    class _ForkedWorker(_Worker, context.ForkProcess):
        pass

    _PROCESSES['fork'] = _ForkedWorker


def worker_context(method: str | None = None) -> Any:
    """Returns the multiprocessing context to start workers with; they must call :func:`start_worker` first.

    Args:
        method: ``fork`` or ``spawn``; default: that of the system.
    """
    method = method or multiprocessing.get_start_method()
    method = method if method in _PROCESSES else 'spawn'
    made = copy.copy(multiprocessing.get_context(method))
    made.Process = _PROCESSES[method]
    return made


def start_worker(worker: int = 0) -> None:
    """Lets a worker pass over Ctrl-C and SIGTERM, and end when its parent is gone.

    A terminal, torchrun and SLURM send these signals to every process of a run, but a rank still needs batches to finish its
    iteration with.

    It stands in place of BasicSR's function, which seeds the worker's generators: samples have random numbers of their own
    here. It can be unpickled where BasicSR is not made importable yet, as in workers that are spawned.

    Args:
        worker: Its number.
    """
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'pthread_sigmask'):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_parent(parent.pid)


def end_with_parent(parent: int, grace: float = 0) -> None:
    """Ends this process soon after its parent: one that was killed cannot end its children.

    Args:
        parent: Number of the parent; it may be gone already.
        grace: Seconds in which a SIGTERM is to end this process; then it is ended by force. 0: by force at once.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        if grace:
            print(f'Process {parent}, which started this one, is gone.', file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(grace)
        os._exit(1)

    threading.Thread(target=watch, name='end_with_parent', daemon=True).start()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Lets signals wait; not on Windows, which has none to wait."""
    if not hasattr(signal, 'pthread_sigmask'):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
