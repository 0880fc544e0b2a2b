"""SSIM for ``val.metrics``."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.functional.ssim import WINDOW, ssim, ssim_of_pspl
from basicsr_ext.metrics.images import Order, as_pair, check_options
from basicsr_ext.metrics.registering import metric


def _check(crop_border: int = 0, test_y_channel: bool = False, protocol: str = 'usual', **others: Any) -> None:
    check_options(crop_border, **others)
    if protocol not in ('usual', 'pspl'):
        raise UserError(f'protocol: expected usual or pspl, found {protocol!r}.')
    if protocol == 'pspl' and (crop_border or not test_y_channel):
        raise UserError(
            'protocol: pspl measures luminance of whole images: set crop_border: 0 and test_y_channel: true.'
        )


@metric('higher', _check)
def SSIM(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int,
    test_y_channel: bool = False,
    input_order: Order = 'HWC',
    protocol: Literal['usual', 'pspl'] = 'usual',
) -> float:
    """Structural similarity, as published numbers are made, equal to the MATLAB code of its authors.

    Arguments are those of :func:`~basicsr_ext.metrics.psnr_metric.PSNR`; at least 11x11 pixels are left within the border.
    ``protocol: pspl`` is :func:`~basicsr_ext.functional.ssim.ssim_of_pspl`: what PSPL's published SSIM is measured by, not
    comparable with others.

    Returns:
        At most 1; the mean over channels.

    Raises:
        UserError: The options or the images do not fit.
    """
    _check(crop_border, test_y_channel, protocol)
    if protocol == 'pspl':
        return ssim_of_pspl(*as_pair(img, img2, 0, input_order))
    pair = as_pair(img, img2, crop_border, input_order, test_y_channel)
    if min(pair[0].shape[:2]) < WINDOW:
        raise UserError(
            f'SSIM needs {WINDOW}x{WINDOW} pixels, and {pair[0].shape[0]}x{pair[0].shape[1]} are left within crop_border '
            f'{crop_border}.'
        )
    return ssim(*pair)
