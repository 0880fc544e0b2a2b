"""How a model under test runs its network: options of ``val``, and what the network needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.networks.inference import Inference, Result, super_resolve
from basicsr_ext.networks.requirements import requirements_of
from basicsr_ext.networks.tiling import check_tile
from basicsr_ext.options.config import OptionBlock


class InferenceOptions(OptionBlock):
    """Options of ``val``, for our models and, under our command, BasicSR's image models.

    Attributes:
        tile: Size of tiles in LQ pixels; default: whole images.
        overlap: Of neighbouring tiles, in LQ pixels; default: 16, or half of a smaller tile.
        self_ensemble: Average over the eight flips and transpositions.
        precision: Of the network's forward; ``fp32`` without TF32, whatever the training's precision is.
    """

    tile: int | None = Field(None, ge=1)
    overlap: int | None = Field(None, ge=0)
    self_ensemble: bool = False
    precision: Literal['fp32', 'bf16', 'fp16'] = 'fp32'


def inference_of(opt: Mapping[str, Any]) -> Inference:
    """Returns how ``network_g`` runs in validation.

    Args:
        opt: Options of a run.

    Raises:
        UserError: Options of ``val`` are out of range.
    """
    val = opt.get('val') or {}
    options = InferenceOptions.parse({key: val[key] for key in InferenceOptions.model_fields if key in val}, 'val')
    check_tile(options.tile, options.overlap)
    return Inference(**options.model_dump(), **requirements_of(opt['network_g'])._asdict())


def infer(network: nn.Module, images: torch.Tensor, opt: Mapping[str, Any]) -> Result:
    """Runs a network as a test does: in evaluation mode, without gradients; its mode is put back.

    Args:
        network: Bare.
        images: What it takes; (N, C, H, W) in [0, 1] where options of ``val`` ask for more than a plain forward.
        opt: Options of the run.
    """
    how = inference_of(opt)
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            if how == Inference() or images.ndim != 4:  # videos
                with exact_float32(images.device):
                    return Result(network(images))
            return super_resolve(network, images, how)
    finally:
        network.train(training)


def store_luminance(model: Any) -> None:
    """Where a model is tested on luminance, keeps it for metrics before BasicSR rounds it to images of 8 bits.

    Args:
        model: Has tested ``lq``. Gets ``gt_luminance``, which is ``None`` where images are in colour.
    """
    model.gt_luminance = None
    if model.lq.ndim == 4 and model.lq.shape[1] == 1:
        model.output_luminance, model.gt_luminance = model.output, getattr(model, 'gt', None)
