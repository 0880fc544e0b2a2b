"""An LMDB of uncompressed images as a store.

Layout of the directory ``name.lmdb``:

- ``data.mdb``: under an image's name in UTF-8 its pixels, an uncompressed little-endian array (height, width, channels) in
  C order, and behind them that name and a zero byte.
- ``meta.json``: format name and version, dtype, channels, name -> [height, width] of every image, free-form information,
  name -> byte of data.mdb at which the pixels begin, and what LMDB says of the file for which those bytes hold; and name ->
  crc32 of the pixels' bytes, which stores of earlier versions of this package lack.

The bytes are there because LMDB's Python binding touches every page of a value that it is asked for: all of a large image
would be read from the disk for its first window. With them a window is read without asking LMDB. Images that have none,
since they are smaller than a page and LMDB moves them, and those behind which another name stands, since the file is
another or LMDB has copied and compacted it, are read through LMDB, once for each image.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.files import open_file, read_file
from basicsr_ext.storage.base import IndexedStore
from basicsr_ext.storage.environment import shared_reader

FORMAT = 'basicsr_ext raw images'
VERSION = 2
INDEX_FILE = 'meta.json'
DTYPES = ('uint8', 'uint16', 'float32')
_HEAD = f'{{"format": "{FORMAT}",'.encode()  # how the index begins, as the writer writes it


class RawLmdbStore(IndexedStore):
    """Uncompressed images; reading a window touches nothing but its rows.

    Args:
        path: The LMDB directory, as :class:`RawLmdbWriter` made it.

    Attributes:
        checksums: Key -> crc32 of the image's bytes; empty where the store has none.

    Raises:
        UserError: There is no such store, it is of another kind, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        index = _read_index(folder)
        sizes = {key: (height, width) for key, (height, width) in index['images'].items()}
        super().__init__(folder, sizes, index['channels'], np.dtype(index['dtype']), index['meta'])
        self.checksums: dict[str, int] = index.get('crc32', {})
        self._stored_dtype = self.dtype.newbyteorder('<')
        self._reader = shared_reader(folder)
        # A file that was written to since may hold former values, with their names.
        self._offsets: dict[str, int] = index['offsets'] if index['file'] == self._reader.file_state() else {}
        self._exceeds_memory = len(self._reader.content()) > _physical_memory() // 4

    def __reduce__(self) -> tuple[type[RawLmdbStore], tuple[Path]]:
        return type(self), (self.path,)  # a store that was made anew meanwhile has other offsets

    def verify(self, key: str) -> None:
        if not self.checksums:
            return
        if key not in self.checksums:
            raise UserError(f'{self.path}: the index lacks the checksum of image "{key}". Copy or make the LMDB again.')
        expected = self.checksums[key]
        found = checksum(self._image(key).astype(self._stored_dtype, copy=False))
        if found != expected:
            raise UserError(
                f'{self.path}: image "{key}": its pixels are not those that were stored (crc32 {found:08x}, expected '
                f'{expected:08x}). Copy or make the LMDB again.'
            )

    def marks(self, keys: Sequence[str]) -> list[str]:
        return [f'crc32 {self.checksums[key]}' if key in self.checksums else '' for key in keys]

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        (window,) = self.windows([(key, top, left)], height, width)
        return window.copy()

    def windows(self, places: Sequence[tuple[str, int, int]], height: int, width: int) -> list[np.ndarray]:
        # Looking an image up takes longer than copying a crop, so those that were looked up are kept.
        kept = self._reader.kept
        unknown = [place for place in places if place[0] not in kept]
        if unknown or self._exceeds_memory:
            self._announce(places if self._exceeds_memory else unknown, height)
        for key, _, _ in unknown:
            kept[key] = self._image(key)
        return [kept[key][top : top + height, left : left + width] for key, top, left in places]

    def _image(self, key: str) -> np.ndarray:
        """Makes an array of an image: a view, which copies nothing."""
        first, content, ending = self._offsets.get(key), self._reader.content(), trailer(key.encode())
        *shape, dtype = self.spec(key)
        end = (first or 0) + self._nbytes(key)
        if first is not None and content[end : end + len(ending)] == ending:
            array = np.ndarray(shape, self._stored_dtype, content, first)
        else:
            array = np.ndarray(shape, self._stored_dtype, self._value(key))
        return array.astype(dtype, copy=False)

    def _value(self, key: str) -> memoryview:
        """Asks LMDB for an image."""
        value = self._reader.view(key.encode())
        found = value.nbytes - len(trailer(key.encode()))
        if found != self._nbytes(key):
            *shape, dtype = self.spec(key)
            raise UserError(
                f'{self.path}: image "{key}" has {found} bytes, which do not make {tuple(shape)} of {dtype}. Make the LMDB '
                'again.'
            )
        return value

    def _nbytes(self, key: str) -> int:
        height, width = self._sizes[key]
        return height * width * self.channels * self.dtype.itemsize

    def _announce(self, places: Sequence[tuple[str, int, int]], height: int) -> None:
        """Lets the system read the rows of all windows at once, and nothing around them, before each is waited for."""
        if not hasattr(mmap, 'MADV_WILLNEED'):
            return
        for key, top, _ in places:
            if key in self._offsets:
                size = self._nbytes(key)
                row = size // self._sizes[key][0]
                self._announce_bytes(self._offsets[key] + top * row, height * row)
                if key not in self._reader.kept:
                    self._announce_bytes(self._offsets[key] + size, 1)  # the name

    def _announce_bytes(self, first: int, size: int) -> None:
        page = first - first % mmap.PAGESIZE
        with suppress(OSError, ValueError):  # a hint; a wrong place is noticed later
            self._reader.content().madvise(mmap.MADV_WILLNEED, page, first + size - page)


