"""Finding out what kind of store lies at a path."""

from __future__ import annotations

from pathlib import Path

from basicsr_ext.errors import UserError
from basicsr_ext.files import expand_home
from basicsr_ext.storage.base import ImageStore
from basicsr_ext.storage.basicsr_lmdb import INDEX_FILE as BASICSR_INDEX_FILE
from basicsr_ext.storage.basicsr_lmdb import BasicSRLmdbStore
from basicsr_ext.storage.folder import FolderStore
from basicsr_ext.storage.lmdb_writer import PARTIAL_SUFFIX
from basicsr_ext.storage.raw_lmdb import INDEX_FILE as RAW_INDEX_FILE
from basicsr_ext.storage.raw_lmdb import RawLmdbStore, is_raw_lmdb


def open_store(path: str | Path, channels: int | None = None) -> ImageStore:
    """Opens the store at a path, whichever kind it is.

    Args:
        path: A folder of images, an LMDB that BasicSR made, or a raw LMDB.
        channels: 3 reads RGB and repeats grey, 1 demands grey images, ``None`` takes 1 where all images are grey, else
            3. A raw LMDB has its number of channels, and another one is refused.

    Raises:
        UserError: There is nothing at the path, it is none of the kinds, it is unfinished or damaged, or its images do
            not agree with each other or with ``channels``.
    """
    path = expand_home(path)
    if channels not in (None, 1, 3):
        raise UserError(f'{path}: channels must be 1 or 3, found {channels!r}.')
    _refuse_unfinished_and_missing(path)
    if not (path / 'data.mdb').is_file():
        if path.suffix == '.lmdb':
            raise UserError(f'{path}: expected an LMDB, but there is no data.mdb in it. Copy or make the LMDB again.')
        return FolderStore(path, channels)
    if is_raw_lmdb(path):
        store = RawLmdbStore(path)
        if channels not in (None, store.channels):
            raise UserError(
                f'{path}: expected images of {channels} channels, but this LMDB has {store.channels}. Make it again '
                f'with basicsr prepare lmdb --channels {channels}, or open another one.'
            )
        return store
    if (path / BASICSR_INDEX_FILE).is_file():
        return BasicSRLmdbStore(path, channels)
    raise UserError(
        f"{path}: this LMDB is neither BasicSR's (there is no {BASICSR_INDEX_FILE}) nor a raw one of this package "
        f'(there is no valid {RAW_INDEX_FILE}). Make it again.'
    )


def _refuse_unfinished_and_missing(path: Path) -> None:
    unfinished = (
        'an unfinished LMDB: making it was interrupted, or is still under way. Make it again; that replaces it.'
    )
    if path.name.endswith(PARTIAL_SUFFIX):
        raise UserError(f'{path}: {unfinished}')
    if path.is_dir():
        return
    if path.exists():
        raise UserError(f'{path}: expected a folder of images or an LMDB directory, found a file.')
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    if partial.exists():
        raise UserError(f'{path}: does not exist, but {partial.name} does: {unfinished}')
    raise UserError(f'{path}: expected a folder of images or an LMDB directory, and there is nothing.')
