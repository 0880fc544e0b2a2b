"""DISTS for ``val.metrics``, computed by torchmetrics."""

from __future__ import annotations

from functools import lru_cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn

from basicsr_ext.metrics.images import Order, as_pair, as_tensor, check_options
from basicsr_ext.metrics.networks import BACKBONES, fetching, freeze, load_features, require
from basicsr_ext.metrics.registering import metric
from basicsr_ext.networks.devices import resolve_device


def _check_ready(backbone_path: str | None = None, device: str = 'auto', **options: Any) -> None:
    check_options(**options)
    resolve_device(device)
    build_dists(backbone_path)


@metric('lower', _check_ready)
def DISTS(
    img: np.ndarray,
    img2: np.ndarray,
    crop_border: int = 0,
    backbone_path: str | None = None,
    device: str = 'auto',
    input_order: Order = 'HWC',
) -> float:
    """Deep image structure and texture similarity: a distance, 0 for equal images.

    Arguments are those of :func:`~basicsr_ext.metrics.lpips_metric.LPIPS`; the backbone is VGG-16.

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
        with fetching('DISTS', BACKBONES['vgg'], 'backbone_path'):
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
