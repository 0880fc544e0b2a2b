"""Whether image files carry transparency, which no step keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from basicsr_ext.files import open_file, read_file
from basicsr_ext.storage.base import ImageStore
from basicsr_ext.storage.basicsr_lmdb import INDEX_FILE, BasicSRLmdbStore
from basicsr_ext.storage.folder import FolderStore

_PNG = b'\x89PNG'
_OF_FOUR_CHANNELS = re.compile(r'(?P<key>.+)\.\w+ \(\d+,\d+,4\)( \d+)?')


def has_alpha(stream: BinaryIO) -> bool:
    """Reads the header of a PNG or WebP image; other kinds have no alpha, or are refused with it.

    Args:
        stream: The image, from its first byte.
    """
    start = stream.read(4)
    stream.seek(0)
    if start not in (_PNG, b'RIFF'):
        return False
    try:
        image = PngImageFile(stream) if start == _PNG else WebPImageFile(stream)
    except Exception:  # damaged, in whichever way: that is found elsewhere
        return False
    return image.mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info


def keys_with_alpha(store: ImageStore) -> list[str]:
    """Finds the images of a set that are more than what is read of them.

    Args:
        store: Folder of files, whose headers are read; or BasicSR's LMDB, whose index says it; other stores hold no alpha.
    """
    if isinstance(store, FolderStore):
        return [key for key in store.keys() if _file_has(store.file(key))]
    if isinstance(store, BasicSRLmdbStore):
        lines = read_file(store.path / INDEX_FILE).decode().splitlines()
        return [match['key'] for line in lines if (match := _OF_FOUR_CHANNELS.fullmatch(line.strip()))]
    return []


def _file_has(file: Path) -> bool:
    try:
        with open_file(file) as stream:
            return has_alpha(stream)
    except OSError:
        return False
