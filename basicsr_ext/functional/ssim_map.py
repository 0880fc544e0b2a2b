"""The map of structural similarity (SSIM) of two images, with zero padding, so that it has the images' size.

Source: Wang et al., "Image quality assessment: from error visibility to structural similarity", 2004; as Eqs. 3-5 of
"Pixel-level Self-Paced Learning for Super-Resolution", arXiv 2003.03113.

Written with the sum s = x + y and the difference d = x - y, whose windowed means and variances are m and v, SSIM is

    (m_s^2 - m_d^2 + 2 C1) (v_s - v_d + 2 C2) / ((m_s^2 + m_d^2 + 2 C1) (v_s + v_d + 2 C2)).

This is the usual formula, with less cancellation in it: between similar images the terms of d are small; variances that
rounding made negative can be set to 0, which keeps the map within [-1, 1]; and moments are taken of s minus about its mean
over the image, which changes no variance. Outside of the image is then not 0 but minus that mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from basicsr_ext.functional.precision import exact_float32

ROWS_PER_BLOCK = 48  # enough for BLAS to be efficient, few enough for a block to be mostly band
ROWS_PER_BLOCK_ON_GPU = 256  # a launch costs more there than products with zeros
PIXELS_PER_CHUNK = 300_000  # what is computed at once on a CPU, so that it stays in the cache; at least one plane
SHIFT_ROWS = 16  # every how many rows the mean is taken of: it need not be exact
Blocks = tuple[tuple[slice, slice, Tensor, Tensor], ...]


@dataclass(frozen=True)
class SSIMSettings:
    """The constants of SSIM.

    C1 = (k1 data_range)^2 and C2 = (k2 data_range)^2. PSPL's published code has images in [0, 255] and the constants of
    ``data_range`` 1; with images in [0, 1] that is ``data_range`` 1/255.

    Attributes:
        data_range: Largest minus smallest value that images may have, positive.
        k1: Of C1, positive.
        k2: Of C2, positive.
        window_size: Side of the Gaussian window in pixels, odd.
        sigma: Standard deviation of the Gaussian in pixels, positive.

    Raises:
        ValueError: Begins with the name of the attribute that is out of its range.
    """

    data_range: float = 1.0
    k1: float = 0.01
    k2: float = 0.03
    window_size: int = 11
    sigma: float = 1.5

    def __post_init__(self) -> None:
        for name in ('data_range', 'k1', 'k2', 'sigma'):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f'{name}: expected a positive, finite number, found {value!r}.')
        if self.window_size != int(self.window_size) or self.window_size < 1 or self.window_size % 2 == 0:
            raise ValueError(f'window_size: expected an odd, positive whole number, found {self.window_size!r}.')

    @property
    def c1(self) -> float:
        """C1, which steadies the comparison of means."""
        return (self.k1 * self.data_range) ** 2

    @property
    def c2(self) -> float:
        """C2, which steadies the comparison of variances."""
        return (self.k2 * self.data_range) ** 2


def ssim_map(x: Tensor, y: Tensor, settings: SSIMSettings | None = None) -> Tensor:
    """Returns the SSIM of each pixel's window, channel by channel (Eqs. 3-5); no gradient flows through it.

    Outside of the images is 0 (zero padding), as in PSPL's published code.

    Args:
        x: Image (..., height, width), of a floating-point type. Half precision is computed in float32, and float32 is
            computed as such inside autocast and where TF32 is allowed: less is useless here.
        y: Image of the same shape and type.
        settings: Constants and window; ``data_range`` is that of the images.

    Returns:
        The map, of the images' shape, in [-1, 1], float32 (float64 for float64 images).

    Raises:
        TypeError: An image is not of a floating-point type.
        ValueError: The shapes differ, or there are no pixels.
    """
    x, y = computable(x, y)
    result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    planes = result.view(-1, *x.shape[-2:])
    for chunk, similarity in ssim_chunks(x, y, settings or SSIMSettings()):
        planes[chunk] = similarity
    return result


def computable(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Returns two images in the type in which they are compared: float64 where one of them is, else float32.

    Raises:
        TypeError: An image is not of a floating-point type.
        ValueError: The shapes differ, or there are no pixels.
    """
    for image in (x, y):
        if not image.is_floating_point():
            raise TypeError(f'expected images of a floating-point type, found {image.dtype}.')
    if x.shape != y.shape or x.ndim < 2 or x.numel() == 0:
        shapes = f'{tuple(x.shape)} and {tuple(y.shape)}'
        raise ValueError(f'expected two images (..., height, width) of the same shape, found {shapes}.')
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    return x.to(dtype), y.to(dtype)


