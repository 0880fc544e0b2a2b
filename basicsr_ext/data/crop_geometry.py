"""Which window of which image a sample shows, and how it is flipped: pure functions on arrays."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_WHITE = {np.dtype(np.uint8): np.float32(255), np.dtype(np.uint16): np.float32(65535)}


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


def area_shares(sizes: Sequence[tuple[int, int]]) -> list[float]:
    """Adds up the images' shares of the total area.

    Args:
        sizes: Height and width of each image, in any common unit.

    Returns:
        For each image the share of all images up to and including it; ascending, the last is 1.
    """
    total = np.cumsum([height * width for height, width in sizes], dtype=np.int64)
    return (total / total[-1]).tolist()


def systematic_choice(shares: Sequence[float], index: int, offset: float) -> int:
    """Chooses an image in proportion to its area.

    The line [0, 1) is cut into as many strata as there are images, and each index draws from its own stratum, so that
    one pass over all indices gives every image its share of samples to within two.

    Args:
        shares: Cumulative shares from :func:`area_shares`.
        index: Stratum, in [0, len(shares)).
        offset: Random number in [0, 1): the place within the stratum.

    Returns:
        Index of the image.
    """
    count = len(shares)
    # index + offset may round up to count, one past the last image.
    return min(bisect_right(shares, (index + offset) / count), count - 1)


def draw_crop(
    image: int, size: tuple[int, int], crop: int, scale: int, numbers: Sequence[float], use_hflip: bool, use_rot: bool
) -> Geometry:
    """Draws a window, uniform over the LQ positions, and its flips.

    Args:
        image: Index of the image.
        size: Height and width of its LQ image, each at least ``crop``.
        crop: Height and width of the window, in LQ pixels.
        scale: HR pixels per LQ pixel.
        numbers: Five random numbers in [0, 1): top, left, horizontal flip, vertical flip, transpose.
        use_hflip: Whether to flip horizontally at random.
        use_rot: Whether to flip vertically and to transpose at random, which with the horizontal flip gives rotations.

    Returns:
        The window in HR pixels. It does not depend on ``use_hflip`` and ``use_rot``.
    """
    height, width = size
    down, right, hflip, vflip, transpose = numbers
    top, left = int(down * (height - crop + 1)), int(right * (width - crop + 1))
    return Geometry(
        image,
        top * scale,
        left * scale,
        crop * scale,
        crop * scale,
        use_hflip and hflip < 0.5,
        use_rot and vflip < 0.5,
        use_rot and transpose < 0.5,
    )


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
    white = _WHITE.get(copy.dtype)
    return np.divide(copy, white, dtype=np.float32) if unit_range and white is not None else copy
