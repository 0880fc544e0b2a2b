"""Which images belong together, and the checks that they do; every message names the first offending images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import ImageStore

_NAMED = 3


class Source(NamedTuple):
    """Where one of the images of a sample comes from.

    Attributes:
        option: The option that gives the store, such as ``datasets.train.dataroot_gt``; for messages.
        store: The store.
        keys: Key of each image of the dataset, in the dataset's order.
        scale: Pixels of this image along each side per LQ pixel.
        surplus: Pixels that the image may have beyond ``scale`` times the LQ size, at the right and the bottom.
    """

    option: str
    store: ImageStore
    keys: Sequence[str]
    scale: int
    surplus: int = 0

    def __str__(self) -> str:
        return f'{self.option} ({self.store.path})'


def pair_keys(gt: Sequence[str], lq: Sequence[str], template: str) -> list[tuple[str, str]]:
    """Pairs GT keys with LQ keys.

    Args:
        gt: All keys of the GT images.
        lq: All keys of the LQ images.
        template: The LQ key with ``{}`` in place of the GT key.

    Returns:
        (GT key, LQ key) in the order of ``gt``.

    Raises:
        UserError: An image has no partner. The message says which images; the caller adds which options.
    """
    pairs = [(key, template.format(key)) for key in gt]
    wanted, present = {key for _, key in pairs}, set(lq)
    problems = []
    if missing := [key for _, key in pairs if key not in present]:
        problems.append(f'{len(missing)} of {len(gt)} GT images have no LQ image; not found: {_some(missing)}.')
    if extra := [key for key in lq if key not in wanted]:
        problems.append(f'{len(extra)} of {len(lq)} LQ images have no GT image: {_some(extra)}.')
    if problems:
        raise UserError(' '.join(problems))
    return pairs


def found_template(gt: Sequence[str], lq: Sequence[str], template: str = '{}') -> str | None:
    """Finds a template under which more GT images have an LQ image than under a given one.

    Args:
        gt: All keys of the GT images.
        lq: All keys of the LQ images.
        template: The LQ key with ``{}`` in place of the GT key.

    Returns:
        The template that most pairs fit, such as ``{}x4``; ``None`` where none is better.
    """
    present = set(lq)

    def pairs(candidate: str) -> int:
        return sum(candidate.replace('{}', key) in present for key in gt)

    stems = sorted(gt, key=len)[-_NAMED:]  # long names are found in few others
    candidates = (key.replace(stem, '{}', 1) for stem in stems for key in lq if stem in key and '{' not in key)
    best = max(islice(dict.fromkeys(candidates), 100), key=pairs, default=template)
    return best if pairs(best) > pairs(template) else None


def matching_keys(found: Sequence[str], candidates: Iterable[Sequence[str]]) -> list[str]:
    """Finds which of several key lists a store's keys are.

    Args:
        found: All keys of the store.
        candidates: Key lists in the dataset's order; messages compare with the first of them.

    Returns:
        The first candidate with the same keys as ``found``.

    Raises:
        UserError: None has the same keys. The message says which images; the caller adds which options.
    """
    candidates = [list(candidate) for candidate in candidates]
    present = set(found)
    for candidate in candidates:
        if set(candidate) == present:
            return candidate
    wanted = candidates[0]
    problems = []
    if missing := [key for key in wanted if key not in present]:
        problems.append(f'{len(missing)} of {len(wanted)} images are not in it: {_some(missing)}.')
    if extra := sorted(present - set(wanted)):
        problems.append(f'{len(extra)} of its {len(found)} images are not in the dataset: {_some(extra)}.')
    raise UserError(' '.join(problems))


def lq_sizes(lq: Source) -> list[tuple[int, int]]:
    """Height and width of every LQ image, in the dataset's order."""
    return [tuple(lq.store.spec(key)[:2]) for key in lq.keys]


def check_channels(sources: Mapping[str, Source]) -> None:
    """Checks that all stores have the same number of channels.

    Raises:
        UserError: Names the first store that differs from the first one.
    """
    first = next(iter(sources.values()))
    for source in sources.values():
        if source.store.channels != first.store.channels:
            raise UserError(
                f'{source} has images of {source.store.channels} channels, but {first} of {first.store.channels}; '
                'set channels: 3 to read grey images as RGB.'
            )


def check_uint8(sources: Mapping[str, Source]) -> None:
    """Checks that all stores hold uint8 images.

    Raises:
        UserError: Names the first store that does not.
    """
    for source in sources.values():
        if np.dtype(source.store.dtype) != np.uint8:
            raise UserError(
                f'{source} holds {np.dtype(source.store.dtype)} images, but output: uint8 hands over stored uint8 '
                'values as they are; choose output: float32.'
            )


def check_sizes(source: Source, sizes: Sequence[tuple[int, int]]) -> None:
    """Checks that each image of a source has the size that its LQ image asks for.

    Args:
        source: The images to check.
        sizes: Height and width of the LQ images.

    Raises:
        UserError: Names the first images of a wrong size, with the size found and the size expected.
    """
    wrong = []
    for key, lq_size in zip(source.keys, sizes, strict=True):
        height, width = (side * source.scale for side in lq_size)
        spec = source.store.spec(key)
        if not (0 <= spec.height - height <= source.surplus and 0 <= spec.width - width <= source.surplus):
            wrong.append(f'"{key}" is {spec.height}x{spec.width}, expected {height}x{width}')
    if wrong:
        surplus = f' (or up to {source.surplus} more at the bottom and right)' if source.surplus else ''
        raise UserError(
            f'{source}: {len(wrong)} of {len(sizes)} images are not {source.scale} times as large as their LQ image'
            f'{surplus}, as height x width: {_list(wrong)}. Check scale and this option.'
        )


def check_crop(lq: Source, sizes: Sequence[tuple[int, int]], crop: int, scale: int, option: str) -> None:
    """Checks that a crop fits into every image.

    Args:
        lq: The LQ images.
        sizes: Their heights and widths.
        crop: Height and width of the crop, in LQ pixels.
        scale: HR pixels per LQ pixel.
        option: Name of the option that gives the crop's size in HR pixels.

    Raises:
        UserError: Names the first images that are too small, and the largest crop that fits.
    """
    small = [
        f'"{key}" is {height}x{width}'
        for key, (height, width) in zip(lq.keys, sizes, strict=True)
        if min(height, width) < crop
    ]
    if small:
        largest = min(min(size) for size in sizes) * scale
        raise UserError(
            f'{option}: {crop * scale} needs LQ images of at least {crop}x{crop} pixels, but {len(small)} of '
            f'{len(sizes)} in {lq} are smaller: {_list(small)}. Remove them, or set gt_size to {largest} or less.'
        )


def _some(keys: Sequence[str]) -> str:
    return _list([f'"{key}"' for key in keys])


def _list(texts: Sequence[str]) -> str:
    rest = len(texts) - _NAMED
    return ', '.join(texts[:_NAMED]) + (f' and {rest} more' if rest > 0 else '')
