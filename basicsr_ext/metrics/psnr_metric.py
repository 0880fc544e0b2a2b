"""PSNR for ``val.metrics``."""

from __future__ import annotations

import numpy as np

from basicsr_ext.functional.psnr import psnr
from basicsr_ext.metrics.images import Order, as_pair, check_options
from basicsr_ext.metrics.registering import metric


@metric('higher', check_options)
def PSNR(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool = False, input_order: Order = 'HWC'
) -> float:
    """Peak signal-to-noise ratio, as published numbers are made.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255].
        img2: GT image of the same size.
        crop_border: Pixels to leave out at each side; benchmarks leave out as many as the scale.
        test_y_channel: Measure on luminance, not rounded, as on the benchmark sets; else on RGB, as on real scenes.
        input_order: HWC or CHW.

    Returns:
        In dB.

    Raises:
        UserError: The options or the images do not fit.
    """
    return psnr(*as_pair(img, img2, crop_border, input_order, test_y_channel))
