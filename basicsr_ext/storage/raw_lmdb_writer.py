"""Making an LMDB of uncompressed images."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from basicsr_ext.errors import UserError
from basicsr_ext.storage.environment import file_state
from basicsr_ext.storage.lmdb_writer import LmdbWriter
from basicsr_ext.storage.raw_lmdb import DTYPES, FORMAT, INDEX_FILE, VERSION, checksum, trailer


class RawLmdbWriter(LmdbWriter):
    """Writes what :class:`RawLmdbStore` reads.

    Args:
        path: The LMDB directory to make; its name ends in ``.lmdb``.
        channels: 1 or 3, of every image.
        dtype: uint8, uint16 or float32, of every image.

    Attributes:
        meta: Free-form information to keep with the store: what JSON can hold, also NumPy values and paths.

    Raises:
        UserError: The name is wrong, something exists under it, or channels or dtype are not supported.
    """

    def __init__(self, path: str | Path, *, channels: int, dtype: DTypeLike) -> None:
        super().__init__(path)
        self._channels = channels
        self._dtype = np.dtype(dtype)
        self.meta: dict[str, Any] = {}
        self._checksums: dict[str, int] = {}
        self._offsets: dict[str, int] = {}
        self._file_state: dict[str, int] = {}
        if channels not in (1, 3):
            raise UserError(f'{self.path}: channels must be 1 or 3, found {channels!r}.')
        if self._dtype.name not in DTYPES:
            raise UserError(f'{self.path}: dtype must be one of {", ".join(DTYPES)}, found {self._dtype}.')

    def _check(self, key: str, image: np.ndarray) -> None:
        if image.shape[2] != self._channels or image.dtype != self._dtype:
            raise UserError(
                f'{self.path}: image "{key}": expected {self._channels} channels of {self._dtype}, found '
                f'{image.shape[2]} of {image.dtype}.'
            )

    def _encode(self, name: bytes, image: np.ndarray) -> bytes:
        pixels = np.ascontiguousarray(image, self._dtype.newbyteorder('<'))
        self._checksums[name.decode()] = checksum(pixels)
        return pixels.tobytes() + trailer(name)

    def _put_growing(self, name: bytes, value: bytes) -> None:
        assert self._environment is not None
        page_size = self._environment.stat()['psize']
        end = (file_state(self._environment)['last_pgno'] + 1) * page_size
        super()._put_growing(name, value)
        self._file_state = file_state(self._environment)
        if len(value) > page_size:  # smaller ones may lie inside LMDB's own pages, and move with them
            first = self._find(name, value, end, page_size)
            if first is not None:
                self._offsets[name.decode()] = first

    def _find(self, name: bytes, value: bytes, end: int, page_size: int) -> int | None:
        """Says where in data.mdb a new value lies: behind the former end, and a few pages of LMDB's own."""
        beginning, ending = value[:page_size], trailer(name)
        with open(self._partial / 'data.mdb', 'rb') as file:
            file.seek(end)
            added, place = file.read(16 * page_size), -1
            while (place := added.find(beginning, place + 1)) >= 0:
                file.seek(end + place + len(value) - len(ending))
                if file.read(len(ending)) == ending:
                    return end + place
        return None

    def _write_index(self, folder: Path) -> None:
        index = {
            'format': FORMAT,
            'version': VERSION,
            'dtype': self._dtype.name,
            'channels': self._channels,
            'meta': self.meta,
            'images': {key: shape[:2] for key, shape in self._shapes.items()},
            'crc32': self._checksums,
            'offsets': self._offsets,
            'file': self._file_state,
        }
        try:
            text = json.dumps(index, default=_plain)
        except (TypeError, ValueError) as error:
            raise UserError(f'{self.path}: meta must be what JSON can hold ({error}).') from error
        (folder / INDEX_FILE).write_text(text + '\n', encoding='ascii')


def _plain(value: Any) -> Any:
    """Makes JSON of NumPy values and paths."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f'{type(value).__name__} found')
