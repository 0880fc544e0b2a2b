"""LPIPS for ``val.metrics``, computed by the package lpips of its authors."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.metrics.images import Order, as_pair, as_tensor, check_options
from basicsr_ext.metrics.networks import BACKBONES, fetching, freeze, load_features, require
from basicsr_ext.metrics.registering import metric
from basicsr_ext.networks.devices import resolve_device
from basicsr_ext.networks.weights import fit_weights, read_weights


def _check_ready(
    net: str = 'alex',
    backbone_path: str | None = None,
    linear_path: str | None = None,
    device: str = 'auto',
    **options: Any,
) -> None:
    check_options(**options)
    resolve_device(device)
    build_lpips(net, backbone_path, linear_path)


@metric('lower', _check_ready)
def LPIPS(
    img: np.ndarray,
    img2: np.ndarray,
    net: Literal['alex', 'vgg', 'squeeze'] = 'alex',
    crop_border: int = 0,
    backbone_path: str | None = None,
    linear_path: str | None = None,
    device: str = 'auto',
    input_order: Order = 'HWC',
) -> float:
    """Learned perceptual image patch similarity (version 0.1): a distance, 0 for equal images.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255].
        img2: GT image of the same size.
        net: Backbone; published numbers of super-resolution are AlexNet's.
        crop_border: Pixels to leave out at each side; published numbers leave out none.
        backbone_path: Weights of the backbone, as torchvision's or of its features alone; default: torchvision's, which
            are downloaded once.
        linear_path: Weights of the linear layers; default: those that the package carries.
        device: auto (the GPU where there is one), cpu, cuda, ...
        input_order: HWC or CHW.

    Raises:
        UserError: The options or images do not fit; the package or weights are missing.

    Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric", CVPR 2018, equation 1.
    """
    chosen = resolve_device(device)
    network = build_lpips(net, backbone_path, linear_path).to(chosen)
    image, reference = (2 * as_tensor(i, chosen) - 1 for i in as_pair(img, img2, crop_border, input_order))
    with torch.inference_mode():
        return float(network(image, reference))


@lru_cache(maxsize=4)
def build_lpips(net: str = 'alex', backbone_path: str | None = None, linear_path: str | None = None) -> nn.Module:
    """Builds the network on the CPU, once for the same arguments; see :func:`LPIPS`."""
    if net not in BACKBONES:
        raise UserError(f'net: expected one of {", ".join(BACKBONES)}, found {net!r}.')
    lpips = require('lpips', 'LPIPS', 'metrics')
    with fetching('LPIPS', BACKBONES[net], 'backbone_path'):
        network = lpips.LPIPS(net=net, pnet_rand=backbone_path is not None, verbose=False)
    if backbone_path is not None:
        load_features(network.net, backbone_path)
    if linear_path is not None:
        path = os.path.expanduser(linear_path)
        weights = {key.removeprefix('lin'): value for key, value in read_weights(path).items()}
        fit_weights(network.lins, weights, path)
    return freeze(network)
