"""A trained network on one image after the other."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.evaluation.network_file import TrainedNetwork, open_network
from basicsr_ext.evaluation.pictures import BadImage, Picture
from basicsr_ext.functional.precision import PRECISIONS, overflow_hint
from basicsr_ext.functional.resize import upsample
from basicsr_ext.memory import available_memory, describe_bytes
from basicsr_ext.networks.devices import resolve_device
from basicsr_ext.networks.inference import Inference, super_resolve
from basicsr_ext.networks.tiling import (
    blended_bands,
    check_tile,
    mirrored_places,
    overlap_warning,
    resolve_overlap,
)
from basicsr_ext.prepare.pixels import from_unit, to_unit

_BICUBIC = 3  # pixels around a window that its bicubic enlargement depends on, and one more


class Upscaler(NamedTuple):
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
        pixels, factor = picture.pixels, self.trained.scale * self.before
        height, width = (side * factor for side in pixels.shape[:2])
        channels = pixels.shape[2] if picture.alpha is None else 4
        self._check_memory(pixels, name, (height, width, channels))
        # In the order in which image files are written, so that writing needs no copy.
        canvas = np.empty((height, width, channels), pixels.dtype)
        try:
            for first, band in self._bands(pixels):
                self._check_band(band, name)
                band = band.mean(0, keepdim=True) if pixels.shape[2] == 1 else band
                part = from_unit(band.permute(1, 2, 0).numpy(), pixels.dtype)
                canvas[first : first + len(part), :, :3] = part[..., ::-1]
        except UserError:
            raise
        except Exception as error:  # whatever a network makes of an image that it was not made for
            raise _explained(error, name, pixels.shape) from error
        colours = canvas if channels == 1 else canvas[..., 2::-1]
        if picture.alpha is None:
            return Picture(colours)
        canvas[..., 3] = upsample(picture.alpha, factor)
        return Picture(colours, canvas[..., 3])

    def _bands(self, pixels: np.ndarray) -> Iterator[tuple[int, torch.Tensor]]:
        """First row, and rows (channels, rows, width), of the enlarged image on the CPU; without tiles all rows at once."""
        network, how = self.trained.network, self.how
        if how.tile is None:
            unit = _to_rgb(pixels)[None].to(next(network.parameters()).device)
            unit = upsample(unit, self.before) if self.before > 1 else unit
            yield 0, super_resolve(network, unit, how).images[0].cpu()
            return

        def forward(tiles: torch.Tensor) -> torch.Tensor:
            return super_resolve(network, tiles, how._replace(tile=None, window=1)).images

        height, width = (side * self.before for side in pixels.shape[:2])
        crop = _Crop(pixels, self.before, *(mirrored_places(side, how.window).numpy() for side in (height, width)))
        size = (len(crop.rows), len(crop.columns))
        overlap = resolve_overlap(how.tile, how.overlap)
        scale = self.trained.scale
        for _, first, band in blended_bands(
            forward, crop, 1, size, how.scale, how.tile, overlap, how.batch_size, how.window
        ):
            if first < height * scale:
                yield first, band[:, : height * scale - first, : width * scale]

    def _check_memory(self, pixels: np.ndarray, name: str, shape: tuple[int, int, int]) -> None:
        """Refuses an image whose enlargement does not fit into the memory, before work on it begins."""
        height, width, _ = shape
        need, float_row = math.prod(shape) * pixels.itemsize, 3 * 4 * width
        if self.how.tile is None:
            need += 2 * float_row * height
            advice = 'Run it in tiles (--tile 256).'
        else:
            need += 3 * float_row * min(self.how.tile * self.trained.scale, height)
            advice = 'Cut the image into parts, or enlarge it where there is more memory.'
        free = available_memory()
        if need > free:
            raise BadImage(
                f'{name}: the enlarged image of {pixels.shape[0]}x{pixels.shape[1]} pixels takes at least '
                f'{describe_bytes(need)} of memory, and {describe_bytes(free)} are free. {advice}'
            )

    def _check_band(self, band: torch.Tensor, name: str) -> None:
        if band.shape[0] != 3:
            raise UserError(f'The network gives {band.shape[0]} channels, expected 3: it makes no images in colour.')
        if not band.isfinite().all():
            raise BadImage(
                f'{name}: the network gives values that are not finite. {overflow_hint(self.how.precision)}.'
            )


class _Crop(NamedTuple):
    """Cuts tiles out of an image, ready for a network, without a copy of the whole.

    Attributes:
        pixels: The image.
        before: Factor by which MATLAB's bicubic enlarges it before the network.
        rows: Which row of the enlarged image each row of tiles is: those beyond its end mirror it.
        columns: The same for columns.
    """

    pixels: np.ndarray
    before: int
    rows: np.ndarray
    columns: np.ndarray

    def __call__(self, number: int, top: int, left: int, height: int, width: int) -> torch.Tensor:
        rows, columns = self.rows[top : top + height], self.columns[left : left + width]
        if self.before == 1:
            return _to_rgb(self.pixels[rows[:, np.newaxis], columns])
        (first_row, last_row), (first_column, last_column) = (
            (max(0, places.min() // self.before - _BICUBIC), places.max() // self.before + 1 + _BICUBIC)
            for places in (rows, columns)
        )
        enlarged = upsample(_to_rgb(self.pixels[first_row:last_row, first_column:last_column]), self.before)
        rows, columns = rows - first_row * self.before, columns - first_column * self.before
        return enlarged[:, torch.from_numpy(rows)][..., torch.from_numpy(columns)]


def _to_rgb(pixels: np.ndarray) -> torch.Tensor:
    """Makes (3, height, width) on [0, 1], float32; repeats grey."""
    return torch.from_numpy(to_unit(pixels, np.float32)).permute(2, 0, 1).expand(3, -1, -1).contiguous()


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
) -> Upscaler:
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
    return Upscaler(trained, how, _enlarged_before(trained, scale))


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
