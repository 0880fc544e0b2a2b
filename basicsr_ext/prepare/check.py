"""Looking for mistakes in sets of images before anything is trained on them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext.data.pairing import found_template
from basicsr_ext.errors import UserError
from basicsr_ext.functional.alignment import Shift, best_shift
from basicsr_ext.functional.perceptual_hash import BITS, hash_distances, turned_hashes
from basicsr_ext.prepare.counting import pluralize
from basicsr_ext.prepare.distances import DISTANCE
from basicsr_ext.prepare.jobs import check_workers, run_jobs
from basicsr_ext.prepare.survey import FileSet, ScannedImage, StoreSet, open_set, survey
from basicsr_ext.report.tables import align
from basicsr_ext.storage import ImageSpec, RawLmdbStore

Set = Mapping[str, ScannedImage]

_COMPARED = 50  # pairs whose contents are compared, unless all are
_GAIN = 3.0  # dB by which a shifted LQ image must fit better
_COPY = 'copy (warning)'
_SHIFTED = 'shifted (warning)'
_UNPROVEN = 'no checksums (warning)'


class Problem(NamedTuple):
    """Something wrong with one image: a row of the table."""

    image: str
    problem: str
    expected: str
    found: str

    @property
    def is_warning(self) -> bool:
        """Whether the sets can be trained on as they are."""
        return self.problem in (_COPY, _SHIFTED, _UNPROVEN)


def check_sets(
    gt: str | Path,
    lq: str | Path | None = None,
    *,
    scale: int | None = None,
    filename_tmpl: str = '{}',
    tests: Sequence[str | Path] = (),
    distance: int = DISTANCE,
    every_pair: bool = False,
    num_workers: int | None = None,
) -> list[Problem]:
    """Decodes all images, compares pairs, and looks for test images among those for training.

    Pixels of raw stores are compared with their checksums.

    Args:
        gt: Folder or store of GT images.
        lq: Folder or store of LQ images; ``None`` checks the GT images alone.
        scale: GT pixels per LQ pixel, 1 for sets of equal size; needed with ``lq``.
        filename_tmpl: Name of an LQ image with ``{}`` in place of the name of its GT image.
        tests: Folders or stores of test images, of which no version may be among the GT images.
        distance: Bits of 256 in which the perceptual hashes of two versions of one image may differ. They find an image
            that was compressed, resized, flipped, rotated or cropped a little, but not one that was cut out of another.
        every_pair: Compare the contents of all pairs, and not of 50 at most.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Problems: missing, extra and damaged images, two of one name, names that no store takes, wrong sizes and scales,
        channels, alpha, depths, test images; and as warnings GT images that are copies of others, pixel by pixel,
        raw stores without checksums, and LQ images that show another place than their GT images, see
        :func:`~basicsr_ext.functional.alignment.best_shift`.

    Raises:
        UserError: An argument is wrong, or a set cannot be opened.
    """
    if lq is not None and (not isinstance(scale, int) or scale < 1):
        raise UserError(f'--scale: LQ images need it, as an integer from 1 on; found {scale!r}.')
    if filename_tmpl.count('{}') != 1:
        raise UserError(f'--filename_tmpl: expected {{}} once, such as "{{}}x4", found "{filename_tmpl}".')
    if not isinstance(distance, int) or not 0 <= distance <= BITS:
        raise UserError(f'--distance: expected 0 to {BITS} bits, found {distance!r}.')
    workers = check_workers(num_workers)
    gt_images = open_set(gt)
    gt_set = survey(gt_images, Path(gt).name, hashes=bool(tests), num_workers=workers)
    problems = [*_alone('GT', gt_set), *_copies('GT', gt_set), *_unproven('GT', gt_images)]
    if lq is not None:
        assert scale is not None
        lq_images = open_set(lq)
        lq_set = survey(lq_images, Path(lq).name, hashes=False, num_workers=workers)
        problems += [*_alone('LQ', lq_set), *_unproven('LQ', lq_images), *_pairs(gt_set, lq_set, scale, filename_tmpl)]
        fitting = _fitting_pairs(gt_set, lq_set, scale, filename_tmpl)
        compared = fitting if every_pair else _sample(fitting)
        problems += _shifted(_Compare(gt_images, lq_images, scale), compared, workers)
    for test in tests:
        name = Path(test).name
        test_set = survey(open_set(test), name, hashes=True, num_workers=workers)
        problems += _versions(gt_set, test_set, name, distance)
    return problems


def table(problems: Sequence[Problem]) -> str:
    """Sets problems as text."""
    return align([('image', 'problem', 'expected', 'found'), *problems])


def _alone(name: str, images: Set) -> Iterator[Problem]:
    """What is wrong with the images of one set, each by itself and beside the others."""
    yield from (
        Problem(f'{name} {key}', _damage(seen), 'an image', seen.damage) for key, seen in images.items() if seen.damage
    )
    yield from (
        Problem(f'{name} {key!r}', 'name', 'a name that can be a key', seen.misnamed)
        for key, seen in images.items()
        if seen.misnamed
    )
    yield from (
        Problem(f'{name} {key}', 'same name', 'a key of its own', seen.namesake)
        for key, seen in images.items()
        if seen.namesake
    )
    yield from (
        Problem(f'{name} {key}', 'channels', 'no alpha', 'alpha, which is dropped')
        for key, seen in images.items()
        if seen.alpha
    )
    for problem, describe in (('channels', _channels), ('bit depth', _depth)):
        found = {key: describe(seen.spec) for key, seen in images.items() if seen.spec}
        usual = Counter(found.values()).most_common(1)
        yield from (
            Problem(f'{name} {key}', problem, f'{usual[0][0]} as most', value)
            for key, value in found.items()
            if value != usual[0][0]
        )


def _damage(seen: ScannedImage) -> str:
    return 'not supported' if seen.unsupported else 'damaged'


def _unproven(name: str, images: FileSet | StoreSet) -> Iterator[Problem]:
    """A raw store that cannot tell whether its pixels are those that were stored."""
    if isinstance(images, StoreSet) and isinstance(images.store, RawLmdbStore) and not images.store.checksums:
        yield Problem(name, _UNPROVEN, 'crc32 of every image', 'none: an earlier version made this store')


def _copies(name: str, images: Set) -> Iterator[Problem]:
    """Images with the same pixels as one before them."""
    first = dict[str, str]()
    for key, seen in images.items():
        if seen.digest and not seen.namesake and first.setdefault(seen.digest, key) != key:
            yield Problem(f'{name} {key}', _COPY, 'another image', f'{name} {first[seen.digest]}')


def _pairs(gt_set: Set, lq_set: Set, scale: int, template: str) -> Iterator[Problem]:
    gt_set, lq_set = ({key: seen for key, seen in images.items() if not seen.namesake} for images in (gt_set, lq_set))
    partners = {key: template.format(key) for key in gt_set}
    found, expected = found_template(list(gt_set), list(lq_set), template), set(partners.values())
    for key in lq_set:
        if key not in expected:
            yield Problem(f'LQ {key}', 'extra', 'a GT image', 'none')
    for key, partner in partners.items():
        if partner not in lq_set:
            other = found.replace('{}', key) if found else None
            hint = f'LQ {other} (--filename_tmpl "{found}")' if other in lq_set else 'none'
            yield Problem(f'GT {key}', 'missing', f'LQ {partner}', hint)
            continue
        gt, lq = gt_set[key].spec, lq_set[partner].spec
        if gt is not None and lq is not None:
            yield from _pair(key, gt, lq, scale)


def _pair(key: str, gt: ImageSpec, lq: ImageSpec, scale: int) -> Iterator[Problem]:
    # What is left over of the last LQ pixel is cut away in training.
    if not _fits(gt, lq, scale):
        other = next((factor for factor in range(1, 17) if _fits(gt, lq, factor)), None)
        if other is None:
            whole = f'{lq.height * scale}x{lq.width * scale}'
            expected = f'{whole}, or up to {scale - 1} more on each side' if scale > 1 else whole
            yield Problem(f'GT {key}', 'size', expected, f'{_size(gt)} (LQ {_size(lq)})')
        else:
            yield Problem(f'GT {key}', 'scale', f'{scale}', f'{other}')
    for problem, describe in (('channels', _channels), ('bit depth', _depth)):
        if describe(gt) != describe(lq):
            yield Problem(f'GT {key}', f'{problem} of the pair', f'{describe(lq)} as LQ', describe(gt))


def _fits(gt: ImageSpec, lq: ImageSpec, scale: int) -> bool:
    return all(0 <= gt[axis] - lq[axis] * scale < scale for axis in (0, 1))


def _fitting_pairs(gt_set: Set, lq_set: Set, scale: int, template: str) -> list[tuple[str, str]]:
    """Keys of pairs whose sizes fit."""
    pairs = [(key, template.format(key)) for key in gt_set]
    return [
        (key, partner)
        for key, partner in pairs
        if (gt := gt_set[key].spec) and partner in lq_set and (lq := lq_set[partner].spec) and _fits(gt, lq, scale)
    ]


def _sample(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The same 50 whenever a set is checked, and spread over it without a pattern, as sub-images have one."""
    chosen = random.Random(0).sample(range(len(pairs)), min(len(pairs), _COMPARED))
    return [pairs[index] for index in sorted(chosen)]


