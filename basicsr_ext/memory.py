"""How much memory there is."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

# Limit and use of the group of processes that a container or a job scheduler puts this one into, and what the use is made up
# of: versions 2 and 1 of cgroups.
_GROUPS = (
    ('/sys/fs/cgroup/memory.max', '/sys/fs/cgroup/memory.current', '/sys/fs/cgroup/memory.stat'),
    (
        '/sys/fs/cgroup/memory/memory.limit_in_bytes',
        '/sys/fs/cgroup/memory/memory.usage_in_bytes',
        '/sys/fs/cgroup/memory/memory.stat',
    ),
)
_FILES = ('inactive_file', 'active_file')  # contents of files that the system keeps in memory while nobody wants it


def available_memory() -> float:
    """Bytes that this process may still take without swapping, as far as the system says; infinity where it does not."""
    return min(_limits(), default=math.inf)


def _limits() -> Iterator[float]:
    for line in _read('/proc/meminfo').splitlines():
        if line.startswith('MemAvailable:'):
            yield int(line.split()[1]) * 1024
    for limit, use, parts in _GROUPS:
        if _read(limit).strip().isdecimal() and _read(use).strip().isdecimal():
            yield max(0, int(_read(limit)) - max(0, int(_read(use)) - _of_files(_read(parts))))
    try:
        import resource
    except ImportError:  # not on this system
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    pages = _read('/proc/self/statm').split()
    if most != resource.RLIM_INFINITY and pages:
        yield max(0, most - int(pages[0]) * os.sysconf('SC_PAGE_SIZE'))


def _of_files(parts: str) -> int:
    """Bytes of a group's use that the system gives up when they are needed."""
    numbers = dict(line.split() for line in parts.splitlines() if len(line.split()) == 2)
    # with total_, version 1 counts the groups below this one, too, as its use does
    return sum(int(numbers.get(f'total_{name}', numbers.get(name, 0))) for name in _FILES)


def _read(file: str) -> str:
    try:
        return Path(file).read_text()
    except OSError:
        return ''


def describe_bytes(count: float) -> str:
    """A number of bytes for messages: ``1.5 GB``, ``20.0 MB``."""
    return f'{count / 1e9:.1f} GB' if count >= 1e9 else f'{count / 1e6:.1f} MB'
