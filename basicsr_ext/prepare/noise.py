"""Collecting noise: windows of noisy images in which there is nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr_ext import __version__
from basicsr_ext.errors import UserError
from basicsr_ext.functional.noise_windows import BLOCKS, flat_windows
from basicsr_ext.prepare.jobs import check_workers
from basicsr_ext.prepare.output import KIND, Output
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.step import make_images
from basicsr_ext.storage import ImageStore, open_store


def make_noise(
    input: str | Path,
    output: str | Path,
    *,
    size: int = 64,
    least: float = 1.0,
    most: float = 20.0,
    flatness: float = 0.3,
    num_workers: int | None = None,
) -> int:
    """Makes a store of windows that show noise and nothing else; datasets subtract their means and add them.

    Args:
        input: Folder or store of noisy images.
        output: Raw LMDB store to write. A window is called ``<image>_<top>_<left>``.
        size: Height and width of a window in pixels.
        least: As of :func:`~basicsr_ext.functional.noise_windows.flat_windows`.
        most: As there.
        flatness: As there.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Number of windows.

    Raises:
        UserError: An argument is out of range, the output exists, an image is damaged, or no window is found.
    """
    if not isinstance(size, int) or size < 2 * BLOCKS:
        raise UserError(f'--size: expected an integer of at least {2 * BLOCKS}, found {size!r}.')
    if not 0 < least < most:
        raise UserError(f'--least and --most: expected two ascending positive numbers, found {least} and {most}.')
    if not flatness > 0:
        raise UserError(f'--flatness: expected a positive number, found {flatness}.')
    if Path(output).suffix != '.lmdb':
        raise UserError(f'--output: expected a path ending in .lmdb, found {output}.')
    num_workers = check_workers(num_workers)
    store = open_source(input)
    record = {
        'kind': 'noise', 'source': Path(input).absolute().name, 'size': size, 'least': least, 'most': most,
        'flatness': flatness, 'tool_version': __version__,
    }  # fmt: skip
    try:
        _make(store, Path(output), record, num_workers)
    except UserError as error:
        if 'no image was given' not in str(error):
            raise
        raise UserError(
            f'--input: {input} has no window of {size}x{size} pixels with noise alone; choose a smaller size, or a wider '
            'range of least and most, or more flatness.'
        ) from None
    return len(open_store(output))


def _make(store: ImageStore, output: Path, record: dict[str, Any], num_workers: int) -> None:
    make_images(
        _Cut(store, *(record[key] for key in ('size', 'least', 'most', 'flatness'))),
        store.keys(),
        {KIND: Output(output, store.channels, np.dtype(store.dtype), meta=record)},
        settings={**record, **source_record(store)},
        num_workers=num_workers,
        description='noise',
    )


class _Cut(NamedTuple):
    """Cuts one image; the fields are arguments of :func:`make_noise`."""

    store: ImageStore
    size: int
    least: float
    most: float
    flatness: float

    def __call__(self, key: str) -> dict[str, dict[str, np.ndarray]]:
        image = self.store.read(key)
        corners = flat_windows(image, self.size, self.least, self.most, self.flatness)
        return {
            KIND: {
                f'{key}_{top}_{left}': np.ascontiguousarray(image[top : top + self.size, left : left + self.size])
                for top, left in corners
            }
        }