class _Compare(NamedTuple):
    """Compares the contents of a pair."""

    gt: FileSet | StoreSet
    lq: FileSet | StoreSet
    scale: int

    def __call__(self, pair: tuple[str, str]) -> tuple[str, Shift | None]:
        key, partner = pair
        return key, best_shift(self.gt.read(key), self.lq.read(partner), self.scale)


def _shifted(compare: _Compare, pairs: Sequence[tuple[str, str]], num_workers: int) -> Iterator[Problem]:
    """Pairs that fit far better when the LQ image is moved."""
    found = dict(run_jobs(compare, pairs, num_workers=num_workers, description='contents of pairs', unit='pair'))
    for key, _ in pairs:
        shift = found[key]
        if shift is not None and shift.psnr - shift.psnr_unshifted >= _GAIN:
            yield Problem(
                f'GT {key}',
                _SHIFTED,
                'the place that its LQ image shows',
                f'LQ fits {_where(shift)}: {shift.psnr:.1f} dB instead of {shift.psnr_unshifted:.1f}',
            )


def _where(shift: Shift) -> str:
    """Says in words where a GT image has what its LQ image shows."""
    ways = (('down', 'up'), ('right', 'left'))
    moved = [
        f'{pluralize(abs(by), "pixel")} further {way[by < 0]}'
        for by, way in zip((shift.rows, shift.columns), ways, strict=True)
        if by
    ]
    return ' and '.join(moved)


