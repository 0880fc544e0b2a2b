"""Running a network over an image in overlapping tiles."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from basicsr_ext.errors import UserError


class Span(NamedTuple):
    """One tile along one axis: it is read at ``start``, and its output is kept for ``keep_start`` to ``keep_stop``."""

    start: int
    keep_start: int
    keep_stop: int


def tile_spans(length: int, tile: int, overlap: int) -> list[Span]:
    """Cuts an axis into tiles of equal size, the last one moved inward, and shares it out between them.

    Where two neighbours overlap, each keeps the half on its own side. So every kept pixel lies at least
    ``overlap // 2`` pixels inside its tile, except at the ends of the axis.

    Args:
        length: Of the axis, in pixels.
        tile: Size of a tile, in pixels; an axis that is not longer is one tile.
        overlap: Smallest overlap of two neighbours, in pixels, 0 to ``tile - 1``.

    Returns:
        Spans in order; what they keep covers the axis once.

    Raises:
        UserError: ``tile`` or ``overlap`` is out of range.
    """
    if tile < 1:
        raise UserError(f'tile: expected a positive number of pixels, found {tile}.')
    if not 0 <= overlap < tile:
        raise UserError(f'overlap: expected 0 to {tile - 1} pixels for tiles of {tile} pixels, found {overlap}.')
    starts = [*range(0, length - tile, tile - overlap), max(length - tile, 0)]
    cuts = [0, *((left + tile + right) // 2 for left, right in itertools.pairwise(starts)), length]
    return [Span(*span) for span in zip(starts, cuts[:-1], cuts[1:], strict=True)]


def tiled_forward(
    network: Callable[[torch.Tensor], torch.Tensor],
    image: torch.Tensor,
    scale: int,
    tile: int | None,
    overlap: int = 16,
    batch_size: int = 1,
) -> torch.Tensor:
    """Runs a fully convolutional network over an image, tile by tile.

    The result equals that of the whole image where ``overlap // 2`` covers the network's receptive field (its radius,
    in pixels of the input).

    Args:
        network: Maps (n, channels, h, w) to (n, any, h * scale, w * scale).
        image: Of shape (n, channels, height, width).
        scale: Factor by which the network enlarges.
        tile: Height and width of a tile in pixels of the input; an image side that is shorter is taken whole.
            ``None`` runs the whole image at once.
        overlap: Smallest overlap of two neighbouring tiles, in pixels of the input.
        batch_size: Tiles that go through the network together.

    Returns:
        Tensor of shape (n, any, height * scale, width * scale), of the dtype that the network gives.

    Raises:
        UserError: ``tile`` or ``overlap`` is out of range, or the network's output is not ``scale`` times its input.
    """
    if tile is None:
        return _checked_forward(network, image, scale)
    count, _, height, width = image.shape
    rows, columns = tile_spans(height, tile, overlap), tile_spans(width, tile, overlap)
    tile_height, tile_width = min(tile, height), min(tile, width)
    places = [(index, row, column) for index in range(count) for row in rows for column in columns]
    result: torch.Tensor | None = None
    for group in _groups(places, batch_size):
        tiles = torch.stack(
            [image[n, :, r.start : r.start + tile_height, c.start : c.start + tile_width] for n, r, c in group]
        )
        outputs = _checked_forward(network, tiles, scale)
        if result is None:
            result = outputs.new_empty((count, outputs.shape[1], height * scale, width * scale))
        for (n, r, c), output in zip(group, outputs, strict=True):
            result[n, :, _scaled(r, scale), _scaled(c, scale)] = output[:, _inner(r, scale), _inner(c, scale)]
    assert result is not None
    return result


def _checked_forward(network: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, scale: int) -> torch.Tensor:
    output = network(image)
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        raise UserError(
            f'The network gives {type(output).__name__}, expected one image tensor: use another network (network_g).'
        )
    expected = (image.shape[-2] * scale, image.shape[-1] * scale)
    if output.shape[-2:] != expected:
        raise UserError(
            f'The network turns {image.shape[-2]}x{image.shape[-1]} pixels into {output.shape[-2]}x{output.shape[-1]}, '
            f'expected {expected[0]}x{expected[1]} for scale {scale}: change scale, or the network (network_g).'
        )
    return output


def _groups(places: list, size: int) -> Iterator[list]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _scaled(span: Span, scale: int) -> slice:
    """Where the kept part lies in the whole output."""
    return slice(span.keep_start * scale, span.keep_stop * scale)


def _inner(span: Span, scale: int) -> slice:
    """Where the kept part lies in the tile's output."""
    return slice((span.keep_start - span.start) * scale, (span.keep_stop - span.start) * scale)
