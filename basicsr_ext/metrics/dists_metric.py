"""DISTS for ``val.metrics``, computed by torchmetrics."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Literal
from unittest import mock

import numpy as np
import torch
from basicsr.utils.registry import METRIC_REGISTRY
from torch import nn

from basicsr_ext.functional.device import resolve_device
from basicsr_ext.metrics.images import Order, as_pair, as_tensor, check_options
from basicsr_ext.metrics.networks import fetching, freeze, load_features, require


@METRIC_REGISTRY.register()
def DISTS(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int = 0,
    backbone_path: str | None = None,
    device: str = 'auto',
    input_order: Order = 'HWC',
    better: Literal['higher', 'lower'] = 'lower',
) -> float:
    """Deep image structure and texture similarity: a distance, 0 for equal images.

    Args:
        img: BGR or grey image, uint8, or floating point on [0, 255].
        img2: GT image of the same size.
        crop_border: Pixels to leave out at each side.
        backbone_path: Weights of VGG-16, as torchvision's or of its features alone; default: torchvision's, which are
            downloaded once.
        device: auto (the GPU where there is one), cpu, cuda, ...
        input_order: HWC or CHW.
        better: Read by BasicSR's record of the best iteration.

    Raises:
        UserError: The options or images do not fit; the package or weights are missing.

    Source: Ding et al., "Image quality assessment: unifying structure and texture similarity", TPAMI 2020, equation 8.
    """
    chosen = resolve_device(device)
    network = build_dists(backbone_path).to(chosen)
    image, reference = (as_tensor(i, chosen) for i in as_pair(img, img2, crop_border, input_order))
    with torch.inference_mode():
        return float(network(image, reference))


@lru_cache(maxsize=2)
def build_dists(backbone_path: str | None = None) -> nn.Module:
    """Builds the network on the CPU, once for the same arguments; see :func:`DISTS`."""
    library = require('torchmetrics.functional.image.dists', 'DISTS', 'metrics')
    if backbone_path is None:
        with fetching('DISTS', 'backbone_path'):
            return freeze(library.DISTSNetwork())
    from torchvision.models import vgg16

    with torch.device('meta'):  # its classifier, most of its weights, is of no use
        features = vgg16().features
    # The library always takes torchvision's pretrained network; here its weights come from elsewhere.
    with mock.patch.object(library, 'vgg16', return_value=SimpleNamespace(features=features.to_empty(device='cpu'))):
        network = library.DISTSNetwork()
    backbone = nn.ModuleDict(network.named_children())
    load_features(backbone, backbone_path)
    return freeze(network)


def _check_ready(
    crop_border: int = 0, backbone_path: str | None = None, device: str = 'auto', input_order: str = 'HWC'
) -> None:
    check_options(crop_border, input_order)
    resolve_device(device)
    build_dists(backbone_path)


DISTS.better = 'lower'
DISTS.check_ready = _check_ready
