"""What a user sees of a long step: a bar on a terminal, and a line now and then in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from tqdm import tqdm

from basicsr_ext.prepare.counting import pluralize

_SECONDS_BETWEEN_LINES = 60


@contextmanager
def progress(description: str, total: int, *, done: int = 0, unit: str = 'image') -> Iterator[Callable[[], object]]:
    """Shows on stderr how far a step is; where that is no terminal, at its start, at its end, and once a minute at most.

    Args:
        description: Of the step.
        total: How much there is to do.
        done: How much of it a former run has done.
        unit: What is counted.

    Yields:
        A function to be called whenever one more is done.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, initial=done, desc=description, unit=unit) as bar:
            yield bar.update
    else:
        yield _Lines(description, total, done, unit).update


class _Lines:
    """Says at intervals how much is done; the arguments are those of :func:`progress`."""

    def __init__(self, description: str, total: int, done: int, unit: str) -> None:
        self._description = description
        self._total = total
        self._before = self._done = done
        self._unit = unit
        self._started = self._said = time.monotonic()
        self._say('')

    def update(self) -> None:
        self._done += 1
        now = time.monotonic()
        taken = now - self._started
        if self._done == self._total:
            self._say(f', in {_duration(taken)}')
        elif now - self._said >= _SECONDS_BETWEEN_LINES:
            left = taken / (self._done - self._before) * (self._total - self._done)
            self._say(f', about {_duration(left)} left')
            self._said = now

    def _say(self, about_time: str) -> None:
        done = f'{self._done} of {pluralize(self._total, self._unit)}'
        print(f'{self._description}: {done} done{about_time}', file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
