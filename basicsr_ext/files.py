"""Paths and files as users give them: nothing hangs, and what is wrong is an OSError."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a file to be read.

    Raises:
        OSError: It cannot be opened; or it is no file, such as a named pipe, which one would wait for without end.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = 'a named pipe' if stat.S_ISFIFO(mode) else 'a device or socket'
        raise OSError(errno.EINVAL, f'it is {kind}, not a file', os.fspath(path))
    return open(path, 'rb')


def read_file(path: str | os.PathLike) -> bytes:
    """Reads a whole file; see :func:`open_file`."""
    with open_file(path) as file:
        return file.read()


def expand_home(path: str | os.PathLike) -> Path:
    """Puts the home folder for a ``~``; one of a user who is not known stays, and leads nowhere."""
    return Path(os.path.expanduser(path))


def follow_links(path: str | os.PathLike) -> Path:
    """The absolute path without links; of links that lead in a circle, the one where that begins."""
    return Path(os.path.realpath(path))
