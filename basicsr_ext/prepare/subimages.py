"""Cutting large images into overlapping sub-images, as BasicSR's ``extract_subimages.py`` does."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext import __version__
from basicsr_ext.errors import UserError, first_of
from basicsr_ext.prepare.jobs import check_workers
from basicsr_ext.prepare.output import KIND, Output
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.step import make_images
from basicsr_ext.prepare.stores import check_compress_level
from basicsr_ext.storage import ImageStore

# DIV2K's LR images carry the scale in their names. BasicSR takes it out, so that sub-images of HR and LR have one name.
_SCALE_AT_END = re.compile(r'x[2348]$')


def make_subimages(
    input: str | Path,
    output: str | Path,
    *,
    size: int = 480,
    step: int = 240,
    threshold: int = 0,
    skip_small: bool = False,
    compress_level: int = 3,
    num_workers: int | None = None,
) -> int:
    """Cuts images into square sub-images.

    A sub-image is named after its image, less an ``x2``, ``x3``, ``x4`` or ``x8`` at its end, with ``_s001`` and so on
    appended, row by row.

    Args:
        input: Folder or store of images.
        output: A raw LMDB store where it ends in ``.lmdb``, else a folder of PNGs. It must not exist; it appears only
            when all sub-images are done.
        size: Height and width of a sub-image, in pixels.
        step: Between neighbours, in pixels.
        threshold: A last row or column of sub-images, moved inward, is added where more pixels than this would be lost.
        skip_small: Leave images out that are smaller than a sub-image, and say on stderr which; else they are an error.
        compress_level: Of PNGs, 0 to 9.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Number of sub-images.

    Raises:
        UserError: An argument is out of range, the output exists, an image is damaged, images are too small (all of them
            are named), or two images get one name.
    """
    for name, value, smallest in (('size', size, 1), ('step', step, 1), ('threshold', threshold, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise UserError(f'--{name}: expected an integer of at least {smallest}, found {value!r}.')
    check_compress_level(compress_level)
    num_workers = check_workers(num_workers)
    store = open_source(input)
    keys = _large_enough(store, size, skip_small)
    _check_names(store, keys)
    cut = _Cut(store, size, step, threshold)
    record = {'kind': 'subimages', 'size': size, 'step': step, 'threshold': threshold, 'tool_version': __version__}
    meta = {**record, 'source': Path(input).absolute().name}
    target = Output(Path(output), store.channels, store.dtype, compress_level=compress_level, meta=meta)
    make_images(
        cut,
        keys,
        {KIND: target},
        settings={**record, **source_record(store)},
        num_workers=num_workers,
        description='images',
    )
    return sum(cut.count(key) for key in keys)


def subimage_starts(length: int, size: int, step: int, threshold: int) -> list[int]:
    """First pixels of the sub-images along one axis.

    Args:
        length: Of the axis, at least ``size``.
        size: Of a sub-image.
        step: Between neighbours.
        threshold: One more is added at the end of the axis where more pixels than this would be lost.
    """
    starts = list(range(0, length - size + 1, step))
    if length - (starts[-1] + size) > threshold:
        starts.append(length - size)
    return starts


class _Cut(NamedTuple):
    """Cuts one image; the fields are arguments of :func:`make_subimages`."""

    store: ImageStore
    size: int
    step: int
    threshold: int

    def __call__(self, key: str) -> dict[str, dict[str, np.ndarray]]:
        image = self.store.read(key)
        windows = [(top, left) for top in self._starts(image.shape[0]) for left in self._starts(image.shape[1])]
        cut = {
            f'{_base(key)}_s{number:03d}': image[top : top + self.size, left : left + self.size]
            for number, (top, left) in enumerate(windows, start=1)
        }
        return {KIND: cut}

    def _starts(self, length: int) -> list[int]:
        return subimage_starts(length, self.size, self.step, self.threshold)

    def count(self, key: str) -> int:
        """Says how many sub-images an image has."""
        height, width = self.store.spec(key)[:2]
        return len(self._starts(height)) * len(self._starts(width))


def _large_enough(store: ImageStore, size: int, skip_small: bool) -> list[str]:
    """Keys of the images that hold a sub-image."""
    small = {key: None for key in store.keys() if min(store.spec(key)[:2]) < size}  # in order
    names = ', '.join(f'"{key}" ({store.spec(key).height}x{store.spec(key).width})' for key in small)
    found = f'{store.path}: sub-images of size {size} do not fit into {len(small)} of {len(store)} images: {names}'
    if small and not skip_small:
        raise UserError(f'{found}. Choose a smaller size, or leave these images out (--skip_small).')
    if len(small) == len(store):
        raise UserError(f'{found}. Choose a smaller size.')
    if small:
        print(f'note: {found}; they are left out.', file=sys.stderr)
    return [key for key in store.keys() if key not in small]


def _check_names(store: ImageStore, keys: Sequence[str]) -> None:
    """Refuses images whose sub-images would have the same names."""
    named = dict[str, list[str]]()
    for key in keys:
        named.setdefault(_base(key), []).append(key)
    same = [' and '.join(f'"{key}"' for key in group) for group in named.values() if len(group) > 1]
    if same:
        raise UserError(
            f'{store.path}: the sub-images of {first_of(same)} would have the same names: rename one, or keep the scales in '
            'folders of their own.'
        )


def _base(key: str) -> str:
    return _SCALE_AT_END.sub('', key)
