"""``metrics.jsonl``: one line for every print and every validation, for tools to read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends lines to a file of a run.

    A line is an object with ``event`` (``train`` or ``validation``), ``iteration``, and what was measured. What depends on
    the machine and the hour is in ``wall``. Numbers that are not finite, which JSON does not have, are ``null``.

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
            line = {'event': event, 'iteration': iteration, **_finite(values)}
            file.write(json.dumps(line, allow_nan=False) + '\n')

    def offset(self) -> int:
        """Returns the bytes written so far."""
        return self.path.stat().st_size


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Reads all lines of a ``metrics.jsonl``."""
    return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]
