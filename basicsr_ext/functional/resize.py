"""MATLAB's ``imresize(..., 'bicubic')`` for arrays and tensors, and what super-resolution needs around it.

Resizing is a banded matrix product along height, then one along width. Each matrix is applied in dense blocks of output
pixels: the cost stays linear in the image's size, and BLAS does the work.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache
from numbers import Real
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from basicsr_ext.functional.precision import without_autocast

Image = TypeVar('Image', np.ndarray, Tensor)
Blocks = tuple[tuple[int, int, Tensor], ...]

KERNEL_WIDTH = 4
OUTPUTS_PER_BLOCK = 32  # enough rows for BLAS to be efficient, few enough for a block to be mostly band
BYTES_AT_ONCE = 1 << 22  # that resizing an array takes besides the array and the result, unless it is very wide
COMPUTE_DTYPES = {
    'uint8': 'float64',
    'uint16': 'float64',
    'float16': 'float32',
    'bfloat16': 'float32',
    'float32': 'float32',
    'float64': 'float64',
}


def imresize(image: Image, scale: float | Fraction, *, antialiasing: bool = True, double: bool = False) -> Image:
    """Resizes as MATLAB's ``imresize(image, scale, 'bicubic')``, differentiably for floating-point tensors.

    Integer images are rounded to their type between the two passes, as MATLAB does to ``uint8`` and ``uint16``: this
    reproduces the standard benchmark sets bit for bit. Sets made through ``im2double`` have no rounding between the
    passes: convert to float64 before, round after. Floating-point images, of any range, are never rounded or clipped.

    Args:
        image: Array (height, width) or (height, width, channels), or tensor (..., height, width) on any device, of type
            uint8, uint16, float16, bfloat16 (tensors only), float32 or float64. Integers are computed in float64, half
            precision in float32, also inside autocast. float32 is computed with torch's matmul precision: where TF32 is
            allowed, it is used here too.
        scale: Output size over input size, positive. Each side has ceil(size * scale) pixels in the output; rounding
            errors of a float that stands for a ratio, such as 1 / 3, add no pixel.
        antialiasing: Widens the kernel when shrinking, which is MATLAB's default.
        double: Maps an array's integers to float64 on [0, 1] first, as MATLAB's ``im2double`` does: nothing is rounded.

    Returns:
        The resized image, of the input's kind, type and device; with ``double`` float64. An array takes little more memory
        than its own and the result's.

    Raises:
        TypeError: The image is neither array nor tensor, or of another data type; the scale is not a number.
        ValueError: The image's dimensions do not fit, it has no pixels, or the scale is not positive and finite.
    """
    height, width = _size(image)
    dtype = _dtype_name(image)
    if dtype not in COMPUTE_DTYPES:
        raise TypeError(f'image: expected one of the types {", ".join(COMPUTE_DTYPES)}, found {dtype}.')
    if not isinstance(scale, Real) or isinstance(scale, bool):
        raise TypeError(f'scale: expected a number, found {scale!r}.')
    if not (scale > 0 and math.isfinite(scale)):
        raise ValueError(f'scale: expected a positive, finite number, found {scale!r}.')
    if min(height, width) == 0:
        raise ValueError(f'image: expected at least one pixel, found shape {tuple(image.shape)}.')
    scale = float(scale)

    if isinstance(image, Tensor):
        planes = image.to(getattr(torch, COMPUTE_DTYPES[dtype])).contiguous()
        return _resize_planes(planes, scale, antialiasing, dtype).to(image.dtype)
    return _resize_array(image, scale, antialiasing, double)


def downsample(image: Image, factor: int, *, double: bool = False) -> Image:
    """Shrinks an image by an integer factor with MATLAB's antialiased bicubic kernel; see :func:`imresize`.

    Args:
        image: As for :func:`imresize`; height and width are multiples of the factor.
        factor: Input size over output size, at least 1.
        double: As for :func:`imresize`.

    Raises:
        ValueError: Height or width is not a multiple of the factor, or the factor is not a positive integer.
    """
    height, width = _size(image)
    _check_factor(factor)
    if height % factor or width % factor:
        raise ValueError(
            f'image: expected height and width to be multiples of {factor}, found {height}x{width}; crop with mod_crop.'
        )
    return imresize(image, Fraction(1, int(factor)), double=double)


def upsample(image: Image, factor: int) -> Image:
    """Enlarges an image by an integer factor with MATLAB's bicubic kernel; see :func:`imresize`.

    Args:
        image: As for :func:`imresize`.
        factor: Output size over input size, at least 1.

    Raises:
        ValueError: The factor is not a positive integer.
    """
    _check_factor(factor)
    return imresize(image, int(factor))


def mod_crop(image: Image, factor: int) -> Image:
    """Crops bottom and right so that height and width are multiples of a factor; returns a view.

    Args:
        image: Array (height, width[, channels]) or tensor (..., height, width) of any type; no side is shorter
            than the factor.
        factor: Positive integer.

    Raises:
        ValueError: A side is shorter than the factor, or the factor is not a positive integer.
    """
    height, width = _size(image)
    _check_factor(factor)
    if min(height, width) < factor:
        raise ValueError(f'image: expected at least {factor}x{factor} pixels, found {height}x{width}.')
    height, width = height - height % factor, width - width % factor
    return image[..., :height, :width] if isinstance(image, Tensor) else image[:height, :width]


def _resize_array(image: np.ndarray, scale: float, antialiasing: bool, double: bool) -> np.ndarray:
    """Resizes an array in bands of rows: whole planes in float64 would take eight times the memory of 8 bits or more."""
    peak = np.iinfo(image.dtype).max if double and image.dtype.kind == 'u' else None
    compute = np.dtype(np.float64 if double else COMPUTE_DTYPES[image.dtype.name])
    result_dtype = compute if double else image.dtype
    dtype = result_dtype.name
    torch_dtype, device = getattr(torch, compute.name), torch.device('cpu')
    rows = _blocks(image.shape[0], scale, antialiasing, torch_dtype, device)
    columns = _blocks(image.shape[1], scale, antialiasing, torch_dtype, device)
    size = sum(len(weights) for *_, weights in rows), sum(len(weights) for *_, weights in columns)
    result = np.empty((*size, *image.shape[2:]), result_dtype)
    # What a block reads, what becomes of it, and what rounding that takes.
    rows_of_block = max(end - first for first, end, _ in rows) + 4 * OUTPUTS_PER_BLOCK
    bytes_of_row = max(image.shape[1], size[1]) * math.prod(image.shape[2:]) * compute.itemsize
    blocks_at_once = max(1, BYTES_AT_ONCE // (rows_of_block * bytes_of_row))
    start = 0
    for number in range(0, len(rows), blocks_at_once):
        blocks = rows[number : number + blocks_at_once]
        first, end = min(block[0] for block in blocks), max(block[1] for block in blocks)
        part = np.moveaxis(image[first:end], -1, 0) if image.ndim == 3 else image[first:end]
        planes = np.array(part, compute, order='C')
        if peak is not None:
            planes /= peak
        shifted = tuple((top - first, bottom - first, weights) for top, bottom, weights in blocks)
        with torch.autocast('cpu', enabled=False):
            band = _apply_blocks(torch.from_numpy(planes), shifted, columns, dtype).numpy()
        result[start : start + band.shape[-2]] = np.moveaxis(band, 0, -1) if image.ndim == 3 else band
        start += band.shape[-2]
    return result


def _resize_planes(planes: Tensor, scale: float, antialiasing: bool, dtype: str) -> Tensor:
    """Resizes contiguous planes (..., height, width), rounding after each pass if ``dtype`` names an integer type."""
    height, width = planes.shape[-2:]
    with without_autocast(planes.device):
        rows = _blocks(height, scale, antialiasing, planes.dtype, planes.device)
        columns = _blocks(width, scale, antialiasing, planes.dtype, planes.device)
        return _apply_blocks(planes, rows, columns, dtype)


def _apply_blocks(planes: Tensor, rows: Blocks, columns: Blocks, dtype: str) -> Tensor:
    planes = torch.cat([weights @ planes[..., first:end, :] for first, end, weights in rows], dim=-2)
    planes = _to_integers(planes, dtype)
    planes = torch.cat([planes[..., first:end] @ weights.mT for first, end, weights in columns], dim=-1)
    return _to_integers(planes, dtype)


def _to_integers(values: Tensor, dtype: str) -> Tensor:
    """Rounds half away from zero and saturates, as MATLAB's integer types do; leaves floating-point types alone."""
    if not dtype.startswith('uint'):
        return values
    # The margin lets exact halves round up on every device, however the order of a sum left their last bits.
    return (values + (0.5 + 1e-9)).floor_().clamp_(0, np.iinfo(dtype).max)


