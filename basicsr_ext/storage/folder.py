"""A folder of image files as a store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.files import open_file, read_file
from basicsr_ext.storage.base import IndexedStore
from basicsr_ext.storage.decoding import DecodingError, decode_window
from basicsr_ext.storage.headers import HeaderError, ImageHeader, common_format, read_header

EXTENSIONS = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
# Reading headers waits for the disk, above all on network file systems.
_SCANNING_THREADS = 8
_FILES_AT_ONCE = 64  # of a thread: to hand one over takes as long as to read a header


class FolderStore(IndexedStore):
    """All images in a folder and its subfolders.

    A key is the path below the folder, with slashes and without extension. Hidden files and folders are left out; links
    are followed. Alpha is dropped. Images of 8 bits are read as uint8, of 16 bits as uint16; a set must not mix them.
    An orientation that an image carries is obeyed, as BasicSR does. Every read decodes the whole image.

    Args:
        path: The folder.
        channels: 3 reads RGB and repeats grey; 1 demands grey images; ``None`` takes 1 where all images are grey,
            else 3.

    Raises:
        UserError: No images there, two files with the same key, an unreadable header, 8 and 16 bits mixed, or a
            coloured image where grey was demanded.
    """

    def __init__(self, path: str | Path, channels: int | None = None) -> None:
        folder = Path(path)
        self._files = find_images(folder)
        files = list(self._files.values())
        parts = [files[first : first + _FILES_AT_ONCE] for first in range(0, len(files), _FILES_AT_ONCE)]
        with ThreadPoolExecutor(_SCANNING_THREADS) as pool:
            scanned = pool.map(lambda part: [_file_header(os.path.join(folder, file)) for file in part], parts)
            headers = dict(zip(self._files, chain.from_iterable(scanned), strict=True))
        sizes = {key: (header.height, header.width) for key, header in headers.items()}
        super().__init__(folder, sizes, *common_format(headers, channels, folder))

    def file(self, key: str) -> Path:
        """The file of an image."""
        return self.path / self._files[key]

    def marks(self, keys: Sequence[str]) -> list[str]:
        try:
            return [f'bytes {os.stat(os.path.join(self.path, self._files[key])).st_size}' for key in keys]
        except OSError as error:
            raise UserError(f'{error.filename}: cannot be read: {error.strerror}.') from error

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        file = self.file(key)
        try:
            encoded = np.frombuffer(read_file(file), np.uint8)
            return decode_window(encoded, self.spec(key), top, left, height, width)
        except OSError as error:
            raise UserError(f'{file}: image "{key}" cannot be read: {error.strerror}.') from error
        except DecodingError as error:
            raise UserError(f'{file}: image "{key}": {error} Replace the file.') from error


def find_images(folder: Path) -> dict[str, str]:
    """Finds the images: key -> path below the folder.

    Raises:
        UserError: There are none, or two have the same key.
    """
    files: dict[str, str] = {}
    for file in list_images(folder):
        key = os.path.splitext(file)[0]
        if key in files:
            raise UserError(f'{folder}: "{files[key]}" and "{file}" have the same key "{key}"; rename or move one.')
        files[key] = file
    return files


def list_images(folder: Path) -> list[str]:
    """Gives the paths of the images below the folder, sorted.

    Raises:
        UserError: There are none.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: expected a folder of images, and there is no such folder.')
    try:
        found = sorted(_walk(folder))
    except OSError as error:
        raise UserError(f'{error.filename}: this folder cannot be read: {error.strerror}.') from error
    if not found:
        known = ', '.join(extension[1:] for extension in EXTENSIONS)
        raise UserError(f'{folder}: expected images ({known}) in this folder or its subfolders, and found none.')
    return found


def _walk(folder: str | Path, prefix: str = '', above: frozenset[str] = frozenset()) -> Iterator[str]:
    """Yields the paths of all images below a folder, with slashes; links to a folder above are left out."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith('.'):
                continue
            if entry.is_dir():
                yield from _walk(entry.path, f'{prefix}{entry.name}/', above | {real})
            elif entry.name.lower().endswith(EXTENSIONS):
                yield prefix + entry.name


def _file_header(file: str) -> ImageHeader:
    try:
        with open_file(file) as stream:
            return read_header(stream)
    except OSError as error:
        raise UserError(f'{file}: cannot be read: {error.strerror}.') from error
    except HeaderError as error:
        raise UserError(f'{file}: {error} Replace or remove the file.') from error
