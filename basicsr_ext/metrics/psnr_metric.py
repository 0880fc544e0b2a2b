"""PSNR for ``val.metrics``."""

from __future__ import annotations

from typing import Literal

import numpy as np
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.functional.psnr import psnr
from basicsr_ext.metrics.images import Order, as_pair, check_options


@METRIC_REGISTRY.register()
def PSNR(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    test_y_channel: bool = False,
    input_order: Order = 'HWC',
    better: Literal['higher', 'lower'] = 'higher',
) -> float:
    """Peak signal-to-noise ratio, as published numbers are made.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255].
        img2: GT image of the same size.
        crop_border: Pixels to leave out at each side; benchmarks leave out as many as the scale.
        test_y_channel: Measure on luminance, not rounded, as on the benchmark sets; else on RGB, as on real scenes.
        input_order: HWC or CHW.
        better: Read by BasicSR's record of the best iteration.

    Returns:
        In dB.

    Raises:
        UserError: The options or the images do not fit.
    """
    return psnr(*as_pair(img, img2, crop_border, input_order, test_y_channel))


PSNR.better = 'higher'
PSNR.check_ready = lambda crop_border, input_order='HWC', **_: check_options(crop_border, input_order)
