"""Which window of which image a sample shows, and how it is flipped: pure functions on arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

# What integer images are divided by.
WHITE = {np.dtype(np.uint8): np.float32(255), np.dtype(np.uint16): np.float32(65535)}


class Geometry(NamedTuple):
    """Where a sample comes from and what was done to it.

    A sample's ``geometry`` entry is this tuple as an int64 tensor.

    Attributes:
        image: Index of the image in the dataset's ``pairs``.
        top: First row of the window, in HR pixels.
        left: First column of the window, in HR pixels.
        height: Rows of the window before it is transposed, in HR pixels.
        width: Columns of the window before it is transposed, in HR pixels.
        hflip: Whether columns were reversed; this is done first.
        vflip: Whether rows were reversed; this is done second.
        transpose: Whether rows and columns were exchanged; this is done last.
    """

    image: int
    top: int
    left: int
    height: int
    width: int
    hflip: bool = False
    vflip: bool = False
    transpose: bool = False


def area_shares(sizes: np.ndarray) -> np.ndarray:
    """Adds up the images' shares of the total area.

    Args:
        sizes: Height and width of each image, in any common unit, as integers of shape (images, 2).

    Returns:
        For each image the share of all images up to and including it; ascending, the last is 1.
    """
    total = np.cumsum(np.prod(sizes, axis=1, dtype=np.int64))
    return total / total[-1]


def systematic_choice(shares: np.ndarray, indices: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Chooses images in proportion to their area.

    The line [0, 1) is cut into as many strata as there are images, and each index draws from its own stratum, so that
    one pass over all indices gives every image its share of samples to within two.

    Args:
        shares: Cumulative shares from :func:`area_shares`.
        indices: Strata of N samples, in [0, len(shares)).
        offsets: Random numbers in [0, 1): the places within the strata.

    Returns:
        Indices of N images.
    """
    count = len(shares)
    # An index + offset may round up to count, one past the last image.
    return np.minimum(np.searchsorted(shares, (indices + offsets) / count, side='right'), count - 1)


def draw_crops(
    images: np.ndarray, sizes: np.ndarray, crop: int, scale: int, numbers: np.ndarray, use_hflip: bool, use_rot: bool
) -> list[Geometry]:
    """Draws windows, uniform over the LQ positions, and their flips.

    Args:
        images: Indices of N images.
        sizes: Height and width of their LQ images, each at least ``crop``, of shape (N, 2).
        crop: Height and width of a window, in LQ pixels.
        scale: HR pixels per LQ pixel.
        numbers: Random numbers in [0, 1) of shape (N, 5): top, left, horizontal flip, vertical flip, transpose.
        use_hflip: Whether to flip horizontally at random.
        use_rot: Whether to flip vertically and to transpose at random, which with the horizontal flip gives rotations.

    Returns:
        The windows in HR pixels. They do not depend on ``use_hflip`` and ``use_rot``.
    """
    corners = (numbers[:, :2] * (sizes - crop + 1)).astype(np.int64) * scale
    flips = (numbers[:, 2:] < 0.5) & (use_hflip, use_rot, use_rot)
    side = crop * scale
    drawn = zip(images.tolist(), corners.tolist(), flips.tolist(), strict=True)
    return [Geometry(image, top, left, side, side, *flags) for image, (top, left), flags in drawn]


def augment(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Flips an image as ``geometry`` says, in BasicSR's order: horizontally, vertically, transpose.

    Args:
        image: Array of shape (height, width, channels).
        geometry: Gives the three flags; its window is not looked at.

    Returns:
        A view on ``image``.
    """
    if geometry.hflip:
        image = image[:, ::-1]
    if geometry.vflip:
        image = image[::-1]
    return image.transpose(1, 0, 2) if geometry.transpose else image


def copy_flipped(strips: Sequence[np.ndarray], image: np.ndarray, hflip: bool, vflip: bool, transpose: bool) -> None:
    """Copies a window to where it belongs, flipped in BasicSR's order.

    Args:
        strips: The window's rows in arrays of shape (rows, width, channels), from top to bottom.
        image: Takes the flipped window: array of shape (height, width, channels), or transposed.
        hflip: Whether to reverse columns; this is done first.
        vflip: Whether to reverse rows; this is done second.
        transpose: Whether to exchange rows and columns; this is done last.
    """
    if transpose and len(strips) > 1:
        strips = [np.concatenate(strips)]  # exchanging rows and columns is faster in the processor's cache
    if len(strips) == 1:
        _flip(strips[0], image, hflip, vflip, transpose)
        return
    done = 0
    for strip in strips:
        stop = done + len(strip)
        place = slice(len(image) - stop, len(image) - done) if vflip else slice(done, stop)
        _flip(strip, image[place], hflip, vflip, False)
        done = stop


def _flip(window: np.ndarray, image: np.ndarray, hflip: bool, vflip: bool, transpose: bool) -> None:
    """Copies by OpenCV, whose flips are several times faster than NumPy's copies with reversed or exchanged columns."""
    if transpose and hflip and vflip:
        cv2.transpose(cv2.flip(window, -1), image)
    elif transpose and (hflip or vflip):
        cv2.rotate(window, cv2.ROTATE_90_COUNTERCLOCKWISE if hflip else cv2.ROTATE_90_CLOCKWISE, image)
    elif transpose:
        cv2.transpose(window, image)
    elif hflip or vflip:
        cv2.flip(window, -1 if hflip and vflip else int(hflip), image)
    else:
        image[...] = window


def to_chw(image: np.ndarray, unit_range: bool) -> np.ndarray:
    """Copies an image to channels-first order.

    Args:
        image: Array of shape (height, width, channels), of dtype uint8, uint16 or float32.
        unit_range: Whether to turn integers into float32 in [0, 1]: the value divided by 255 or 65535, in float32.

    Returns:
        New contiguous array of shape (channels, height, width).
    """
    # One strided copy of the small integers, then one contiguous division, is faster than dividing with strides.
    copy = np.array(image.transpose(2, 0, 1), order='C', copy=True)
    white = WHITE.get(copy.dtype)
    return np.divide(copy, white, dtype=np.float32) if unit_range and white is not None else copy
