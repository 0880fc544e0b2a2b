"""NIQE for ``val.metrics``, computed by BasicSR's ``calculate_niqe``, which has its parameters with it."""

from __future__ import annotations

import math
import warnings
from typing import Literal

import numpy as np
from basicsr.metrics.niqe import calculate_niqe
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.errors import UserError
from basicsr_ext.metrics.images import Order, as_rgb, check_options

BLOCK = 96


@METRIC_REGISTRY.register()
def NIQE(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: int = 0,
    input_order: Order = 'HWC',
    better: Literal['higher', 'lower'] = 'lower',
) -> float:
    """Natural image quality evaluator, on rounded luminance: how far an image is from undistorted photographs.

    It runs on the CPU: BasicSR's is made of NumPy and SciPy.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255]; at least two blocks of 96x96 pixels.
        img2: Not used; BasicSR hands it over where there is a GT image.
        crop_border: Pixels to leave out at each side.
        input_order: HWC or CHW.
        better: Read by BasicSR's record of the best iteration.

    Raises:
        UserError: The options or the image do not fit.

    Source: Mittal et al., "Making a completely blind image quality analyzer", IEEE SPL 2013.
    """
    image = as_rgb(img, crop_border, input_order)
    height, width = image.shape[:2]
    if (height // BLOCK) * (width // BLOCK) < 2:
        raise UserError(f'NIQE needs at least two blocks of {BLOCK}x{BLOCK} pixels, found {height}x{width} pixels.')
    with warnings.catch_warnings(), np.errstate(all='ignore'):
        warnings.simplefilter('ignore')  # of blocks without texture, which are left out
        try:
            value = calculate_niqe(image[..., ::-1], 0)
        except np.linalg.LinAlgError:  # of blocks that are all without texture
            value = math.nan
    if not math.isfinite(value):
        raise UserError('NIQE cannot judge this image: it has too few blocks with texture.')
    return value


NIQE.better = 'lower'
NIQE.check_ready = check_options
