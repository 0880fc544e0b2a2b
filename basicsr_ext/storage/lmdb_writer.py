"""What both LMDB writers do alike: write beside the target, and give the store its name when it is whole."""

from __future__ import annotations

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import lmdb
import numpy as np

from basicsr_ext.errors import UserError, writing_failed
from basicsr_ext.storage.base import check_key

PARTIAL_SUFFIX = '.partial'
_FIRST_MAP_SIZE = 1 << 24


class LmdbWriter(ABC):
    """Context manager that makes an LMDB of images.

    Everything goes to ``<path>.partial``, which is renamed to ``path`` as the last step, after all is on the disk: a
    store that bears its name is whole. If an exception leaves the ``with`` block, the partial directory is removed;
    what a killed process left is replaced.

    Args:
        path: The LMDB directory to make; its name ends in ``.lmdb`` (BasicSR demands it).

    Raises:
        UserError: The name is wrong, or something exists under it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._partial = self.path.with_name(self.path.name + PARTIAL_SUFFIX)
        self._environment: lmdb.Environment | None = None
        self._partial_identity: tuple[int, int] | None = None
        self._shapes: dict[str, tuple[int, int, int]] = {}
        self._map_size = _FIRST_MAP_SIZE
        if self.path.suffix != '.lmdb':
            raise UserError(f'{self.path}: the name of an LMDB must end in ".lmdb".')
        self._refuse_existing()

    @abstractmethod
    def _check(self, key: str, image: np.ndarray) -> None:
        """Refuses what this layout cannot hold."""

    @abstractmethod
    def _encode(self, name: bytes, image: np.ndarray) -> bytes:
        """Makes the value to store from a name and an array (height, width, channels)."""

    @abstractmethod
    def _write_index(self, folder: Path) -> None:
        """Writes what is kept beside data.mdb."""

    def put(self, key: str, image: np.ndarray) -> None:
        """Adds an image.

        Args:
            key: Its name, without extension.
            image: RGB or grey array of shape (height, width, channels).

        Raises:
            UserError: The key is unfit or taken, the image does not fit the store, or writing fails.
        """
        if self._environment is None:
            raise RuntimeError('An LMDB writer must be used in a "with" statement.')
        if key in self._shapes:
            raise UserError(f'{self.path}: there is an image "{key}" already; give every image a key of its own.')
        if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
            raise UserError(
                f'{self.path}: image "{key}": expected an array (height, width, 1 or 3 channels), found shape '
                f'{image.shape}.'
            )
        name = self._encode_key(key)
        self._check(key, image)
        with self._reporting():
            self._put_growing(name, self._encode(name, image))
        height, width, channels = image.shape
        self._shapes[key] = (height, width, channels)

    def __enter__(self) -> Self:
        self._refuse_existing()
        with self._reporting():
            if self._partial.exists():
                shutil.rmtree(self._partial)
            self._partial.mkdir(parents=True)
            self._partial_identity = _identity(self._partial)
            try:
                # Flushing once, at the end, is enough: until then nobody looks into the partial directory.
                self._environment = lmdb.open(str(self._partial), map_size=self._map_size, sync=False, lock=False)
            except BaseException:
                self._remove_partial()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                with self._reporting():
                    self._finish()
        finally:
            self._close()
            self._remove_partial()

    def _finish(self) -> None:
        if not self._shapes:
            raise UserError(f'{self.path}: no image was given to the writer, so no LMDB was made.')
        assert self._environment is not None
        self._environment.sync(True)
        self._close()
        if _identity(self._partial) != self._partial_identity:
            raise UserError(
                f'{self.path}: another process has started to write the same LMDB meanwhile. Run one at a time.'
            )
        self._write_index(self._partial)
        for file in self._partial.iterdir():
            _flush(file)
        _flush(self._partial)
        self._refuse_existing()
        self._partial.rename(self.path)
        _flush(self.path.parent)

    def _put_growing(self, name: bytes, value: bytes) -> None:
        """Stores a value, and enlarges the map, which is the limit on the file's size, where it does not fit."""
        assert self._environment is not None
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    transaction.put(name, value)
                return
            except lmdb.MapFullError:
                self._map_size *= 2
                self._environment.set_mapsize(self._map_size)

    def _encode_key(self, key: str) -> bytes:
        assert self._environment is not None
        check_key(key, self.path)
        name = key.encode()
        limit = self._environment.max_key_size()
        if len(name) > limit:
            raise UserError(
                f'{self.path}: a key must have at most {limit} bytes (UTF-8), found {len(name)}: "{key}". Rename the '
                'image or shorten its path.'
            )
        return name

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.path):
            raise UserError(f'{self.path}: exists already. Remove it, or choose another name.')

    def _close(self) -> None:
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def _remove_partial(self) -> None:
        """Removes the partial directory, unless it was renamed or is another process's by now."""
        if _identity(self._partial) == self._partial_identity:
            shutil.rmtree(self._partial, ignore_errors=True)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except (OSError, lmdb.Error) as error:
            raise writing_failed(self.path, error) from error


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != 'posix':
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