@torch.no_grad()
def ssim_chunks(x: Tensor, y: Tensor, settings: SSIMSettings) -> Iterator[tuple[slice, Tensor]]:
    """Yields the SSIM map a few planes at a time, so that who weighs pixels by it can do so while it is in the cache.

    Args:
        x: Image (..., height, width), float32 or float64.
        y: Image of the same shape and type.
        settings: Constants and window.

    Yields:
        Which planes of ``x.reshape(-1, height, width)``, and their similarities (planes, height, width), which are a
        new tensor.
    """
    height, width = x.shape[-2:]
    planes_x, planes_y = x.reshape(-1, height, width), y.reshape(-1, height, width)
    count = len(planes_x)
    size = max(1, PIXELS_PER_CHUNK // (height * width)) if x.device.type == 'cpu' else count
    for start in range(0, count, size):
        chunk = slice(start, min(start + size, count))
        yield chunk, _similarity(planes_x[chunk], planes_y[chunk], settings)


def _similarity(x: Tensor, y: Tensor, settings: SSIMSettings) -> Tensor:
    """SSIM of planes (planes, height, width).

    Four images go through the window, and lie as (4, height, planes, width): so both passes are products of matrices.
    """
    planes, height, width = x.shape
    images = x.new_empty(4, height, planes, width)
    s, d = images[:2]
    torch.add(x.transpose(0, 1), y.transpose(0, 1), out=s)
    torch.sub(x.transpose(0, 1), y.transpose(0, 1), out=d)
    shift = s[::SHIFT_ROWS].mean((0, 2))[:, None]
    s.sub_(shift)
    torch.mul(images[:2], images[:2], out=images[2:])
    _blur(images, settings)

    outside = torch.stack([-shift, shift * shift])[:, None]  # values of s and its square outside of the image
    images[0::2].addcmul_(_weight_outside(height, width, settings, x.dtype, x.device), outside)
    means, variances = images[:2], images[2:]
    variances.addcmul_(means, means, value=-1).clamp_(min=0)
    s.add_(shift)
    torch.addcmul(s.new_full((), 2 * settings.c1), s, s, out=s)
    d.mul_(d)
    variances[0].add_(2 * settings.c2)
    of_sum, of_difference = images[0::2], images[1::2]
    parts = of_difference.div_(of_sum.add_(of_difference))  # a factor of SSIM is 1 - 2 part
    similarity = x.new_empty(planes, height, width)
    luminance = torch.sub(s.new_ones(()), parts[0], alpha=2, out=s)
    torch.addcmul(luminance, luminance, parts[1], value=-2, out=similarity.transpose(0, 1))
    return similarity


def _blur(images: Tensor, settings: SSIMSettings) -> None:
    """Applies the window to images (4, height, planes, width) in place, as a banded matrix product along each side.

    Autocast leaves products alone whose output is given.
    """
    count, height, _, width = images.shape
    between = torch.empty_like(images)
    with exact_float32(images.device):
        sources, targets = images.view(count, height, -1), between.view(count, height, -1)
        for outputs, inputs, weights, _ in _blocks(height, settings, images.dtype, images.device):
            if images.is_cuda:  # one launch
                torch.bmm(weights.expand(count, -1, -1), sources[:, inputs], out=targets[:, outputs])
                continue
            for source, target in zip(sources, targets, strict=True):
                torch.mm(weights, source[inputs], out=target[outputs])
        source, target = between.view(-1, width), images.view(-1, width)
        for outputs, inputs, _, transposed in _blocks(width, settings, images.dtype, images.device):
            torch.mm(source[:, inputs], transposed, out=target[:, outputs])


def gaussian_window(size: int, sigma: float) -> Tensor:
    """Returns the weights of a Gaussian window along one side, float64, which sum to 1.

    Args:
        size: Number of weights, odd.
        sigma: Standard deviation in pixels.
    """
    distance = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-(distance**2) / (2 * sigma**2))
    return weights / weights.sum()


def _banded(length: int, settings: SSIMSettings) -> Tensor:
    """The window along one side as a banded matrix, float64."""
    window = gaussian_window(settings.window_size, settings.sigma)
    offsets = torch.arange(length)[None] - torch.arange(length)[:, None] + settings.window_size // 2
    inside = (offsets >= 0) & (offsets < settings.window_size)
    return torch.where(inside, window[offsets.clamp(0, settings.window_size - 1)], 0.0)


@lru_cache(maxsize=16)
def window_on(device: torch.device, dtype: torch.dtype, size: int, sigma: float) -> Tensor:
    """Returns :func:`gaussian_window` on a device, where it stays."""
    with torch.inference_mode(False):
        return gaussian_window(size, sigma).to(device, dtype, copy=True)


@lru_cache(maxsize=64)
def _blocks(length: int, settings: SSIMSettings, dtype: torch.dtype, device: torch.device) -> Blocks:
    """The window along one side as a banded matrix, in blocks: outputs, inputs, weights, weights transposed."""
    reach = settings.window_size // 2
    matrix = _banded(length, settings)
    rows = ROWS_PER_BLOCK if device.type == 'cpu' else ROWS_PER_BLOCK_ON_GPU
    blocks = []
    for start in range(0, length, rows):
        outputs = slice(start, min(start + rows, length))
        inputs = slice(max(outputs.start - reach, 0), min(outputs.stop + reach, length))
        with torch.inference_mode(False):  # a cached inference tensor could not be used elsewhere
            weights = matrix[outputs, inputs].to(device, dtype, copy=True)
            blocks.append((outputs, inputs, weights.contiguous(), weights.mT.contiguous()))
    return tuple(blocks)


@lru_cache(maxsize=4)
def _weight_outside(
    height: int, width: int, settings: SSIMSettings, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """How much of each pixel's window lies outside of the image, (height, 1, width)."""
    inside = torch.outer(_banded(height, settings).sum(1), _banded(width, settings).sum(1))
    with torch.inference_mode(False):
        return (1 - inside)[:, None].to(device, dtype, copy=True)
