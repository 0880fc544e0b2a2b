"""Ctrl-C and SIGTERM end a command that keeps what is done."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class _Terminated(KeyboardInterrupt):
    """SIGTERM, which whatever heeds Ctrl-C heeds too."""


def stoppable(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Lets a command end on Ctrl-C and SIGTERM with a line, which one rank prints; exit status: 128 + the signal's number."""

    def run_stoppably(args: argparse.Namespace) -> None:
        with _heeding_sigterm():
            try:
                run(args)
            except KeyboardInterrupt as stop:
                if os.environ.get('RANK', '0') == '0':
                    print(
                        f'basicsr prepare {args.prepare_command}: stopped; the same command goes on.', file=sys.stderr
                    )
                raise SystemExit(128 + (signal.SIGTERM if isinstance(stop, _Terminated) else signal.SIGINT)) from None

    return run_stoppably


@contextmanager
def _heeding_sigterm() -> Iterator[None]:
    """Turns the first SIGTERM into an exception; launchers send more, which shall not disturb the clearing up."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # which alone receives signals
        yield
        return
    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
