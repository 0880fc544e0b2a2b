"""NIQE for ``val.metrics``, computed by BasicSR's ``calculate_niqe``, which has its parameters with it, or by pyiqa."""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from basicsr.metrics import niqe as basicsr_niqe

from basicsr_ext.errors import UserError
from basicsr_ext.metrics.images import Order, as_rgb, as_tensor, check_options
from basicsr_ext.metrics.networks import pyiqa_metric
from basicsr_ext.metrics.registering import metric
from basicsr_ext.networks.devices import resolve_device

BLOCK = 96
LIBRARIES = ('basicsr', 'pyiqa')


def check_niqe(library: str = 'basicsr', device: str = 'auto', **options: Any) -> None:
    """Checks the options of :func:`NIQE`, and that it can be computed.

    Raises:
        UserError: An option is wrong, or the package is missing.
    """
    check_options(**options)
    chosen = resolve_device(device)
    if library not in LIBRARIES:
        raise UserError(f'library: expected one of {", ".join(LIBRARIES)}, found {library!r}.')
    if library == 'pyiqa':
        build_niqe(str(chosen))


@metric('lower', check_niqe)
def NIQE(
    img: np.ndarray,
    img2: np.ndarray | None = None,
    crop_border: int = 0,
    library: Literal['basicsr', 'pyiqa'] = 'basicsr',
    device: str = 'auto',
    input_order: Order = 'HWC',
) -> float:
    """Natural image quality evaluator, on rounded luminance: how far an image is from undistorted photographs.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255]; at least two blocks of 96x96 pixels.
        img2: Not used; BasicSR hands it over where there is a GT image.
        crop_border: Pixels to leave out at each side.
        library: Who computes it, with the same parameters: BasicSR in NumPy, on the CPU, or pyiqa in PyTorch, on the
            device, to some 0.1% the same; blocks without texture make them differ more.
        device: For pyiqa: auto (the GPU where there is one), cpu, cuda, ...
        input_order: HWC or CHW.

    Raises:
        UserError: The options or the image do not fit; the package is missing.

    Source: Mittal et al., "Making a completely blind image quality analyzer", IEEE SPL 2013.
    """
    image = as_rgb(img, crop_border, input_order)
    height, width = image.shape[:2]
    if (height // BLOCK) * (width // BLOCK) < 2:
        raise UserError(f'NIQE needs at least two blocks of {BLOCK}x{BLOCK} pixels, found {height}x{width} pixels.')
    value = _by_pyiqa(image, resolve_device(device)) if library == 'pyiqa' else _by_basicsr(image)
    if not math.isfinite(value):
        raise UserError('NIQE cannot judge this image: it has too few blocks with texture.')
    return value


def _by_basicsr(image: np.ndarray) -> float:
    with warnings.catch_warnings(), np.errstate(all='ignore'):
        warnings.simplefilter('ignore')  # of blocks without texture, which are left out
        try:
            return basicsr_niqe.calculate_niqe(image[..., ::-1], 0)
        except np.linalg.LinAlgError:  # of blocks that are all without texture
            return math.nan


def _by_pyiqa(image: np.ndarray, device: torch.device) -> float:
    with torch.inference_mode():
        try:
            return float(build_niqe(str(device))(as_tensor(image, device)))
        except torch.linalg.LinAlgError:
            return math.nan


@lru_cache(maxsize=2)
def build_niqe(device: str) -> Any:
    """Makes pyiqa's metric with BasicSR's parameters, once for a device."""
    from scipy.io import savemat

    with np.load(Path(basicsr_niqe.__file__).with_name('niqe_pris_params.npz')) as parameters:
        model = {f'{name}_prisparam': parameters[f'{name}_pris_param'] for name in ('mu', 'cov')}
    with TemporaryDirectory() as folder:
        file = Path(folder, 'niqe_modelparameters.mat')
        savemat(file, model)
        return pyiqa_metric('NIQE', device, 'ycbcr', file)
