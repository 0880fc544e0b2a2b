"""What datasets hold: opened as a run opens them; before a run only where that takes no long look at the disk."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from basicsr_ext.checking.dataset_building import make_with_clean_lists, not_made
from basicsr_ext.checking.meta_info import LISTS
from basicsr_ext.checking.networks import quiet
from basicsr_ext.checking.registries import origin
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.structure import phase_of
from basicsr_ext.errors import UserError
from basicsr_ext.files import open_file, read_file
from basicsr_ext.options.problems import KeyPath, brief
from basicsr_ext.storage.headers import HeaderError, read_header

_MANY = 10_000  # files; BasicSR compares every name with every other
_VERIFIED = 16  # images of each store
# The others of BasicSR's read images as soon as they are made, or give no reason to look.
_QUICK_STOCK = (
    'PairedImageDataset',
    'RealESRGANPairedDataset',
    'SingleImageDataset',
    'RealESRGANDataset',
    'FFHQDataset',
)
_PAIRED = ('PairedImageDataset', 'RealESRGANPairedDataset')
_INDEX_LINE = re.compile(r'(?P<name>.+\.\w+) \((?P<height>\d+),(?P<width>\d+)')


class Image(NamedTuple):
    """An image's name, and its height and width."""

    name: str
    size: tuple[int, int]


@dataclass
class Contents:
    """What a dataset holds.

    Attributes:
        dataset: The dataset.
        length: Number of its samples, before ``dataset_enlarge_ratio``.
        is_paired: Whether it is one of BasicSR's that cut GT and LQ images alike.
        smallest_gt: The GT image with the shortest side; ``None`` where none was looked at.
        mismatch: About the first pair whose sizes do not fit; ``None`` where all do. In validation a GT image may be larger,
            since BasicSR cuts off the rest, but not by another scale.
        channels: Of the images that it gives; ``None`` where that is not known.
        has_gt: Whether its samples have GT images.
    """

    dataset: Any
    length: int
    is_paired: bool = False
    smallest_gt: Image | None = None
    mismatch: str | None = None
    channels: int | None = None
    has_gt: bool = False


def open_contents(report: Report, name: str, dataset: type, thorough: bool = False) -> Contents | None:
    """Opens a dataset; notes a problem where it cannot be opened.

    Args:
        report: Takes the problem.
        name: Of the dataset's block.
        dataset: Its class.
        thorough: Open it even where that may take long.

    Returns:
        What it holds; ``None`` where it was not opened.
    """
    path = ('datasets', name)
    ours = origin(dataset) == 'ours' and hasattr(dataset, 'options_type')
    is_read = ours or (origin(dataset) == 'stock' and dataset.__name__ in _QUICK_STOCK)
    if not report.has_no_problems(*path) or not report.has_no_problems('scale'):
        return None
    if not thorough and not (is_read and _is_quick(report, path, nested=ours)):
        return None
    opened = open_dataset(report, name, dataset)
    if opened is None:
        return None
    if ours:
        _verify_some(report, path, opened)
    report.opened[name] = opened
    try:
        contents = Contents(
            opened,
            len(opened),
            is_paired=dataset.__name__ in _PAIRED and not ours,
            channels=_channels(opened, ours) if is_read else None,
            has_gt=report.get(*path, 'dataroot_gt') is not None or getattr(opened, 'gt_store', None) is not None,
        )
        if contents.length == 0:
            report.error(path, 'expected images, found none.')
            return None
        if contents.is_paired:
            _measure(contents, report, path)
            if phase_of(name) != 'train' and contents.mismatch is not None:
                report.error((*path, 'dataroot_lq'), contents.mismatch)
    except (OSError, ValueError, TypeError) as error:  # TypeError: somebody's dataset that does not tell its length
        report.error(path, f'{dataset.__name__} cannot be read ({brief(error)}).')
        return None
    return contents


def _verify_some(report: Report, path: KeyPath, dataset: Any) -> None:
    """Compares images of each store with their checksums: the same ones on every rank."""
    for source in dataset.sources.values():
        for key in random.Random(0).sample(source.keys, min(_VERIFIED, len(source.keys))):
            try:
                source.store.verify(key)
            except UserError as error:
                report.refused(path, UserError(f'{source.option}: {error}'))
                break


def open_dataset(report: Report, name: str, dataset: type) -> Any:
    """Makes a dataset as a run makes it; notes a problem where that fails."""
    path = ('datasets', name)
    options: dict[str, Any] = {**report.block(*path), 'phase': phase_of(name)}
    if 'scale' in report.values:
        options['scale'] = report.values['scale']
    for key, value in options.items():
        if isinstance(value, Mapping):
            options[key] = dict(value)  # BasicSR's datasets write into io_backend
        elif str(key).startswith(('dataroot', *LISTS)) and isinstance(value, str):
            options[key] = os.path.expanduser(value)
    try:
        with quiet():
            return make_with_clean_lists(dataset, options)
    except UserError as error:
        report.refused(path, error)
    except Exception as error:  # whatever a stock dataset makes of files that do not fit
        report.error(path, not_made(options, error))
    return None


def _channels(dataset: Any, ours: bool) -> int | None:
    if ours:
        return getattr(getattr(dataset, 'lq_store', None), 'channels', None)
    return 1 if dataset.opt.get('color') == 'y' else 3  # BasicSR reads all images as colour images


def _is_quick(report: Report, path: KeyPath, nested: bool) -> bool:
    folders = [
        value for where, value in report.paths.items() if where[:2] == path and str(where[-1]).startswith('dataroot')
    ]
    return all(_has_few_files(os.path.expanduser(folder), nested) for folder in folders)


def _has_few_files(folder: str, nested: bool) -> bool:
    if os.path.isfile(os.path.join(folder, 'data.mdb')):
        return True
    walk = os.walk(folder) if nested else islice(os.walk(folder), 1)  # BasicSR's look into no folders in there
    entries = (name for _, _, names in walk for name in names)
    return next(islice(entries, _MANY, None), None) is None


def _measure(contents: Contents, report: Report, path: KeyPath) -> None:
    scale = report.values.get('scale', 1)
    for name, gt, lq in _sizes(contents.dataset, report.get(*path, 'io_backend', 'type') == 'lmdb'):
        if contents.smallest_gt is None or (min(gt), name) < (
            min(contents.smallest_gt.size),
            contents.smallest_gt.name,
        ):
            contents.smallest_gt = Image(name, gt)
        # in validation BasicSR cuts off what a GT image has beyond its LQ image, but another scale is a mistake
        slack = 0 if phase_of(path[1]) == 'train' else min(lq) - 1
        fits = all(0 <= side - scale * low <= slack for side, low in zip(gt, lq, strict=True))
        if not fits and contents.mismatch is None:
            contents.mismatch = (
                f'expected LQ images {scale} times smaller than the GT images, but of {brief(name)} GT is '
                f'{gt[0]}x{gt[1]} and LQ {lq[0]}x{lq[1]}.'
            )


def _sizes(dataset: Any, is_lmdb: bool) -> Iterator[tuple[str, tuple[int, int], tuple[int, int]]]:
    """Name, GT size and LQ size of the pairs of one of BasicSR's paired datasets."""
    if is_lmdb:
        gt, lq = (_index(folder) for folder in (dataset.gt_folder, dataset.lq_folder))
        yield from ((key, gt[key], lq[key]) for key in gt if key in lq)
        return
    for pair in dataset.paths:
        sizes = [_size(pair[key]) for key in ('gt_path', 'lq_path')]
        if sizes[0] is not None and sizes[1] is not None:
            yield os.path.basename(pair['gt_path']), sizes[0], sizes[1]


def _size(file: str) -> tuple[int, int] | None:
    try:
        with open_file(file) as stream:
            return read_header(stream)[:2]
    except HeaderError:
        return None


def _index(folder: str) -> dict[str, tuple[int, int]]:
    lines = read_file(Path(folder, 'meta_info.txt')).decode().splitlines()
    matches = filter(None, map(_INDEX_LINE.match, lines))
    return {match['name'].split('.')[0]: (int(match['height']), int(match['width'])) for match in matches}