def _versions(gt_set: Set, test_set: Set, name: str, distance: int) -> Iterator[Problem]:
    """Test images among the GT images, whichever way they are turned."""
    for key, seen in test_set.items():
        if seen.damage:
            yield Problem(f'{name} {key}', _damage(seen), 'an image', seen.damage)
    gt = {key: seen.hash for key, seen in gt_set.items() if seen.hash is not None}
    tests = {key: seen.hash for key, seen in test_set.items() if seen.hash is not None}
    if not gt or not tests:
        return
    names, turned = list(tests), turned_hashes(np.stack(list(tests.values())))
    found = np.stack([hash_distances(np.stack(list(gt.values())), hashes) for hashes in turned])
    nearest = found.min(axis=0)
    for row, key in enumerate(gt):
        column = int(nearest[row].argmin())
        if nearest[row, column] <= distance:
            yield Problem(
                f'GT {key}',
                'test image',
                'none',
                f'{name} {names[column]} ({nearest[row, column]} of {BITS} bits differ)',
            )


def _channels(spec: ImageSpec) -> str:
    return {1: 'grey', 3: 'colour'}[spec.channels]


def _depth(spec: ImageSpec) -> str:
    return f'{spec.dtype}'


def _size(spec: ImageSpec) -> str:
    return f'{spec.height}x{spec.width}'
