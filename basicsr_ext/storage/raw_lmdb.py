"""An LMDB of uncompressed images as a store.

Layout of the directory ``name.lmdb``:

- ``data.mdb``: under an image's name in UTF-8 its pixels, an uncompressed little-endian array (height, width, channels) in
  C order.
- ``meta.json``: format name and version, dtype, channels, name -> [height, width] of every image, free-form information,
  name -> byte of data.mdb at which the pixels begin, and what LMDB says of the file for which those bytes hold.

The bytes are there because LMDB's Python binding touches every page of a value that it is asked for: all of a large image
would be read from the disk for its first window. With them a window is read without asking LMDB. Images that have none,
since they are smaller than a page and LMDB moves them, and files in which values lie elsewhere, since LMDB has copied and
compacted them, are read through LMDB, once for each image.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import IndexedStore
from basicsr_ext.storage.environment import shared_reader

FORMAT = 'basicsr_ext raw images'
VERSION = 2
INDEX_FILE = 'meta.json'
DTYPES = ('uint8', 'uint16', 'float32')


class RawLmdbStore(IndexedStore):
    """Uncompressed images; reading a window touches nothing but its rows.

    Args:
        path: The LMDB directory, as :class:`RawLmdbWriter` made it.

    Raises:
        UserError: There is no such store, it is of another kind, or it is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        folder = Path(path)
        index = _read_index(folder)
        sizes = {key: (height, width) for key, (height, width) in index['images'].items()}
        super().__init__(folder, sizes, index['channels'], np.dtype(index['dtype']), index['meta'])
        self._stored_dtype = self.dtype.newbyteorder('<')
        self._reader = shared_reader(folder)
        content = self._reader.content()
        # A compacted copy, in which values lie elsewhere, counts its transactions from one.
        as_written = index['file'] == self._reader.file_state() and index['file']['last_txnid'] > 1
        offsets = index['offsets'] if as_written else {}
        self._offsets: dict[str, int] = {key: offsets[key] for key in self._keys if key in offsets}
        if not all(0 <= first <= len(content) - self._nbytes(key) for key, first in self._offsets.items()):
            raise UserError(f'{folder / INDEX_FILE}: offsets do not lie in data.mdb. Make the LMDB again.')
        self._exceeds_memory = len(content) > _physical_memory() // 4

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
        first = self._offsets.get(key)
        if first is not None:
            return self._array(key, self._reader.content(), first)
        value = self._reader.view(key.encode())
        if value.nbytes != self._nbytes(key):
            raise UserError(
                f'{self.path}: image "{key}" has {value.nbytes} bytes, which do not make {tuple(self.spec(key)[:3])} of '
                f'{self.dtype}. Make the LMDB again.'
            )
        return self._array(key, value, 0)

    def _array(self, key: str, buffer: Any, first: int) -> np.ndarray:
        return np.ndarray(self.spec(key)[:3], self._stored_dtype, buffer, first).astype(self.dtype, copy=False)

    def _nbytes(self, key: str) -> int:
        return math.prod(self.spec(key)[:3]) * self.dtype.itemsize

    def _announce(self, places: Sequence[tuple[str, int, int]], height: int) -> None:
        """Lets the system read the rows of all windows at once, and nothing around them, before each is waited for."""
        content = self._reader.content()
        if not hasattr(mmap, 'MADV_WILLNEED'):
            return
        for key, top, _ in places:
            if key in self._offsets:
                row = self._nbytes(key) // self._sizes[key][0]
                first = self._offsets[key] + top * row
                page = first - first % mmap.PAGESIZE
                with suppress(OSError):  # a hint
                    content.madvise(mmap.MADV_WILLNEED, page, first + height * row - page)


def is_raw_lmdb(folder: Path) -> bool:
    """Whether the index beside data.mdb says that this is a raw LMDB, of whatever version."""
    try:
        index = json.loads((folder / INDEX_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get('format') == FORMAT


def _physical_memory() -> float:
    """Bytes of memory of this machine, as far as the system says."""
    try:
        return os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
    except (AttributeError, ValueError, OSError):
        return math.inf


def _read_index(folder: Path) -> dict[str, Any]:
    file = folder / INDEX_FILE
    try:
        index = json.loads(file.read_bytes())
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
    return index
