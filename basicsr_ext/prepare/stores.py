"""Putting a folder of images into a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tqdm import tqdm

from basicsr_ext.errors import UserError
from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter, open_store

LAYOUTS = ('raw', 'basicsr')


def make_store(
    input: str | Path,
    output: str | Path,
    *,
    layout: str = 'raw',
    channels: int | None = None,
    compress_level: int = 1,
) -> int:
    """Puts images into an LMDB.

    Args:
        input: Folder of images, or a store in another layout.
        output: LMDB to write. It must not exist; it appears only when all images are in.
        layout: ``raw`` keeps pixels as they are; ``basicsr`` is BasicSR's own layout of PNGs.
        channels: 3 makes RGB of grey, 1 demands grey images, ``None`` takes 1 where all images are grey, else 3.
        compress_level: Of the PNGs in the layout ``basicsr``, 0 to 9.

    Returns:
        Number of images.

    Raises:
        UserError: An argument is out of range, the output exists, an image is damaged, or the layout cannot hold it.
    """
    if layout not in LAYOUTS:
        raise UserError(f'layout: expected one of {", ".join(LAYOUTS)}, found {layout!r}.')
    if Path(output).suffix != '.lmdb':
        raise UserError(f'output: expected a path ending in .lmdb, found {output}.')
    store = open_store(input, channels=channels)
    keys = store.keys()
    if not keys:
        raise UserError(f'{input}: expected images, found none.')
    with _open_writer(output, layout, store.channels, store.dtype, compress_level) as writer:
        if isinstance(writer, RawLmdbWriter):
            writer.meta.update(store.meta)
        for key in tqdm(keys, desc='images', unit='image', disable=None):
            writer.put(key, store.read(key))
    return len(keys)


def _open_writer(
    output: str | Path, layout: str, channels: int, dtype: np.dtype, compress_level: int
) -> RawLmdbWriter | BasicSRLmdbWriter:
    if layout == 'raw':
        return RawLmdbWriter(output, channels=channels, dtype=dtype)
    if dtype.kind == 'f':
        raise UserError(f'layout: basicsr holds PNGs, which cannot hold {dtype}; choose raw.')
    return BasicSRLmdbWriter(output, compress_level=compress_level)
