"""Making forks wait for what must not be interrupted by one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


class ForkGate:
    """Context manager: any number of threads may be inside at once, and a fork waits until none is.

    A child that is forked while another thread is reading from an LMDB inherits an environment that counts a reader for
    ever: closing it would wait for a thread that does not exist in the child. A thread must not fork, nor enter once
    more, while it is inside.
    """

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._forks_waiting = 0

    def __enter__(self) -> None:
        with self._lock:
            # Forks go first, lest a stream of readers keep one waiting for ever.
            while self._forks_waiting:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._forks_waiting:
                self._changed.notify_all()

    def guard_forks(self, in_child: Callable[[], None]) -> None:
        """Makes all forks of this process wait from now on.

        Args:
            in_child: Called in every child, where nobody is inside.
        """

        def start_anew() -> None:
            self._start()
            in_child()

        if hasattr(os, 'register_at_fork'):
            os.register_at_fork(before=self._shut, after_in_parent=self._reopen, after_in_child=start_anew)

    def _shut(self) -> None:
        """Waits until nobody is inside, and keeps the lock, so that nobody enters."""
        self._lock.acquire()
        self._forks_waiting += 1
        while self._inside:
            self._changed.wait()

    def _reopen(self) -> None:
        self._forks_waiting -= 1
        self._changed.notify_all()
        self._lock.release()
