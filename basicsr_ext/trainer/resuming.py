"""Tells whether a run goes on with the training images that it began with."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from basicsr_ext.data.pairing import Source
from basicsr_ext.errors import UserError

_EXTENSION = re.compile(r'\.(png|jpe?g|bmp|tiff?|webp|ppm|npy)$', re.IGNORECASE)


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Returns what tells a dataset's images from others: how many samples it has, and hashes of their names and pixels.

    The names are without folders and extensions, so that images may move to another folder or into an LMDB. Pixels are not
    read: the checksums of raw stores and the sizes of files stand for them.

    Args:
        dataset: With a length; its images are named by its attribute ``pairs``, ``paths`` or ``keys``, if it has one.
    """
    found: dict[str, Any] = {'length': len(dataset)}
    images = next((getattr(dataset, name, None) for name in ('pairs', 'paths', 'keys') if hasattr(dataset, name)), None)
    if isinstance(images, (list, tuple)):
        names = [_name(image) for image in images]
        found.update(names=_digest(sorted(names)), order=_digest(names), pixels=_pixels(dataset, images))
    return found


def _pixels(dataset: Any, images: Sequence[Any]) -> dict[str, str]:
    """Part of a sample and kind of mark -> how many images have such a mark, and a hash of names and marks."""
    lines: dict[str, list[str]] = {}
    for part, key, mark in _marks(dataset, images):
        kind, _, value = mark.partition(' ')
        if kind:
            lines.setdefault(f'{part} {kind}', []).append(f'{_name(key)}\t{value}')
    return {kind: f'{len(found)} {_digest(sorted(found))}' for kind, found in lines.items()}


def _marks(dataset: Any, images: Sequence[Any]) -> Iterator[tuple[str, Any, str]]:
    """Part of a sample, image and mark: of this package's stores, or of the files of BasicSR's datasets."""
    sources = getattr(dataset, 'sources', None)
    if isinstance(sources, Mapping) and all(isinstance(source, Source) for source in sources.values()):
        for part, source in sources.items():
            yield from ((part, *pair) for pair in zip(source.keys, source.store.marks(source.keys), strict=True))
        return
    for image in images:
        for part, file in image.items() if isinstance(image, Mapping) else [('gt_path', image)]:
            if isinstance(file, str) and os.path.isfile(file):
                yield part.removesuffix('_path'), file, f'bytes {os.path.getsize(file)}'


def _name(image: Any) -> str:
    """Name of an image, or of those of a sample."""
    if isinstance(image, Mapping):
        image = [image[key] for key in sorted(image)]
    if isinstance(image, (list, tuple)):
        return '\t'.join(_name(part) for part in image)
    name = os.path.basename(str(image))
    return _EXTENSION.sub('', name) if '.' in name else name


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256('\n'.join(names).encode()).hexdigest()


def _other_pixels(saved: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Says which marks differ; images that have marks of other kinds than before, as in another kind of store, pass."""
    names = {'bytes': 'sizes of files', 'crc32': 'checksums'}
    differing = [
        kind
        for kind, mark in now.items()
        if kind in saved and saved[kind] != mark and saved[kind].split()[0] == mark.split()[0]
    ]
    return ', '.join(f'{part}: {names.get(kind, kind)}' for part, kind in map(str.split, differing))


def check_same_data(saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Refuses to go on with other training images than the checkpoint was trained with.

    Args:
        saved: The fingerprint kept with the checkpoint; ``None`` where there is none.
        now: That of this run's training set.

    Returns:
        A warning where the same images come in another order; else an empty text.

    Raises:
        UserError: The images differ.
    """
    if not saved:
        return ''
    if saved['length'] != now['length']:
        found = f'with {saved["length"]} samples, and there are {now["length"]}'
    elif 'names' in saved and 'names' in now and saved['names'] != now['names']:
        found = 'with images of other names'
    elif others := _other_pixels(saved.get('pixels', {}), now.get('pixels', {})):
        found = f'with other pixels under the same names ({others})'
    else:
        same = saved.get('order') == now.get('order') or 'order' not in saved or 'order' not in now
        return (
            ''
            if same
            else (
                'The training images are the same, and are listed in another order than before: the run goes on, but not to '
                'the bit.'
            )
        )
    raise UserError(
        f'datasets.train: the checkpoint to go on from was trained {found}. Set the data back, or start a new run under '
        'another name, with path.pretrain_network_g for the weights.'
    )
