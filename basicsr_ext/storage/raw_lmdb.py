"""An LMDB of uncompressed images as a store.

Layout of the directory ``name.lmdb``:

- ``data.mdb``: an image is a number of stripes of 64 rows (the last may have fewer), each an uncompressed little-endian
  array (rows, width, channels) in C order. The key of a stripe is the image's name in UTF-8, a zero byte, and the
  number of its first row as four bytes, the most significant first.
- ``meta.json``: format name and version, rows of a stripe, dtype, channels, name -> [height, width] of every image, and
  free-form information.

Stripes, because LMDB's Python binding touches every page of a value that it is asked for: with an image of 8 MB as one
value, a window of 0.1 MB would read all of it from the disk.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import IndexedStore
from basicsr_ext.storage.environment import shared_reader

FORMAT = 'basicsr_ext raw images'
VERSION = 1
INDEX_FILE = 'meta.json'
STRIPE_ROWS = 64
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
        bottom = top + height
        window = np.empty((height, width, self.channels), self.dtype)
        with self._reader.reading() as get:
            for first_row in range(top - top % self._stripe_rows, bottom, self._stripe_rows):
                stripe = self._stripe(key, first_row, get(stripe_key(key.encode(), first_row)))
                start, stop = max(top, first_row), min(bottom, first_row + len(stripe))
                window[start - top : stop - top] = stripe[start - first_row : stop - first_row, left : left + width]
        return window

    def _stripe(self, key: str, first_row: int, value: memoryview) -> np.ndarray:
        """Makes an array of a value: a view, which costs nothing."""
        height, width = self._sizes[key]
        shape = (min(self._stripe_rows, height - first_row), width, self.channels)
        if value.nbytes != shape[0] * shape[1] * shape[2] * self.dtype.itemsize:
            raise UserError(
                f'{self.path}: rows {first_row} and following of image "{key}" have {value.nbytes} bytes, which do not '
                f'make {shape} of {self.dtype}. Make the LMDB again.'
            )
        return np.ndarray(shape, self._stored_dtype, value)


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
