"""An LMDB of uncompressed images as a store.

Layout of the directory ``name.lmdb``:

- ``data.mdb``: an image is a number of stripes of 512 rows (the last may have fewer), each an uncompressed little-endian
  array (rows, width, channels) in C order. The key of a stripe is the image's name in UTF-8, a zero byte, and the
  number of its first row as four bytes, the most significant first.
- ``meta.json``: format name and version, rows of a stripe, dtype, channels, name -> [height, width] of every image,
  name -> byte of data.mdb behind which its stripes lie in order (a hint, which may be missing), and free-form information.

Stripes, because LMDB's Python binding touches every page of a value that it is asked for, once: an image of any height
as one value would be read from the disk for its first window. From then on the stripes are known, and a window is read
without asking LMDB; it is copied once more where it crosses stripes.
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import IndexedStore
from basicsr_ext.storage.environment import shared_reader

FORMAT = 'basicsr_ext raw images'
VERSION = 1
INDEX_FILE = 'meta.json'
STRIPE_ROWS = 512
DTYPES = ('uint8', 'uint16', 'float32')


class RawLmdbStore(IndexedStore):
    """Uncompressed images; reading a window touches nothing but the stripes that it crosses.

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
        self._stripe_rows = index['stripe_rows']
        self._offsets = index.get('offsets', {})
        self._stored_dtype = self.dtype.newbyteorder('<')
        self._reader = shared_reader(folder)

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        return np.concatenate(self._strips(key, top, left, height, width))

    def windows(self, places: Sequence[tuple[str, int, int]], height: int, width: int) -> list[np.ndarray]:
        # Looking a stripe up takes longer than copying a crop, so those that were looked up are kept.
        kept, rows, announced = self._reader.kept, self._stripe_rows, False
        windows = []
        for key, top, left in places:
            number = top // rows
            first = top - number * rows
            stripe = kept.get((key, number))
            if stripe is not None and first + height <= rows:
                windows.append(stripe[first : first + height, left : left + width])
                continue
            if stripe is None and not announced:
                self._announce(places, height)
                announced = True
            strips = self._strips(key, top, left, height, width)
            windows.append(strips[0] if len(strips) == 1 else np.concatenate(strips))
        return windows

    def _strips(self, key: str, top: int, left: int, height: int, width: int) -> list[np.ndarray]:
        """Gives a window as views on the stripes that it crosses."""
        kept, strips = self._reader.kept, []
        for number in self._crossed(top, height):
            stripe = kept.get((key, number))
            if stripe is None:
                stripe = kept[key, number] = self._look_up(key, number)
            first_row = number * self._stripe_rows
            strips.append(stripe[max(top - first_row, 0) : top + height - first_row, left : left + width])
        return strips

    def _look_up(self, key: str, number: int) -> np.ndarray:
        """Makes an array of a stripe: a view, which copies nothing."""
        shape = self._shape(key, number)
        value = self._reader.view(stripe_key(key.encode(), number * self._stripe_rows))
        if value.nbytes != math.prod(shape) * self.dtype.itemsize:
            raise UserError(
                f'{self.path}: rows {number * self._stripe_rows} and following of image "{key}" have {value.nbytes} bytes, '
                f'which do not make {shape} of {self.dtype}. Make the LMDB again.'
            )
        return np.ndarray(shape, self._stored_dtype, value).astype(self.dtype, copy=False)

    def _announce(self, places: Sequence[tuple[str, int, int]], height: int) -> None:
        """Lets the system read all stripes of new windows at once, before each is waited for."""
        ranges = []
        for key, top, _ in places:
            for number in self._crossed(top, height):
                if key in self._offsets and (key, number) not in self._reader.kept:
                    size, before = (math.prod(self._shape(key, n)) * self.dtype.itemsize for n in (number, 0))
                    # LMDB begins each stripe on a page, and puts some pages of its own before the first.
                    slack = (number + 4) * mmap.PAGESIZE
                    ranges.append((self._offsets[key] + number * before, size + slack))
        self._reader.announce(ranges)

    def _crossed(self, top: int, height: int) -> range:
        """Numbers of the stripes that a window crosses."""
        return range(top // self._stripe_rows, (top + height - 1) // self._stripe_rows + 1)

    def _shape(self, key: str, number: int) -> tuple[int, int, int]:
        height, width = self._sizes[key]
        return min(self._stripe_rows, height - number * self._stripe_rows), width, self.channels


def stripe_key(name: bytes, first_row: int) -> bytes:
    """Names a stripe of an image in data.mdb."""
    return name + b'\0' + struct.pack('>I', first_row)


def is_raw_lmdb(folder: Path) -> bool:
    """Whether the index beside data.mdb says that this is a raw LMDB, of whatever version."""
    try:
        index = json.loads((folder / INDEX_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(index, dict) and index.get('format') == FORMAT


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
