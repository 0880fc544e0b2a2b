"""Cutting large images into overlapping sub-images, as BasicSR's ``extract_subimages.py`` does."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext import __version__
from basicsr_ext.data.pairing import found_template, pair_keys
from basicsr_ext.errors import UserError, first_of
from basicsr_ext.functional.digest import keys_digest
from basicsr_ext.prepare.jobs import check_workers
from basicsr_ext.prepare.output import Output
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.step import make_images
from basicsr_ext.prepare.stores import check_compress_level
from basicsr_ext.storage import ImageStore

GT, LQ = 'gt', 'lq'

# DIV2K's LR images carry the scale in their names. BasicSR takes it out, so that sub-images of HR and LR have one name.
_SCALE_AT_END = re.compile(r'x[2348]$')


def make_subimages(
    input: str | Path,
    output: str | Path,
    *,
    input_lq: str | Path | None = None,
    output_lq: str | Path | None = None,
    scale: int | None = None,
    filename_tmpl: str | None = None,
    size: int = 480,
    step: int = 240,
    threshold: int = 0,
    skip_small: bool = False,
    compress_level: int = 3,
    num_workers: int | None = None,
) -> int:
    """Cuts images into square sub-images; on demand HR and LR images together, so that pairs show the same place.

    A sub-image is named after its image, less an ``x2``, ``x3``, ``x4`` or ``x8`` at its end, with ``_s001`` and so on
    appended, row by row. Those of an LR image have the names of the HR image's.

    Args:
        input: Folder or store of images.
        output: A raw LMDB store where it ends in ``.lmdb``, else a folder of PNGs. It must not exist; it appears only
            when all sub-images are done.
        input_lq: Folder or store of the LR images, to be cut at the same places.
        output_lq: As ``output``, for sub-images of the LR images.
        scale: HR pixels per LR pixel. Images are cropped to a multiple of it first, at the right and the bottom, as LR
            images are made; ``None`` crops nothing.
        filename_tmpl: Name of an LR image with ``{}`` in place of the name of its HR image; ``None``: both have one name,
            but for an ``x2``, ``x3``, ``x4`` or ``x8`` at the end.
        size: Height and width of a sub-image, in pixels (of the HR images); with ``scale`` a multiple of it.
        step: Between neighbours, in pixels (of the HR images); with ``scale`` a multiple of it.
        threshold: A last row or column of sub-images, moved inward, is added where more pixels than this would be lost.
        skip_small: Leave images out that are smaller than a sub-image, and say on stderr which; else they are an error.
        compress_level: Of PNGs, 0 to 9.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Number of sub-images, or of pairs of them.

    Raises:
        UserError: An argument is out of range, an output exists, an image is damaged, images are too small (all of them
            are named), two images get one name, or HR and LR images are no pairs.
    """
    for name, value, smallest in (('size', size, 1), ('step', step, 1), ('threshold', threshold, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            raise UserError(f'--{name}: expected an integer of at least {smallest}, found {value!r}.')
    _check_scale(scale, size, step, input_lq, output_lq, filename_tmpl)
    if output_lq is not None and Path(output_lq).absolute() == Path(output).absolute():
        raise UserError(f'--output_lq: expected another path than --output, found {output_lq} for both.')
    check_compress_level(compress_level)
    num_workers = check_workers(num_workers)
    store = open_source(input)
    lq_store = None if input_lq is None else open_source(input_lq)
    partners = {} if lq_store is None else _find_partners(store, lq_store, filename_tmpl)
    cut = _Cut(store, lq_store, partners, scale or 1, size, step, threshold)
    if lq_store is not None:
        _check_sizes(cut)
    keys = _large_enough(cut, skip_small)
    _check_names(store, keys)
    record = {
        'kind': 'subimages', 'size': size, 'step': step, 'threshold': threshold, 'scale': scale, 'tool_version': __version__,
    }  # fmt: skip
    meta = {**record, 'source': Path(input).absolute().name}
    outputs = {GT: Output(Path(output), store.channels, store.dtype, compress_level=compress_level, meta=meta)}
    settings = {**record, **source_record(store)}
    if lq_store is not None:
        assert input_lq is not None and output_lq is not None
        meta = {**meta, 'source': Path(input_lq).absolute().name}
        lq = Output(Path(output_lq), lq_store.channels, lq_store.dtype, compress_level=compress_level, meta=meta)
        outputs = {LQ: lq, **outputs}
        settings.update(lq=source_record(lq_store), partners=keys_digest(list(partners.values())))
    for to in outputs.values():
        for read in filter(None, (store, lq_store)):
            to.check_apart_from(read)
    make_images(cut, keys, outputs, settings=settings, num_workers=num_workers, description='images')
    return sum(len(cut.corners(key)) for key in keys)


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
    """Cuts one image, or a pair; the fields are arguments of :func:`make_subimages`, with the inputs opened.

    ``partners`` has the LR image of each HR image, by key.
    """

    store: ImageStore
    lq_store: ImageStore | None
    partners: Mapping[str, str]
    scale: int
    size: int
    step: int
    threshold: int

    def __call__(self, key: str) -> dict[str, dict[str, np.ndarray]]:
        cut = {GT: self._windows(self.store.read(key), key, 1)}
        if self.lq_store is not None:
            cut[LQ] = self._windows(self.lq_store.read(self.partners[key]), key, self.scale)
        return cut

    def _windows(self, image: np.ndarray, key: str, divisor: int) -> dict[str, np.ndarray]:
        size = self.size // divisor
        return {
            f'{_base(key)}_s{number:03d}': image[top : top + size, left : left + size]
            for number, (top, left) in enumerate(np.array(self.corners(key)) // divisor, start=1)
        }

    def corners(self, key: str) -> list[tuple[int, int]]:
        """First row and column of the sub-images of an image, in its own pixels."""
        rows, columns = (subimage_starts(side, self.size, self.step, self.threshold) for side in self.extent(key))
        return [(top, left) for top in rows for left in columns]

    def extent(self, key: str) -> tuple[int, int]:
        """Height and width that are left of an image when it is cropped."""
        height, width = self.store.spec(key)[:2]
        return height - height % self.scale, width - width % self.scale


def _check_scale(
    scale: int | None,
    size: int,
    step: int,
    input_lq: str | Path | None,
    output_lq: str | Path | None,
    filename_tmpl: str | None,
) -> None:
    if (input_lq is None) != (output_lq is None):
        raise UserError('--input_lq and --output_lq: expected both or none.')
    if input_lq is None and filename_tmpl is not None:
        raise UserError('--filename_tmpl: this is for LR images, which --input_lq names.')
    if filename_tmpl is not None and filename_tmpl.count('{}') != 1:
        raise UserError(f'--filename_tmpl: expected {{}} once, such as "{{}}x4", found "{filename_tmpl}".')
    if scale is None:
        if input_lq is not None:
            raise UserError('--scale: expected HR pixels per LR pixel, which --input_lq needs, found none.')
        return
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise UserError(f'--scale: expected an integer of at least 1, found {scale!r}.')
    for name, value in (('size', size), ('step', step)):
        if value % scale:
            raise UserError(f'--{name}: expected a multiple of --scale, which is {scale}, found {value}.')


def _find_partners(store: ImageStore, lq_store: ImageStore, template: str | None) -> dict[str, str]:
    """HR key -> LR key."""
    keys, lq_keys = store.keys(), lq_store.keys()
    try:
        if template is not None:
            return dict(pair_keys(keys, lq_keys, template))
        lq_of = {_base(key): key for key in lq_keys}
        _check_names(store, keys)
        _check_names(lq_store, lq_keys)
        pairs = pair_keys([_base(key) for key in keys], list(lq_of), '{}')
        return {key: lq_of[base] for key, (_, base) in zip(keys, pairs, strict=True)}
    except UserError as error:
        better = found_template(keys, lq_keys)
        fits = better is not None and {better.replace('{}', key) for key in keys} <= set(lq_keys)
        hint = f' All names fit --filename_tmpl "{better}".' if fits else ''
        raise UserError(f'{lq_store.path} against {store.path}: {error}{hint}') from None


def _check_sizes(cut: _Cut) -> None:
    """Refuses LR images that are no pairs of their HR images."""
    assert cut.lq_store is not None
    wrong = []
    for key, partner in cut.partners.items():
        size, lq_size = cut.store.spec(key)[:2], cut.lq_store.spec(partner)[:2]
        if tuple(side // cut.scale for side in size) != tuple(lq_size):
            wrong.append(f'"{key}" is {_size(size)}, "{partner}" is {_size(lq_size)}')
    if wrong:
        raise UserError(
            f'{cut.lq_store.path}: {len(wrong)} of {len(cut.partners)} LR images are not {cut.scale} times smaller than their '
            f'HR images, as height x width: {first_of(wrong)}. Check --scale.'
        )


def _size(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]}'


def _large_enough(cut: _Cut, skip_small: bool) -> list[str]:
    """Keys of the images that hold a sub-image."""
    store = cut.store
    small = {key: None for key in store.keys() if min(cut.extent(key)) < cut.size}  # in order
    names = ', '.join(f'"{key}" ({_size(store.spec(key)[:2])})' for key in small)
    found = f'{store.path}: sub-images of size {cut.size} do not fit into {len(small)} of {len(store)} images: {names}'
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
