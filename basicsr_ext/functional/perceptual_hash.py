"""Fingerprints that stay nearly the same when an image is compressed, resized or slightly changed."""

from __future__ import annotations

import cv2
import numpy as np

BITS = 256
_SIDE = 64  # pixels that the image is shrunk to
_KEPT = 16  # frequencies along each axis


def perceptual_hash(image: np.ndarray) -> np.ndarray:
    """Signs of 16x16 low frequencies of an image's cosine transform, the lowest along each axis left out.

    Args:
        image: Array (height, width, 1 or 3), RGB or grey, uint8, uint16 or float32.

    Returns:
        256 values of -1 or 1, float32; a flat image gives -1 everywhere.

    Source: after pHash (Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010), which
    compares with the median; signs make the hash of a flipped image one of the hash.
    """
    grey = image.astype(np.float32).mean(axis=2)
    small = cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    frequencies = cv2.dct(small)
    smallest = 1e-5 * _SIDE * float(np.abs(small).max())  # what rounding leaves of a flat image
    kept = frequencies[1 : _KEPT + 1, 1 : _KEPT + 1].ravel()
    return np.where(kept > smallest, 1.0, -1.0).astype(np.float32)


def turned_hashes(hashes: np.ndarray) -> np.ndarray:
    """Hashes of the eight flips and rotations of images, from the hashes of the images.

    A flip negates the odd frequencies along its axis, a transposition exchanges the axes.

    Args:
        hashes: Of shape (n, 256).

    Returns:
        Array (8, n, 256), the images as they are first.
    """
    planes = hashes.reshape(-1, _KEPT, _KEPT)
    signs = np.where(np.arange(1, _KEPT + 1) % 2, -1.0, 1.0).astype(np.float32)
    flipped = [planes, planes * signs, planes * signs[:, None], planes * signs * signs[:, None]]
    return np.stack([plane.reshape(-1, BITS) for f in flipped for plane in (f, f.swapaxes(1, 2))])


def hash_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Counts the bits in which hashes differ.

    Args:
        first: Hashes, of shape (n, 256).
        second: Hashes, of shape (m, 256).

    Returns:
        Array (n, m), 0 to 256: about 128 for two different images, near 0 for two versions of one.
    """
    return np.rint((BITS - first @ second.T) / 2).astype(int)
