"""Short fingerprints of images and of lists of names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def image_digest(image: np.ndarray) -> str:
    """Fingerprint of an image's pixels, shape and dtype, whatever its memory layout or the file it came from.

    Args:
        image: Of shape (height, width) or (height, width, channels); a missing channel axis counts as one channel.

    Returns:
        16 hexadecimal digits (64 bits of BLAKE2b).
    """
    height, width, channels = (*image.shape, 1)[:3]
    digest = hashlib.blake2b(f'{height} {width} {channels} {image.dtype.name}\n'.encode(), digest_size=8)
    little_endian = image.astype(image.dtype.newbyteorder('<'), copy=False)
    digest.update(np.ascontiguousarray(little_endian).data)
    return digest.hexdigest()


def keys_digest(keys: Iterable[str]) -> str:
    """Fingerprint of a set of names: SHA-256, in hexadecimal, over the sorted names, each ended by a line feed."""
    return hashlib.sha256(''.join(f'{key}\n' for key in sorted(keys)).encode()).hexdigest()
