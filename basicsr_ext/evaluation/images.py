"""Which images are compared with which, and the images themselves."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext.errors import UserError, first_of
from basicsr_ext.files import open_file
from basicsr_ext.storage import FolderStore, ImageStore, open_store
from basicsr_ext.storage.headers import read_header

_FULL_RANGE = {np.dtype(np.uint16): 257.0, np.dtype(np.float32): 1 / 255}
# What may follow the name of the GT image: baby_RCAN_x4, baby-x4, babyx4, but not img_10 after img_1.
_ENDING = re.compile(r'(?:[^0-9A-Za-z].*|[xX]\d+(?:[^0-9A-Za-z].*)?)?', re.DOTALL)


class Images(NamedTuple):
    """The images of one method, and the GT images to compare them with.

    Attributes:
        method: Name of the method.
        store: Its images.
        gt: The GT images; ``None`` where images are judged alone.
        pairs: Name of an image -> its key; names are the GT images' keys where there are some.
        scale: GT images, and images as large as they, are cropped to a multiple of it.
    """

    method: str
    store: ImageStore
    gt: ImageStore | None
    pairs: dict[str, str]
    scale: int = 1

    def read(self, name: str) -> dict[str, np.ndarray]:
        """Reads an image and its GT image as BasicSR's metrics take them.

        A grey image is compared with a grey GT image as it is, as luminance; where one of them has colours, the other's grey
        is repeated. That does not depend on other images.

        Returns:
            ``img``, and ``img2`` where there are GT images: BGR or grey (height, width, 3 or 1), uint8, or float64 on
            [0, 255], of one size.
        """
        key = self.pairs[name]
        is_grey = _is_grey(self.store, key) and (self.gt is None or _is_grey(self.gt, name))
        image = _array(self.store, key, is_grey)
        if self.gt is None:
            return {'img': np.ascontiguousarray(image)}
        reference = _array(self.gt, name, is_grey)
        height, width = (side - side % self.scale for side in reference.shape[:2])
        pair = {'img': image, 'img2': reference}
        return {key: np.ascontiguousarray(array[:height, :width]) for key, array in pair.items()}


def open_images(method: str, path: str | Path, gt: ImageStore | None, scale: int = 1) -> Images:
    """Opens the images of a method, and checks names, sizes and colours against the GT images.

    Args:
        method: Name of the method.
        path: Folder of its images, or a store.
        gt: The GT images.
        scale: GT images are cropped at the right and the bottom to a multiple of it, as they are before LR images are made.

    Raises:
        UserError: There is nothing to read, or the images do not fit the GT images; names the first of them.
    """
    store = open_store(path)
    if gt is None:
        return Images(method, store, None, {key: key for key in store.keys()})
    try:
        pairs = match_names(gt.keys(), store.keys())
    except UserError as error:
        raise UserError(f'{store.path} against {gt.path}: {error}') from None
    if store.channels == 1 and gt.channels == 3:
        raise UserError(
            f'{store.path}: all images are grey, but GT images in {gt.path} are in colour. Compare with grey GT images.'
        )
    images = Images(method, store, gt, pairs, scale)
    _check_sizes(images)
    return images


def match_names(gt: Sequence[str], found: Sequence[str]) -> dict[str, str]:
    """Finds the image of each GT image by its name.

    Names are equal, or all images have the same ending after the GT image's name: ``baby_RCAN_x4``, ``babyx2``. If GT
    images share an ending of their own (``baby_HR_x4``), it may be missing.

    Args:
        gt: Keys of the GT images.
        found: Keys of the images.

    Returns:
        Key of the GT image -> key of the image, in the order of ``gt``.

    Raises:
        UserError: GT images have no image, or images no GT image; names the first of them.
    """
    present = set(found)
    best: dict[str, str] = {}
    for stems in (list(gt), _without_common_ending(gt)):
        for ending in _endings(stems, found):
            pairs = {key: stem + ending for key, stem in zip(gt, stems, strict=True) if stem + ending in present}
            if len(pairs) > len(best):
                best = pairs
        if len(best) == len(gt):
            break
    problems = []
    if missing := [key for key in gt if key not in best]:
        problems.append(f'{len(missing)} of {len(gt)} GT images have no image: {_some(missing)}.')
    if extra := sorted(present - set(best.values())):
        problems.append(f'{len(extra)} of {len(found)} images have no GT image: {_some(extra)}.')
    if problems:
        raise UserError(
            f'{" ".join(problems)} An image must be named as its GT image; one ending may follow on all names, such as '
            '_x4.'
        )
    return best


def _is_grey(store: ImageStore, key: str) -> bool:
    """Whether an image itself is grey, in a folder that may have coloured ones too."""
    if store.channels == 1 or not isinstance(store, FolderStore):
        return store.channels == 1
    with open_file(store.file(key)) as file:
        return read_header(file).channels == 1


def _array(store: ImageStore, key: str, is_grey: bool) -> np.ndarray:
    image = store.read(key)
    if image.dtype in _FULL_RANGE:
        image = np.clip(image / np.float64(_FULL_RANGE[image.dtype]), 0, 255)
    return image[..., :1] if is_grey else np.broadcast_to(image, (*image.shape[:2], 3))[..., ::-1]


def _endings(stems: Sequence[str], found: Sequence[str]) -> list[str]:
    """What follows stems in names, most frequent first; of equally frequent ones the shortest."""
    if set(stems) <= set(found):
        return ['']
    counts = Counter(
        name[len(stem) :]
        for stem in stems
        for name in found
        if name.startswith(stem) and _ENDING.fullmatch(name, len(stem))
    )
    return sorted(counts, key=lambda ending: (-counts[ending], len(ending), ending))[:2]


def _without_common_ending(names: Sequence[str]) -> list[str]:
    """Leaves out what all names end with, from a mark such as _ or - on."""
    if len(names) < 2:
        return list(names)
    ending = min((name.rpartition('/')[2] for name in names), key=len)
    while ending and not all(name.endswith(ending) and name != ending for name in names):
        ending = ending[1:]
    mark = re.search(r'[^0-9A-Za-z]', ending)
    length = len(ending) - mark.start() if mark else 0
    return [name[: len(name) - length] for name in names]


def _check_sizes(images: Images) -> None:
    """Checks that each image is as large as its GT image, before or after that is cropped."""
    wrong = []
    for name, key in images.pairs.items():
        size, reference = images.store.spec(key)[:2], images.gt.spec(name)[:2]
        cropped = tuple(side - side % images.scale for side in reference)
        if min(cropped) < 1:
            raise UserError(f'{images.gt.path}: image "{name}" is smaller than the scale {images.scale}.')
        if size not in (reference, cropped):
            wrong.append(f'"{key}" is {_size(size)}, expected {_size(cropped)}')
    if wrong:
        hint = (
            'Give the scale, such as --scale 3, where GT images are to be cropped to a multiple of it.'
            if images.scale == 1
            else 'Check the scale.'
        )
        raise UserError(
            f'{images.store.path}: {len(wrong)} of {len(images.pairs)} images are not as large as their GT images, as '
            f'height x width: {first_of(wrong)}. {hint}'
        )


def _size(size: Sequence[int]) -> str:
    return f'{size[0]}x{size[1]}'


def _some(keys: Sequence[str]) -> str:
    return first_of([f'"{key}"' for key in keys])
