"""``metrics.jsonl``: one line for every print and every validation, for tools to read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends lines to a file of a run.

    A line is an object with ``event`` (``train`` or ``validation``), ``iteration``, and what was measured. What depends on
    the machine and the hour is in ``wall``.

    Args:
        path: The file.
        offset: Bytes of it to keep; what follows belongs to iterations that are done again.
    """

    def __init__(self, path: Path, offset: int = 0):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open('ab') as file:
            file.truncate(min(offset, file.tell()))

    def write(self, event: str, iteration: int, **values: Any) -> None:
        """Appends a line."""
        with self.path.open('a', encoding='utf-8') as file:
            file.write(json.dumps({'event': event, 'iteration': iteration, **values}) + '\n')

    def offset(self) -> int:
        """Returns the bytes written so far."""
        return self.path.stat().st_size


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads all lines of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
