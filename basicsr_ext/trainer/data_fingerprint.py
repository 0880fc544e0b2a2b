"""Tells whether a run goes on with the training images that it began with."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from basicsr_ext.errors import UserError

_EXTENSION = re.compile(r'\.(png|jpe?g|bmp|tiff?|webp|ppm|npy)$', re.IGNORECASE)


def fingerprint(dataset: Any) -> dict[str, Any]:
    """Returns what tells a dataset's images from others: how many samples it has, and hashes of their names.

    The names are without folders and extensions, so that images may move to another folder or into an LMDB.

    Args:
        dataset: With a length; its images are named by its attribute ``pairs``, ``paths`` or ``keys``, if it has one.
    """
    found: dict[str, Any] = {'length': len(dataset)}
    images = next((getattr(dataset, name, None) for name in ('pairs', 'paths', 'keys') if hasattr(dataset, name)), None)
    if isinstance(images, (list, tuple)):
        names = [_name(image) for image in images]
        found.update(names=_digest(sorted(names)), order=_digest(names))
    return found


def _name(image: Any) -> str:
    """Name of an image, or of those of a sample."""
    if isinstance(image, Mapping):
        image = [image[key] for key in sorted(image)]
    if isinstance(image, (list, tuple)):
        return '\t'.join(_name(part) for part in image)
    return _EXTENSION.sub('', os.path.basename(str(image)))


def _digest(names: Iterable[str]) -> str:
    return hashlib.sha256('\n'.join(names).encode()).hexdigest()


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
