"""From what BasicSR's validation hands to a metric to what the metric computes on."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.functional.luminance import luminance

Order = Literal['HWC', 'CHW']


def as_rgb(img: np.ndarray, crop_border: int = 0, input_order: Order = 'HWC') -> np.ndarray:
    """Orders channels and cuts the border off.

    Args:
        img: BGR (height, width, 3) or grey (height, width[, 1]), or channels first; uint8, or floating point on [0, 255].
        crop_border: Pixels to cut off at each side.
        input_order: Where the channels are.

    Returns:
        RGB or grey (height, width, 3 or 1).

    Raises:
        UserError: The options are out of range, or the array is no such image.
    """
    check_options(crop_border, input_order)
    image = img.transpose(1, 2, 0) if img.ndim == 3 and input_order == 'CHW' else img
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] not in (1, 3):
        raise UserError(f'expected an image with 1 or 3 channels, found an array of shape {img.shape}.')
    if np.issubdtype(image.dtype, np.integer) and image.dtype != np.uint8:
        raise UserError(f'expected uint8, or floating point values on [0, 255], found {image.dtype}.')
    height, width = (side - 2 * crop_border for side in image.shape[:2])
    if min(height, width) < 1:
        raise UserError(
            f'crop_border: {crop_border} leaves nothing of an image of {image.shape[0]}x{image.shape[1]} pixels.'
        )
    return image[crop_border : crop_border + height, crop_border : crop_border + width, ::-1]


def as_pair(
    img: np.ndarray, img2: np.ndarray, crop_border: int = 0, input_order: Order = 'HWC', test_y_channel: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Prepares an image and its GT image as :func:`as_rgb` does; optionally takes their luminance.

    Grey images, such as those of luminance networks, are their own luminance.

    Returns:
        Two arrays (height, width, 3 or 1) of one shape.

    Raises:
        UserError: As :func:`as_rgb`; the sizes or the channels differ.
    """
    pair = tuple(as_rgb(image, crop_border, input_order) for image in (img, img2))
    if pair[0].shape != pair[1].shape:
        raise UserError(f'expected an image of the same size as its GT image, {img2.shape}, found {img.shape}.')
    if test_y_channel and pair[0].shape[2] == 3:
        pair = tuple(luminance(image)[..., None] for image in pair)
    return pair


def as_tensor(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """Turns an image of :func:`as_rgb` into RGB (1, 3, height, width), float32 on [0, 1]; grey is repeated."""
    planes = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(device)
    return planes.to(torch.float32).div(255).expand(3, -1, -1)[None]


def check_options(crop_border: int = 0, input_order: Order = 'HWC', **others: Any) -> None:
    """Checks the options that metrics share; others are left alone.

    Raises:
        UserError: One is out of range.
    """
    if not isinstance(crop_border, int) or isinstance(crop_border, bool) or crop_border < 0:
        raise UserError(f'crop_border: expected a whole number of pixels from 0 on, found {crop_border!r}.')
    if input_order not in ('HWC', 'CHW'):
        raise UserError(f'input_order: expected HWC or CHW, found {input_order!r}.')
