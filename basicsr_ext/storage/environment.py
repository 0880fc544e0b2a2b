"""Reading from LMDB files: one environment for each file in a process, none carried over a fork."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import lmdb

from basicsr_ext.errors import UserError
from basicsr_ext.files import follow_links, open_file
from basicsr_ext.storage.forking import ForkGate

# LMDB allows no file to be opened twice in a process, so all stores that read a file share its reader. The key is the
# file's identity, not its path: two paths may lead to one file, and a store that was made anew is another file.
_readers: WeakValueDictionary[tuple[int, int], LmdbReader] = WeakValueDictionary()
_readers_lock = threading.Lock()
_gate = ForkGate()


class LmdbReader:
    """Read access to one LMDB; threads may share it, and it may be pickled. Get one from :func:`shared_reader`.

    Args:
        folder: The directory that holds data.mdb.

    Attributes:
        kept: Where users keep what they have made of :meth:`view`; empty in a forked child.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.RLock()
        self._environment: lmdb.Environment | None = None
        self._lasting: lmdb.Transaction | None = None
        self._content: mmap.mmap | None = None
        self.kept: dict[Any, Any] = {}

    def __reduce__(self) -> tuple[Callable[[Path], LmdbReader], tuple[Path]]:
        return shared_reader, (self._folder,)

    @contextmanager
    def reading(self) -> Iterator[Callable[[bytes], memoryview]]:
        """Gives a function that looks a value up; inside the ``with`` block its views are valid, and no fork happens.

        Raises:
            UserError: A key is missing, or the file is damaged.
        """
        with _gate:
            transaction = self._begin()
            try:
                yield lambda name: self._get(transaction, name)
            finally:
                transaction.abort()

    def view(self, name: bytes) -> memoryview:
        """Looks a value up for good: the view is valid in this process for as long as the reader lives.

        Nothing writes to the file, so that a transaction may stay open as long as the environment.

        Raises:
            UserError: The key is missing, or the file is damaged.
        """
        with _gate, self._lock:  # one transaction must not be used by two threads at once
            if self._lasting is None:
                self._lasting = self._begin()
            return self._get(self._lasting, name)

    def content(self) -> mmap.mmap:
        """Gives the bytes of the whole file, which are read from the disk where they are touched.

        Raises:
            UserError: The file cannot be opened.
        """
        with self._lock:
            if self._content is None:
                file = self._folder / 'data.mdb'
                try:
                    with open_file(file) as opened:
                        self._content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
                except OSError as error:
                    raise UserError(f'{file} cannot be opened: {error.strerror}.') from error
            return self._content

    def file_state(self) -> dict[str, int]:
        """Tells this file from others; see :func:`file_state`."""
        with _gate:
            return file_state(self._open_environment())

    def _begin(self) -> lmdb.Transaction:
        environment = self._open_environment()
        try:
            return environment.begin(buffers=True)
        except lmdb.Error as error:
            raise self._damaged(error) from error

    def _get(self, transaction: lmdb.Transaction, name: bytes) -> memoryview:
        try:
            value = transaction.get(name)
        except lmdb.Error as error:
            raise self._damaged(error) from error
        if value is None:
            raise self._damaged(f'{name!r} is missing')
        return memoryview(value)

    def check(self) -> None:
        """Opens the file unless it is open.

        Raises:
            UserError: The file is damaged or cut off.
        """
        with _gate:
            self._open_environment()

    def _damaged(self, what: object) -> UserError:
        return UserError(f'{self._folder}: data.mdb is damaged ({what}). Copy or make the LMDB again.')

    def _open_environment(self) -> lmdb.Environment:
        environment = self._environment
        if environment is None:
            with self._lock:
                if self._environment is None:
                    self._environment = _open(self._folder)
                environment = self._environment
        return environment

    def _leave_to_parent(self) -> None:
        """Makes a forked child open the file itself. The parent's environment is untouched by closing the copy."""
        inherited, self._environment, self._lock = self._environment, None, threading.RLock()
        self._lasting, self._content, self.kept = None, None, {}
        if inherited is not None:
            inherited.close()


def file_state(environment: lmdb.Environment) -> dict[str, int]:
    """Gives what changes in an LMDB whenever its values move: numbers of the last transaction and of the last page."""
    info = environment.info()
    return {name: info[name] for name in ('last_txnid', 'last_pgno')}


def shared_reader(folder: Path) -> LmdbReader:
    """Returns the reader that all users of an LMDB share in this process.

    Args:
        folder: The directory that holds data.mdb.

    Raises:
        UserError: The file is missing, damaged or cut off.
    """
    try:
        status = os.stat(folder / 'data.mdb')
    except OSError as error:
        raise UserError(f'{folder}: data.mdb cannot be read: {error.strerror}.') from error
    with _readers_lock:
        reader = _readers.get((status.st_dev, status.st_ino))
        if reader is None:
            reader = _readers[status.st_dev, status.st_ino] = LmdbReader(follow_links(folder))
    reader.check()
    return reader


def _open(folder: Path) -> lmdb.Environment:
    try:
        # Locks serve writers, of which there are none; without them there is also no limit on readers. The binding
        # touches every page of a value that it is asked for, which reading ahead makes faster.
        environment = lmdb.open(str(folder), readonly=True, lock=False, readahead=True, max_spare_txns=16)
    except lmdb.Error as error:
        if 'already open' in str(error):
            raise UserError(
                f'{folder}: this LMDB is open in this process for another reader, and can be opened only once. Let all '
                'datasets that read it in one process be of this package, or give one of them a copy.'
            ) from error
        raise UserError(f'{folder}: data.mdb cannot be opened ({error}). Make the LMDB again.') from error
    # Reading behind the end of a mapped file ends the process with SIGBUS instead of an exception.
    expected = (environment.info()['last_pgno'] + 1) * environment.stat()['psize']
    found = os.path.getsize(folder / 'data.mdb')
    if found < expected:
        environment.close()
        raise UserError(
            f'{folder}: data.mdb is cut off: expected at least {expected} bytes, found {found}. Copy or make it again.'
        )
    return environment


def _after_fork_in_child() -> None:
    global _readers_lock
    _readers_lock = threading.Lock()
    for reader in list(_readers.values()):
        reader._leave_to_parent()


_gate.guard_forks(_after_fork_in_child)
