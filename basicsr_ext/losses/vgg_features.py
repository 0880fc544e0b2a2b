"""Features of VGG-19, by the names of its layers."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.error import URLError

import torch
from basicsr.archs.vgg_arch import NAMES, VGG_PRETRAIN_PATH
from torch import Tensor, nn
from torchvision.models import VGG19_Weights, vgg19

from basicsr_ext.errors import UserError
from basicsr_ext.networks.weights import read_weights

LAYERS = tuple(NAMES['vgg19'])


class VGGFeatures(nn.Module):
    """VGG-19's first layers, fixed.

    Args:
        layers: Names such as ``relu3_4`` (BasicSR's).
        weights: File of torchvision's VGG-19; default: BasicSR's (``experiments/pretrained_models``), else that of
            torchvision's cache, which is filled from its site where it is empty.
        input_range: Factor of the images before their colours are normalised: 1, or 255 as in LFC-SR's published code,
            which normalises [0, 255] with the statistics of [0, 1].

    Raises:
        UserError: A layer is unknown, or the weights cannot be found or read.
    """

    def __init__(self, layers: Sequence[str], weights: str | os.PathLike | None = None, input_range: float = 1.0):
        super().__init__()
        unknown = [layer for layer in layers if layer not in LAYERS]
        if unknown or not layers:
            raise UserError(f'Layers of VGG-19: expected names among {", ".join(LAYERS)}, found {unknown or "none"}.')
        self.layers = tuple(layers)
        self.input_range = input_range
        with torch.device('meta'):
            features = vgg19(weights=None).features[: 1 + max(map(LAYERS.index, layers))]
        for module in features:
            if isinstance(module, nn.ReLU):
                module.inplace = False  # a convolution before it may be asked for, too
        state, source = _weights(weights)
        state = {k.removeprefix('features.'): v for k, v in state.items() if k.startswith('features.')}
        missing = [
            name
            for name, value in features.state_dict().items()
            if getattr(state.get(name), 'shape', None) != value.shape
        ]
        if missing:
            raise UserError(
                f"Weights {source}: expected those of torchvision's VGG-19, found no fitting features.{missing[0]}."
            )
        features.load_state_dict({name: state[name] for name in features.state_dict()}, assign=True)
        self.features = features.eval().requires_grad_(False)
        self.register_buffer('mean', torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer('std', torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor, layers: Collection[str] | None = None) -> dict[str, Tensor]:
        """Maps RGB images (N, 3, H, W) in [0, 1] to features (N, C, H / s, W / s) by layer.

        Args:
            images: The images.
            layers: Some of the layers, where not all are needed; nothing is computed above the highest of them.
        """
        wanted = set(self.layers if layers is None else layers)
        x = (images * self.input_range - self.mean) / self.std
        found: dict[str, Tensor] = {}
        for name, layer in zip(LAYERS, self.features, strict=False):
            if len(found) == len(wanted):
                break
            x = layer(x)
            if name in wanted:
                found[name] = x
        return found


def _weights(path: str | os.PathLike | None) -> tuple[dict[str, Tensor], str]:
    """Tensors by name, and where they come from."""
    url = VGG19_Weights.IMAGENET1K_V1.url
    cached = Path(torch.hub.get_dir(), 'checkpoints', url.rpartition('/')[2])
    places = [Path(path)] if path else [Path(VGG_PRETRAIN_PATH), cached]
    for place in places:
        if place.is_file() or path:
            return read_weights(place), str(place)
    try:
        return torch.hub.load_state_dict_from_url(url, map_location='cpu', weights_only=True), url
    except (URLError, OSError) as error:
        raise UserError(
            f'Weights of VGG-19: found none at {places[0]} or {places[1]}, and {url} cannot be reached ({error}). Put the '
            'file into one of these places, or name it in the option vgg_weights.'
        ) from None
