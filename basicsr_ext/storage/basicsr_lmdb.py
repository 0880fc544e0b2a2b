"""BasicSR's LMDB of encoded images as a store.

Layout of the directory ``name.lmdb``: ``data.mdb`` (key -> image file, PNG) and ``meta_info.txt`` (lines such as
``0001_s001.png (480,480,3) 1``: name, shape, compression level).
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.files import read_file
from basicsr_ext.storage.base import IndexedStore, check_key
from basicsr_ext.storage.decoding import DecodingError, decode_window
from basicsr_ext.storage.environment import shared_reader
from basicsr_ext.storage.headers import HeaderError, ImageHeader, common_format, read_header

INDEX_FILE = 'meta_info.txt'
_INDEX_LINE = re.compile(r'(?P<key>.+)\.\w+ \((?P<height>\d+),(?P<width>\d+),(?P<channels>\d+)\)( \d+)?')
# PNG files from OpenCV have all that matters at their start; copying more than that would be waste.
_HEADER_BYTES = 1024


class DepthError(UserError):
    """An image has another depth than the first one.

    Attributes:
        bits: Of its channels.
    """

    bits = 0


class BasicSRLmdbStore(IndexedStore):
    """Images of an LMDB that BasicSR, or :class:`BasicSRLmdbWriter`, made. Every read decodes the whole image.

    Alpha is dropped. Images of 8 bits are read as uint8, of 16 bits as uint16; an LMDB must not mix them (an
    image that differs from the first is found when it is read).

    Args:
        path: The LMDB directory.
        channels: 3 reads RGB and repeats grey; 1 demands grey images; ``None`` takes 1 where all images are grey,
            else 3.

    Raises:
        UserError: There is no such LMDB, it is damaged, or an image is coloured where grey was demanded.
    """

    def __init__(self, path: str | Path, channels: int | None = None) -> None:
        folder = Path(path)
        shapes = _read_index(folder)
        self._reader = shared_reader(folder)
        # Asking every image for its depth would read the whole file, so the first speaks for all until they are read.
        self._first_key = min(shapes)
        with self._reader.reading() as get:
            depth = _header(get(self._first_key.encode()), f'{folder}: image "{self._first_key}"').bits
        self._headers = {key: ImageHeader(*shape, depth) for key, shape in shapes.items()}
        sizes = {key: header[:2] for key, header in self._headers.items()}
        super().__init__(folder, sizes, *common_format(self._headers, channels, folder))

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        where = f'{self.path}: image "{key}"'
        with self._reader.reading() as get:
            value = get(key.encode())
            self._compare(key, _header(value, where))
            try:
                return decode_window(np.frombuffer(value, np.uint8), self.spec(key), top, left, height, width)
            except DecodingError as error:
                raise UserError(f'{where}: {error} Make the LMDB again.') from error

    def _compare(self, key: str, found: ImageHeader) -> None:
        """Refuses an image that is not what the first image and meta_info.txt promise; grey for colour is harmless."""
        expected = self._headers[key]
        if found.bits != expected.bits:
            error = DepthError(
                f'{self.path}: all images of a set must have the same depth, but "{self._first_key}" has '
                f'{expected.bits} bits a channel and "{key}" has {found.bits}. Convert some, or make two LMDBs.'
            )
            error.bits = found.bits
            raise error
        if found[:2] != expected[:2] or found.channels > expected.channels:
            raise UserError(
                f'{self.path}: {INDEX_FILE} says that image "{key}" has {expected[:3]} rows, columns and channels, but '
                f'it has {found[:3]}. Make the LMDB again.'
            )


def _header(value: memoryview, where: str) -> ImageHeader:
    try:
        return read_header(io.BytesIO(value[:_HEADER_BYTES]))
    except HeaderError:
        pass
    try:
        return read_header(io.BytesIO(value))
    except HeaderError as error:
        raise UserError(f'{where}: {error} Make the LMDB again.') from error


def _read_index(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Reads meta_info.txt: key -> (height, width, channels without alpha)."""
    file = folder / INDEX_FILE
    try:
        lines = read_file(file).decode().splitlines()
    except OSError as error:
        raise UserError(
            f"{file}: expected the index of BasicSR's LMDB, which cannot be read: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f'{file}: expected UTF-8 text ({error}). Make the LMDB again.') from error
    shapes: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        match = _INDEX_LINE.fullmatch(line.strip())
        if match is None:
            raise UserError(
                f'{file}: line {number}: expected "name.png (height,width,channels) level", found "{line}".'
            )
        check_key(match['key'], f'{file}: line {number}')
        channels = 1 if match['channels'] == '1' else 3
        shapes[match['key']] = (int(match['height']), int(match['width']), channels)
    if not shapes:
        raise UserError(f'{file}: lists no images. Make the LMDB again.')
    return shapes