def is_raw_lmdb(folder: Path) -> bool:
    """Whether the index beside data.mdb says that this is a raw LMDB, of whatever version."""
    try:
        with open_file(folder / INDEX_FILE) as file:
            if file.read(len(_HEAD)) == _HEAD:
                return True  # as it is written; the rest is megabytes, and read when the store is opened
        index = json.loads(read_file(folder / INDEX_FILE))
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get('format') == FORMAT


def _physical_memory() -> float:
    """Bytes of memory of this machine, as far as the system says."""
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return math.inf


def checksum(image: np.ndarray) -> int:
    """The crc32 of an image's bytes as they are stored."""
    return zlib.crc32(np.ascontiguousarray(image).data)


def trailer(name: bytes) -> bytes:
    """What stands behind the pixels of an image, and shows that they are its own."""
    return name + b'\0'


def _read_index(folder: Path) -> dict[str, Any]:
    file = folder / INDEX_FILE
    try:
        index = json.loads(read_file(file))
    except OSError as error:
        raise UserError(f'{file}: expected the index of a raw LMDB, which cannot be read: {error.strerror}.') from error
    except ValueError as error:
        raise UserError(f'{file}: damaged index ({error}). Make the LMDB again.') from error
    if not isinstance(index, dict) or index.get('format') != FORMAT:
        raise UserError(f'{file}: expected the index of a raw LMDB (format "{FORMAT}"), found something else.')
    if index.get('version') != VERSION:
        raise UserError(
            f'{file}: expected version {VERSION} of the format, found {index.get("version")}. Make the LMDB again, or '
            'use the version of this package that made it.'
        )
    if wrong := _wrong_entry(index):
        raise UserError(f'{file}: damaged index ("{wrong}" is missing or wrong). Make the LMDB again.')
    return index


def _wrong_entry(index: dict[str, Any]) -> str | None:
    def is_size(value: Any) -> bool:
        if not isinstance(value, list) or len(value) != 2:
            return False
        height, width = value
        return type(height) is int and type(width) is int and height > 0 and width > 0

    def is_table(value: Any, fits: Callable[[Any], bool]) -> bool:
        return isinstance(value, dict) and all(map(fits, value.values()))

    checks: dict[str, Callable[[Any], bool]] = {
        'dtype': lambda value: value in DTYPES,
        'channels': lambda value: value in (1, 3),
        'meta': lambda value: isinstance(value, dict),
        'images': lambda value: bool(value) and is_table(value, is_size),
        'offsets': lambda value: is_table(value, lambda first: type(first) is int and first >= 0),
        'file': lambda value: isinstance(value, dict),
    }
    if 'crc32' in index:
        checks['crc32'] = lambda value: is_table(value, lambda checksum: type(checksum) is int)
    return next((name for name, fits in checks.items() if not fits(index.get(name))), None)
