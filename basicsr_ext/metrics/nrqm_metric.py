"""NRQM, also known as Ma, for ``val.metrics``, computed by pyiqa."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.metrics.images import Order, as_rgb, as_tensor, check_options
from basicsr_ext.metrics.networks import fetching, pyiqa_metric
from basicsr_ext.metrics.registering import metric
from basicsr_ext.networks.devices import resolve_device

MODEL = 'NRQM_model.mat'


def check_nrqm(color_space: str = 'yiq', model_path: str | None = None, device: str = 'auto', **options: Any) -> None:
    """Checks the options of :func:`NRQM`, and that it can be computed.

    Raises:
        UserError: An option is wrong, or the package or the model are missing.
    """
    check_options(**options)
    build_nrqm(str(resolve_device(device)), color_space, model_path)


@metric('higher', check_nrqm)
def NRQM(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: int = 0,
    model_path: str | None = None,
    device: str = 'auto',
    input_order: Order = 'HWC',
) -> float:
    """No-reference quality metric for super-resolution, also called Ma: from 0 to 10.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255].
        img2: Not used; BasicSR hands it over where there is a GT image.
        crop_border: Pixels to leave out at each side.
        model_path: The regression model, ``NRQM_model.mat``; default: pyiqa's, which is downloaded once.
        device: auto (the GPU where there is one), cpu, cuda, ...
        input_order: HWC or CHW.

    Raises:
        UserError: The options or the image do not fit; the package or the model are missing.

    Source: Ma et al., "Learning a no-reference quality metric for single-image super-resolution", CVIU 2017.
    """
    return measure_nrqm(as_rgb(img, crop_border, input_order), 'yiq', model_path, device)


def measure_nrqm(image: np.ndarray, color_space: str, model_path: str | None, device: str) -> float:
    """Computes NRQM of an image of :func:`~basicsr_ext.metrics.images.as_rgb`; other arguments as of :func:`build_nrqm`."""
    chosen = resolve_device(device)
    with torch.inference_mode():
        return float(build_nrqm(str(chosen), color_space, model_path)(as_tensor(image, chosen)))


@lru_cache(maxsize=4)
def build_nrqm(device: str, color_space: str, model_path: str | None = None) -> Any:
    """Makes pyiqa's metric, once for the same arguments.

    Args:
        device: Where it computes.
        color_space: Whose luminance it takes: ``yiq`` as its authors, ``ycbcr`` as within the perceptual index.
        model_path: As for :func:`NRQM`.
    """
    if model_path is None:
        with fetching('NRQM', MODEL, 'model_path'):
            return pyiqa_metric('NRQM', device, color_space)
    path = os.path.expanduser(model_path)
    if not os.path.isfile(path):
        raise UserError(f'model_path: expected a file at {model_path}, found none.')
    try:
        return pyiqa_metric('NRQM', device, color_space, path)
    except UserError:
        raise
    except Exception as error:  # whatever SciPy makes of another file
        raise UserError(f'model_path: expected {MODEL}, found another file at {model_path} ({error}).') from None
