"""A trained network on one image after the other."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

import numpy as np
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.evaluation.network_file import TrainedNetwork, open_network
from basicsr_ext.evaluation.pictures import BadImage, Picture
from basicsr_ext.functional.device import resolve_device
from basicsr_ext.functional.inference import Inference, super_resolve
from basicsr_ext.functional.precision import PRECISIONS, overflow_hint
from basicsr_ext.functional.resize import upsample
from basicsr_ext.functional.tiling import check_tile, overlap_warning
from basicsr_ext.prepare.pixels import from_unit, to_unit


class Enlarger(NamedTuple):
    """Enlarges images.

    Attributes:
        trained: The network.
        how: How it runs.
        before: Factor of bicubic enlargement before the network.
    """

    trained: TrainedNetwork
    how: Inference
    before: int = 1

    def __call__(self, picture: Picture, name: str) -> Picture:
        """Enlarges one image.

        Args:
            picture: The image.
            name: Of the image, for messages.

        Returns:
            The enlarged image, of the same type, grey where it was, with alpha where it had some.

        Raises:
            BadImage: The network fails on this image, or gives values that are not finite.
            UserError: It gives something else than an image.
        """
        network, pixels = self.trained.network, picture.pixels
        unit = torch.from_numpy(to_unit(pixels, np.float32)).permute(2, 0, 1)[None].expand(-1, 3, -1, -1).contiguous()
        if self.how.tile is None:
            unit = unit.to(next(network.parameters()).device)
        try:
            unit = upsample(unit, self.before) if self.before > 1 else unit
            result = super_resolve(network, unit, self.how).images[0].cpu()
        except UserError:
            raise
        except Exception as error:  # whatever a network makes of an image that it was not made for
            raise _explained(error, name, pixels.shape) from error
        if result.shape[0] != 3:
            raise UserError(f'The network gives {result.shape[0]} channels, expected 3: it makes no images in colour.')
        if not result.isfinite().all():
            raise BadImage(
                f'{name}: the network gives values that are not finite. {overflow_hint(self.how.precision)}.'
            )
        result = result.mean(0, keepdim=True) if pixels.shape[2] == 1 else result
        alpha = None if picture.alpha is None else upsample(picture.alpha, self.trained.scale * self.before)
        return Picture(from_unit(result.permute(1, 2, 0).numpy(), pixels.dtype), alpha)


def open_enlarger(
    weights: str | os.PathLike,
    *,
    options: str | os.PathLike | None,
    scale: int | None,
    param_key: str | None,
    tile: int | None,
    overlap: int | None,
    batch_size: int,
    self_ensemble: bool,
    precision: str,
    device: str,
) -> Enlarger:
    """Builds a network and what runs it; arguments as of :func:`~basicsr_ext.evaluation.upscale.upscale`.

    Raises:
        UserError: Weights or arguments are not as they must be.
    """
    check_tile(tile, overlap)
    if warning := overlap_warning(tile, overlap):
        print(f'Warning: --overlap: {warning}', file=sys.stderr)
    if batch_size < 1:
        raise UserError(f'batch size: expected a positive integer, found {batch_size}.')
    if precision not in PRECISIONS:
        raise UserError(f'precision: expected one of {", ".join(PRECISIONS)}, found {precision!r}.')
    trained = open_network(weights, resolve_device(device), options=options, param_key=param_key)
    how = Inference(trained.scale, tile, overlap, batch_size, self_ensemble, precision, *trained.needs)
    return Enlarger(trained, how, _enlarged_before(trained, scale))


def _enlarged_before(trained: TrainedNetwork, scale: int | None) -> int:
    if scale is None or scale == trained.scale:
        return 1
    if trained.scale != 1 or scale < 1:
        raise UserError(f'scale: the network enlarges by {trained.scale}, the command line says {scale}.')
    return scale


def _explained(error: BaseException, name: str, shape: tuple[int, ...]) -> BadImage:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error):
        hint = 'the device has not enough memory: choose smaller tiles (--tile)'
    else:
        hint = (str(error).splitlines() or [type(error).__name__])[0]
    return BadImage(f'{name}: the network fails on this image of {shape[0]}x{shape[1]} pixels: {hint}.')
