"""Putting a folder of images into a store."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.prepare.jobs import check_workers
from basicsr_ext.prepare.output import KIND, Output
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.step import make_images
from basicsr_ext.storage import FolderStore, ImageStore

LAYOUTS = ('raw', 'basicsr')


def make_store(
    input: str | Path,
    output: str | Path,
    *,
    layout: str = 'raw',
    channels: int | None = None,
    compress_level: int = 1,
    num_workers: int | None = None,
) -> int:
    """Puts images into an LMDB.

    Args:
        input: Folder of images, or a store in another layout.
        output: LMDB to write. It must not exist; it appears only when all images are in.
        layout: ``raw`` keeps pixels as they are; ``basicsr`` is BasicSR's own layout of PNGs.
        channels: 3 makes RGB of grey, 1 demands grey images, ``None`` takes 1 where all images are grey, else 3.
        compress_level: Of the PNGs in the layout ``basicsr``, 0 to 9.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Number of images.

    Raises:
        UserError: An argument is out of range, the output exists, an image is damaged, or the layout cannot hold it.
    """
    if layout not in LAYOUTS:
        raise UserError(f'--layout: expected one of {", ".join(LAYOUTS)}, found {layout!r}.')
    check_compress_level(compress_level)
    if Path(output).suffix != '.lmdb':
        raise UserError(f'--output: expected a path ending in .lmdb, found {output}.')
    num_workers = check_workers(num_workers)
    store = open_source(input, channels=channels)
    if store.channels == 1 and channels is None and isinstance(store, FolderStore):
        print('note: all images are grey, and so is the store. Networks in colour need --channels 3.', file=sys.stderr)
    target = Output(Path(output), store.channels, store.dtype, layout, compress_level, store.meta)
    make_images(
        partial(_copy, store),
        store.keys(),
        {KIND: target},
        settings={'command': 'lmdb', 'channels': store.channels, **source_record(store)},
        num_workers=num_workers,
        description='images',
    )
    return len(store)


def check_compress_level(level: int) -> None:
    """Refuses what is no compression level of PNG.

    Raises:
        UserError: It is not 0 to 9.
    """
    if level not in range(10):
        raise UserError(f'--compress_level: expected 0 to 9, found {level!r}.')


def _copy(store: ImageStore, key: str) -> dict[str, dict[str, np.ndarray]]:
    return {KIND: {key: store.read(key)}}