@lru_cache(maxsize=64)
def _blocks(length: int, scale: float, antialiasing: bool, dtype: torch.dtype, device: torch.device) -> Blocks:
    """The resizing matrix of one side as blocks: first input, end of inputs, weights (outputs, inputs)."""
    weights, indices = _contributions(length, scale, antialiasing)
    blocks = []
    for start in range(0, len(weights), OUTPUTS_PER_BLOCK):
        taps = indices[start : start + OUTPUTS_PER_BLOCK]
        first, end = int(taps.min()), int(taps.max()) + 1
        matrix = np.zeros((len(taps), end - first))
        # Reflection can bring several taps of one output to the same input, hence a sum.
        np.add.at(matrix, (np.arange(len(taps))[:, None], taps - first), weights[start : start + OUTPUTS_PER_BLOCK])
        with torch.inference_mode(False):  # a cached inference tensor would break a later backward pass
            blocks.append((first, end, torch.from_numpy(matrix).to(device, dtype)))
    return tuple(blocks)


def _contributions(length: int, scale: float, antialiasing: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights and input indices (outputs, taps) of MATLAB's bicubic interpolation along one side, in float64."""
    # Snapped to a billionth of a pixel: the product of a size and a rounded ratio may lie just above an integer.
    outputs = math.ceil(round(length * scale, 9))
    squeeze = min(scale, 1.0) if antialiasing else 1.0
    width = KERNEL_WIDTH / squeeze
    # MATLAB counts pixels from 1; 0.5, the left edge of the first output pixel, maps to 0.5 in the input.
    centres = np.arange(1, outputs + 1) / scale + 0.5 * (1 - 1 / scale)
    positions = np.floor(centres - width / 2)[:, None] + np.arange(math.ceil(width) + 2)
    weights = squeeze * _cubic(squeeze * (centres[:, None] - positions))
    weights /= weights.sum(axis=1, keepdims=True)
    used = (weights != 0).any(axis=0)
    there_and_back = np.concatenate([np.arange(length), np.arange(length)[::-1]])
    return weights[:, used], there_and_back[(positions[:, used].astype(int) - 1) % (2 * length)]


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Keys' cubic convolution kernel with a = -0.5 (Keys, "Cubic convolution interpolation", 1981)."""
    x = np.abs(distance)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return near * (x <= 1) + far * ((x > 1) & (x <= 2))


def _size(image: np.ndarray | Tensor) -> tuple[int, int]:
    """Height and width of an array (height, width[, channels]) or a tensor (..., height, width)."""
    if isinstance(image, Tensor):
        if image.ndim < 2:
            raise ValueError(f'image: expected a tensor (..., height, width), found shape {tuple(image.shape)}.')
        return image.shape[-2], image.shape[-1]
    if not isinstance(image, np.ndarray):
        raise TypeError(f'image: expected a numpy array or a torch tensor, found {type(image).__name__}.')
    if image.ndim not in (2, 3):
        raise ValueError(
            f'image: expected an array (height, width) or (height, width, channels), found shape {image.shape}.'
        )
    return image.shape[0], image.shape[1]


def _dtype_name(image: np.ndarray | Tensor) -> str:
    return str(image.dtype).removeprefix('torch.') if isinstance(image, Tensor) else image.dtype.name


def _check_factor(factor: int) -> None:
    if not isinstance(factor, int | np.integer) or isinstance(factor, bool) or factor < 1:
        raise ValueError(f'factor: expected a positive integer, found {factor!r}.')
