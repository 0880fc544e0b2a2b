"""What benchmarks of short calls share."""

from __future__ import annotations

import ctypes
import sys


def keep_freed_memory() -> None:
    """Stops glibc from returning large buffers to the system, so that page faults do not drown what is measured."""
    if sys.platform == 'linux':
        libc = ctypes.CDLL(None)
        if hasattr(libc, 'mallopt'):
            libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
            libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD
