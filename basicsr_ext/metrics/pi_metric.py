"""The perceptual index for ``val.metrics``."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from basicsr_ext.metrics.images import Order, as_rgb
from basicsr_ext.metrics.niqe_metric import NIQE, check_niqe
from basicsr_ext.metrics.nrqm_metric import check_nrqm, measure_nrqm
from basicsr_ext.metrics.registering import metric


def _check_ready(niqe_library: str = 'basicsr', device: str = 'auto', **options: Any) -> None:
    check_niqe(niqe_library, device)
    check_nrqm('ycbcr', device=device, **options)


@metric('lower', _check_ready)
def PI(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: int = 0,
    niqe_library: Literal['basicsr', 'pyiqa'] = 'basicsr',
    model_path: str | None = None,
    device: str = 'auto',
    input_order: Order = 'HWC',
) -> float:
    """Perceptual index of the PIRM challenge: ((10 - NRQM) + NIQE) / 2, of an image alone.

    Arguments are those of :func:`~basicsr_ext.metrics.nrqm_metric.NRQM`, with ``niqe_library`` as ``library`` of
    :func:`~basicsr_ext.metrics.niqe_metric.NIQE`; the challenge left out a border of 4 pixels.

    Raises:
        UserError: The options or the image do not fit; the package or the model are missing.

    Source: Blau et al., "The 2018 PIRM challenge on perceptual image super-resolution", ECCV workshops 2018, equation 1.
    """
    image = as_rgb(img, crop_border, input_order)
    niqe = NIQE(image[..., ::-1], library=niqe_library, device=device)
    return ((10 - measure_nrqm(image, 'ycbcr', model_path, device)) + niqe) / 2
