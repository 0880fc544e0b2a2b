"""Windows of an image that show noise and nothing else."""

from __future__ import annotations

import numpy as np

BLOCKS = 4  # along each side of a window


def flat_windows(
    image: np.ndarray, size: int, least: float = 1.0, most: float = 20.0, flatness: float = 0.3
) -> list[tuple[int, int]]:
    """Finds windows whose pixels differ by noise, not by structure.

    A window is cut into 4x4 blocks. Averaging a block removes most of uncorrelated noise and leaves structure: without
    structure the blocks' means differ much less than the pixels do, and all blocks deviate from their means alike.

    Args:
        image: (height, width, channels), uint8 or uint16, or float32 in [0, 1].
        size: Height and width of a window in pixels, at least 8; windows lie on a grid without overlap.
        least: Standard deviation of the luminance (the channels' mean), on [0, 255], that a window has at least: windows
            without noise are of no use.
        most: The highest one: beyond it is texture.
        flatness: The highest standard deviation of the blocks' means, in relation to that of the pixels; and of the blocks'
            standard deviations, in relation to their mean.

    Returns:
        Top and left of each window. Windows that touch black or white are left out: noise is cut off there.

    Raises:
        ValueError: The size is too small.

    Source: after the variances that Ji et al. ask of a patch, "Real-World Super-Resolution via Kernel Estimation and Noise
    Injection", CVPR workshops 2020; the blocks are this package's.
    """
    if size < 2 * BLOCKS:
        raise ValueError(f'size: expected at least {2 * BLOCKS}, found {size}.')
    white = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1.0
    rows, columns = image.shape[0] // size, image.shape[1] // size
    if not rows or not columns:
        return []
    values = image[: rows * size, : columns * size].astype(np.float32) * (255 / white)
    windows = values.reshape(rows, size, columns, size, -1).swapaxes(1, 2)
    inside = (windows.min((2, 3, 4)) > 0) & (windows.max((2, 3, 4)) < 255)
    grey = windows.mean(4)
    side = size // BLOCKS
    blocks = grey[:, :, : BLOCKS * side, : BLOCKS * side].reshape(rows, columns, BLOCKS, side, BLOCKS, side)
    deviation, of_blocks = grey.std((2, 3)), blocks.std((3, 5))
    is_flat = blocks.mean((3, 5)).std((2, 3)) <= flatness * deviation
    is_even = of_blocks.std((2, 3)) <= flatness * of_blocks.mean((2, 3))
    good = inside & (deviation >= least) & (deviation <= most) & is_flat & is_even
    return [(row * size, column * size) for row, column in np.argwhere(good).tolist()]
