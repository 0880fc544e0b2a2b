"""SSIM for ``val.metrics``."""

from __future__ import annotations

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.functional.ssim import WINDOW, ssim
from basicsr_ext.metrics.images import Order, as_pair, check_options
from basicsr_ext.metrics.registering import metric


@metric('higher', check_options)
def SSIM(
    img: np.ndarray, img2: np.ndarray, crop_border: int, test_y_channel: bool = False, input_order: Order = 'HWC'
) -> float:
    """Structural similarity, as published numbers are made, equal to the MATLAB code of its authors.

    Arguments are those of :func:`~basicsr_ext.metrics.psnr_metric.PSNR`; at least 11x11 pixels are left within the border.

    Returns:
        At most 1; the mean over channels.

    Raises:
        UserError: The options or the images do not fit.
    """
    pair = as_pair(img, img2, crop_border, input_order, test_y_channel)
    if min(pair[0].shape[:2]) < WINDOW:
        raise UserError(
            f'SSIM needs {WINDOW}x{WINDOW} pixels, and {pair[0].shape[0]}x{pair[0].shape[1]} are left within crop_border '
            f'{crop_border}.'
        )
    return ssim(*pair)
