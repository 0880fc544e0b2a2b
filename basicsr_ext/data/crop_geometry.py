"""Which window of which image a sample shows, and how it is flipped: pure functions on arrays."""

from __future__ import annotations

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
    return np.minimum(shares.searchsorted((indices + offsets) / count, 'right'), count - 1)


def draw_crops(
    images: np.ndarray, sizes: np.ndarray, crop: int, scale: int, numbers: np.ndarray, use_hflip: bool, use_rot: bool
) -> np.ndarray:
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
        int64 array of shape (N, 8), whose rows are :class:`Geometry`. Windows do not depend on ``use_hflip`` and
        ``use_rot``.
    """
    geometries = np.empty((len(images), 8), np.int64)
    geometries[:, 0] = images
    geometries[:, 1:3] = (numbers[:, :2] * (sizes - (crop - 1))).astype(np.int64) * scale
    geometries[:, 3:5] = crop * scale
    geometries[:, 5:] = numbers[:, 2:] < (0.5 * use_hflip, 0.5 * use_rot, 0.5 * use_rot)
    return geometries


def count_crops(sizes: np.ndarray, crop: int) -> np.ndarray:
    """Counts the windows that lie side by side in each image.

    Args:
        sizes: Height and width of the LQ images, integers of shape (images, 2).
        crop: Height and width of a window, in LQ pixels.

    Returns:
        For each image the number of windows of all images up to and including it; int64.
    """
    return np.cumsum(np.prod(sizes // crop, axis=1, dtype=np.int64))


def grid_crops(
    ends: np.ndarray,
    indices: np.ndarray,
    sizes: np.ndarray,
    crop: int,
    scale: int,
    numbers: np.ndarray,
    use_hflip: bool,
    use_rot: bool,
) -> np.ndarray:
    """Finds windows by their number on a grid, and draws their flips.

    The grid begins at the corner that flips bring to the top left, as if the image had been flipped before it was cut.

    Args:
        ends: Windows up to each image, from :func:`count_crops`.
        indices: Numbers of N windows, counted image by image and row by row, below the last of ``ends``.
        sizes: Height and width of all LQ images, of shape (images, 2).
        crop: Height and width of a window, in LQ pixels.
        scale: HR pixels per LQ pixel.
        numbers: As for :func:`draw_crops`; the first two are not used.
        use_hflip: As for :func:`draw_crops`.
        use_rot: As for :func:`draw_crops`.

    Returns:
        int64 array of shape (N, 8), whose rows are :class:`Geometry`.
    """
    images = ends.searchsorted(indices, 'right')
    places = indices - np.concatenate([[0], ends])[images]
    cells = np.stack(np.divmod(places, sizes[images, 1] // crop), 1)
    geometries = draw_crops(images, sizes[images], crop, scale, numbers, use_hflip, use_rot)
    flipped = geometries[:, [6, 5]].astype(bool)  # rows, columns
    geometries[:, 1:3] = np.where(flipped, sizes[images] - (cells + 1) * crop, cells * crop) * scale
    return geometries


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


def copy_flipped(window: np.ndarray, image: np.ndarray, hflip: bool, vflip: bool, transpose: bool) -> None:
    """Copies a window to where it belongs, flipped in BasicSR's order.

    OpenCV is several times faster than NumPy at reversed or exchanged columns, not at reversed rows.

    Args:
        window: Array of shape (height, width, channels).
        image: Takes the flipped window: array of the same shape, or transposed.
        hflip: Whether to reverse columns; this is done first.
        vflip: Whether to reverse rows; this is done second.
        transpose: Whether to exchange rows and columns; this is done last.
    """
    if transpose:
        if vflip:
            window = window[::-1].copy()  # cheap, since exchanging is faster in the processor's cache
        if hflip:
            cv2.rotate(window, cv2.ROTATE_90_COUNTERCLOCKWISE, image)
        else:
            cv2.transpose(window, image)
    elif hflip:
        cv2.flip(window, -1 if vflip else 1, image)
    else:
        image[...] = window[::-1] if vflip else window


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
