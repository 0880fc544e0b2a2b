"""The perceptual index for ``val.metrics``."""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.functional.device import resolve_device
from basicsr_ext.metrics.images import Order, as_rgb, as_tensor
from basicsr_ext.metrics.niqe_metric import NIQE
from basicsr_ext.metrics.nrqm_metric import build_nrqm, check_nrqm


@METRIC_REGISTRY.register()
def PI(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: int = 0,
    model_path: str | None = None,
    device: str = 'auto',
    input_order: Order = 'HWC',
    better: Literal['higher', 'lower'] = 'lower',
) -> float:
    """Perceptual index of the PIRM challenge: ((10 - NRQM) + NIQE) / 2, of an image alone.

    NIQE runs on the CPU, NRQM on the device.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255]; at least two blocks of 96x96 pixels.
        img2: Not used; BasicSR hands it over where there is a GT image.
        crop_border: Pixels to leave out at each side; the challenge left out 4.
        model_path: As for NRQM.
        device: For NRQM: auto (the GPU where there is one), cpu, cuda, ...
        input_order: HWC or CHW.
        better: Read by BasicSR's record of the best iteration.

    Raises:
        UserError: The options or the image do not fit; the package or the model are missing.

    Source: Blau et al., "The 2018 PIRM challenge on perceptual image super-resolution", ECCV workshops 2018, equation 1.
    """
    chosen = resolve_device(device)
    image = as_tensor(as_rgb(img, crop_border, input_order), chosen)
    with torch.inference_mode():
        nrqm = float(build_nrqm(str(chosen), 'ycbcr', model_path)(image))
    return ((10 - nrqm) + NIQE(img, None, crop_border, input_order)) / 2


PI.better = 'lower'
PI.check_ready = partial(check_nrqm, 'ycbcr')
