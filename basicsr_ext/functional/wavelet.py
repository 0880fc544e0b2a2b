"""Haar wavelets, with the signs and order of LFC-SR's published code."""

from __future__ import annotations

import torch
from torch.nn import functional

from basicsr_ext.errors import UserError
from basicsr_ext.functional.precision import exact_float32


def haar_dwt(images: torch.Tensor) -> torch.Tensor:
    """One level of the orthonormal 2-D Haar transform.

    Over each block ``[[a, b], [c, d]]``: LL = (a + b + c + d) / 2, HL = (-a + b - c + d) / 2, LH = (-a - b + c + d) / 2,
    HH = (a - b - c + d) / 2. LL of a constant image is twice that constant.

    Args:
        images: (N, C, H, W), any floating dtype and device; an odd last row or column is repeated.

    Returns:
        (N, 4 C, ceil(H / 2), ceil(W / 2)): all channels of LL, then of HL, LH and HH.
    """
    height, width = images.shape[-2:]
    if height % 2 or width % 2:
        images = functional.pad(images, (0, width % 2, 0, height % 2), mode='replicate')
    a, b = images[..., ::2, ::2] / 2, images[..., ::2, 1::2] / 2
    c, d = images[..., 1::2, ::2] / 2, images[..., 1::2, 1::2] / 2
    return torch.cat([a + b + c + d, b - a - c + d, c + d - a - b, a - b - c + d], 1)


def haar_idwt(bands: torch.Tensor, size: tuple[int, int] | None = None) -> torch.Tensor:
    """The inverse of :func:`haar_dwt`.

    Args:
        bands: (N, 4 C, H, W): all channels of LL, then of HL, LH and HH.
        size: Height and width of the images, where they were odd; default: ``(2 H, 2 W)``.

    Returns:
        (N, C, 2 H, 2 W), cropped to ``size``.

    Raises:
        UserError: The number of channels is no multiple of 4.
    """
    if bands.shape[1] % 4:
        raise UserError(f'haar_idwt: expected 4 bands of equally many channels, found {bands.shape[1]} channels.')
    ll, hl, lh, hh = (bands / 2).chunk(4, 1)
    blocks = torch.stack([ll - hl - lh + hh, ll + hl - lh - hh, ll - hl + lh - hh, ll + hl + lh + hh], 2)
    images = functional.pixel_shuffle(blocks.flatten(1, 2), 2)
    return images if size is None else images[..., : size[0], : size[1]]


def haar_low(images: torch.Tensor, levels: int = 1) -> torch.Tensor:
    """The LL band after several levels: of a constant image ``2 ** levels`` times that constant.

    Args:
        images: (N, C, H, W).
        levels: At least 1.

    Returns:
        (N, C, H / 2 ** levels, W / 2 ** levels), sizes rounded up.
    """
    for _ in range(levels):
        images = haar_dwt(images)[:, : images.shape[1]]
    return images


def haar_high(images: torch.Tensor) -> torch.Tensor:
    """The bands HL, LH and HH of one level together.

    Args:
        images: (N, C, H, W).

    Returns:
        (N, 3 C, ceil(H / 2), ceil(W / 2)).
    """
    return haar_dwt(images)[:, images.shape[1] :]


def gaussian_low(images: torch.Tensor, size: int = 21, sigma: float = 3.0) -> torch.Tensor:
    """A normalised Gaussian blur with reflected borders: LFC-SR's other low-frequency filter.

    Args:
        images: (N, C, H, W), both sides longer than ``size // 2``.
        size: Of the window, odd.
        sigma: In pixels.

    Returns:
        Of the same shape.

    Raises:
        UserError: The images are smaller than half the window.
    """
    if min(images.shape[-2:]) <= size // 2:
        raise UserError(
            f'gaussian_low: a window of {size} needs images of more than {size // 2} pixels a side, found '
            f'{images.shape[-2]}x{images.shape[-1]}. Use larger crops, or the Haar filter.'
        )
    offsets = torch.arange(size, device=images.device, dtype=images.dtype) - size // 2
    window = torch.exp(-offsets.square() / (2 * sigma**2))
    window = window / window.sum()
    channels = images.shape[1]
    images = functional.pad(images, (size // 2,) * 4, mode='reflect')
    with exact_float32(images.device):
        images = functional.conv2d(images, window.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
        return functional.conv2d(images, window.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
