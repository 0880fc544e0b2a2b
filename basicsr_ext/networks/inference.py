"""Running a trained network over images: in tiles, over eight orientations, in half precision, over the luminance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from basicsr_ext.functional.precision import autocast, exact_float32
from basicsr_ext.functional.resize import upsample
from basicsr_ext.functional.ycbcr import rgb_to_ycbcr, ycbcr_to_rgb
from basicsr_ext.networks.self_ensemble import self_ensemble
from basicsr_ext.networks.tiling import tiled_forward


class Inference(NamedTuple):
    """How a network runs over images.

    Attributes:
        scale: Factor by which it enlarges; ``None`` takes what it does.
        tile: Size of tiles in pixels of the input; ``None`` takes whole images.
        overlap: Of neighbouring tiles, in pixels of the input; ``None``: 16, or half of a smaller tile.
        batch_size: Tiles that go through the network together.
        self_ensemble: Whether to average over the eight flips and transpositions.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        window: Its input's sides must be multiples of it.
        luminance: Whether it takes one channel: Y of colour images.
    """

    scale: int | None = None
    tile: int | None = None
    overlap: int | None = None
    batch_size: int = 1
    self_ensemble: bool = False
    precision: str = 'fp32'
    window: int = 1
    luminance: bool = False


class Result(NamedTuple):
    """What a network made of images.

    Attributes:
        images: (N, channels, H * scale, W * scale), float32, not clipped; RGB for RGB.
        luminance: Y alone (N, 1, H * scale, W * scale), where that is what the network made of colour images.
    """

    images: torch.Tensor
    luminance: torch.Tensor | None = None


@torch.no_grad()
def super_resolve(network: nn.Module, images: torch.Tensor, how: Inference) -> Result:
    """Runs a network over images; where these lie on another device, one tile after the other goes to the network's.

    Of colour images, a network of one channel gets the luminance; the chroma is enlarged by MATLAB's bicubic, as for the
    published results of such networks.

    In ``fp32`` TF32 is off too; so it is, in any precision, for all but the network.

    Args:
        network: In evaluation mode; maps (n, channels, h, w) to (n, channels, h * scale, w * scale).
        images: (N, channels, H, W), float32, [0, 1]; so is the result, on the same device.
        how: How it runs.

    Raises:
        UserError: Sizes are out of range, or the network gives something else than enlarged images.
    """

    device = next((parameter.device for parameter in network.parameters()), images.device)

    def of_tiles(tiles: torch.Tensor) -> torch.Tensor:
        output = network(tiles.to(device))
        return output.float().to(images.device) if isinstance(output, torch.Tensor) else output

    def in_tiles(part: torch.Tensor) -> torch.Tensor:
        return tiled_forward(of_tiles, part, how.scale, how.tile, how.overlap, how.batch_size, how.window)

    def forward(part: torch.Tensor) -> torch.Tensor:
        with autocast(device, how.precision):
            return self_ensemble(in_tiles, part) if how.self_ensemble else in_tiles(part)

    with exact_float32(device):
        if not how.luminance or images.shape[1] != 3:
            return Result(forward(images))
        ycbcr = rgb_to_ycbcr(images)
        luminance = forward(ycbcr[:, :1])
        chroma = upsample(ycbcr[:, 1:], luminance.shape[-1] // images.shape[-1])
        return Result(ycbcr_to_rgb(torch.cat([luminance, chroma], 1)), luminance)
