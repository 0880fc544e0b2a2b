"""An LMDB of uncompressed images as a store.

Layout of the directory ``name.lmdb``:

- ``data.mdb``: an image is a number of stripes of 128 rows (the last may have fewer), each an uncompressed little-endian
  array (rows, width, channels) in C order. The key of a stripe is the image's name in UTF-8, a zero byte, and the
  number of its first row as four bytes, the most significant first.
- ``meta.json``: format name and version, rows of a stripe, dtype, channels, name -> [height, width] of every image, and
  free-form information.

Stripes, because LMDB's Python binding touches every page of a value that it is asked for: with an image of 8 MB as one
value, the first window of 0.1 MB would read all of it from the disk. From then on the stripes are known, and a window is
read without asking LMDB, the faster the fewer stripes it crosses.
"""

from __future__ import annotations

import json
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
STRIPE_ROWS = 128
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
        self._stored_dtype = self.dtype.newbyteorder('<')
        self._reader = shared_reader(folder)

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        return np.concatenate(self.strips(key, top, left, height, width))

    def strips(self, key: str, top: int, left: int, height: int, width: int) -> Sequence[np.ndarray]:
        # Looking a stripe up takes longer than copying a crop, so those that were looked up are kept.
        kept, rows, bottom, right = self._reader.kept, self._stripe_rows, top + height, left + width
        stripes = kept.get(key)
        if stripes is None:
            stripes = kept[key] = [None] * -(-self._sizes[key][0] // rows)
        strips = []
        for number in range(top // rows, (bottom - 1) // rows + 1):
            first_row = number * rows
            stripe = stripes[number]
            if stripe is None:
                stripe = stripes[number] = self._look_up(key, first_row)
            strips.append(stripe[max(top - first_row, 0) : bottom - first_row, left:right])
        return strips

    def _look_up(self, key: str, first_row: int) -> np.ndarray:
        """Makes an array of a stripe: a view, which copies nothing."""
        height, width = self._sizes[key]
        shape = (min(self._stripe_rows, height - first_row), width, self.channels)
        value = self._reader.view(stripe_key(key.encode(), first_row))
        if value.nbytes != shape[0] * shape[1] * shape[2] * self.dtype.itemsize:
            raise UserError(
                f'{self.path}: rows {first_row} and following of image "{key}" have {value.nbytes} bytes, which do not '
                f'make {shape} of {self.dtype}. Make the LMDB again.'
            )
        return np.ndarray(shape, self._stored_dtype, value).astype(self.dtype, copy=False)


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
