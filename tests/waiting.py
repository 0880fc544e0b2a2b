"""Waiting with a limit: what does not come fails the test, instead of hanging it."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable

LIMIT = 100  # seconds, below that of a test


def wait_until(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
    """Asks until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f'{what}: not within {seconds} s'
        time.sleep(0.005)


def status_of_child(child: int, seconds: float = LIMIT) -> int:
    """Waits for a forked child; returns its exit status (negative: the signal). One that does not end is killed."""
    ended = [(0, 0)]

    def is_over() -> bool:
        ended[0] = os.waitpid(child, os.WNOHANG)
        return ended[0] != (0, 0)

    try:
        wait_until(is_over, f'the end of process {child}', seconds)
    except BaseException:
        if ended[0] == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(ended[0][1])


def read_soon(descriptor: int, count: int, seconds: float = LIMIT) -> bytes:
    """Reads from a pipe; nothing at its end."""
    assert select.select([descriptor], [], [], seconds)[0], f'nothing to read within {seconds} s'
    return os.read(descriptor, count)


def is_running(process: int) -> bool:
    """Whether a process is there that has not ended; also of one that is nobody's child any more."""
    try:
        with open(f'/proc/{process}/stat') as file:
            return file.read().rpartition(')')[2].split()[0] not in 'ZX'
    except OSError:
        return False


def join_all(threads: Iterable[threading.Thread], seconds: float = LIMIT) -> None:
    """Waits for threads."""
    for thread in threads:
        thread.join(seconds)
        assert not thread.is_alive(), f'{thread.name} did not end within {seconds} s'
