"""Running a network over an image in overlapping tiles that fade into one another, or over whole windows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from basicsr_ext.errors import UserError

OVERLAP = 16
"""Pixels of the input that neighbouring tiles share, unless another number is chosen."""

Network = Callable[[torch.Tensor], torch.Tensor]


class Tiles(NamedTuple):
    """The tiles of one axis.

    Attributes:
        size: Of every tile, in pixels.
        starts: First pixel of each.
        cuts: Between each tile and the next, where both weigh the same; in pixels from the beginning of the axis.
        fade: Pixels around a cut along which one tile fades into the next.
    """

    size: int
    starts: list[int]
    cuts: list[float]
    fade: float


def check_tile(tile: int | None, overlap: int | None) -> None:
    """Refuses tiles without pixels, and chosen overlaps that leave none.

    Raises:
        UserError: ``tile`` or ``overlap`` is out of range.
    """
    if tile is None:
        return
    if tile < 1:
        raise UserError(f'tile: expected a positive number of pixels, found {tile}.')
    if overlap is not None and not 0 <= overlap < tile:
        raise UserError(f'overlap: expected 0 to {tile - 1} pixels for tiles of {tile} pixels, found {overlap}.')


def resolve_overlap(tile: int | None, overlap: int | None) -> int:
    """The overlap that was chosen; else 16 pixels, or half of a smaller tile."""
    if overlap is not None:
        return overlap
    return OVERLAP if tile is None else min(OVERLAP, tile // 2)


def overlap_warning(tile: int | None, overlap: int | None) -> str:
    """Says that a chosen overlap leaves less than half of a tile to each step; empty where it does not."""
    if tile is None or overlap is None or 2 * overlap <= tile:
        return ''
    return (
        f'tiles of {tile} pixels that share {overlap} go on by {tile - overlap} or fewer: most of the work is done several '
        'times over. Choose larger tiles, or less overlap.'
    )


def lay_tiles(length: int, tile: int, overlap: int, window: int = 1) -> Tiles:
    """Spreads tiles of equal size evenly over an axis.

    Neighbours share a quarter more than ``overlap``: they fade into each other there, so that no pixel counts that lies
    less than ``overlap // 2`` inside its tile, except at the ends of the axis.

    Args:
        length: Of the axis, in pixels; a multiple of ``window``.
        tile: Size of a tile in pixels, rounded up to whole windows; an axis that is not longer is one tile.
        overlap: Pixels that two neighbours share besides those along which they fade; 0 to ``tile - 1``.
        window: All tiles begin and end at multiples of it.

    Raises:
        UserError: ``tile`` or ``overlap`` is out of range.
    """
    check_tile(tile, overlap)
    windows, shared = length // window, -(-overlap // window)
    size = max(-(-tile // window), shared + 1)
    if windows <= size:
        return Tiles(length, [0], [], 0.0)
    fade = min(overlap // 4, (size - 1) * window - overlap)
    shared = -(-(overlap + fade) // window)
    steps = -(-(windows - size) // (size - shared))
    starts = [step * (windows - size) // steps * window for step in range(steps + 1)]
    pairs = list(itertools.pairwise(starts))
    size *= window
    cuts = [(right + left + size) / 2 for left, right in pairs]
    return Tiles(size, starts, cuts, min(left + size - right for left, right in pairs) - overlap)


def tile_weights(tiles: Tiles, scale: int) -> torch.Tensor:
    """How much each output pixel of each tile counts along an axis; over a pixel the weights of all tiles sum to 1.

    Args:
        tiles: Of the axis.
        scale: Output pixels per input pixel.

    Returns:
        Tensor of shape (number of tiles, size * scale), float64.
    """
    places = (torch.arange(tiles.size * scale, dtype=torch.float64) + 0.5) / scale
    rows = []
    for index, start in enumerate(tiles.starts):
        before = tiles.cuts[index - 1] if index else None
        after = tiles.cuts[index] if index < len(tiles.cuts) else None
        weights = torch.ones_like(places) if before is None else _fade_in(start + places - before, tiles.fade)
        rows.append(weights if after is None else weights - _fade_in(start + places - after, tiles.fade))
    return torch.stack(rows)


def _fade_in(distance: torch.Tensor, width: float) -> torch.Tensor:
    """Rises smoothly from 0 to 1 along ``width``, in the middle of which ``distance`` is 0."""
    if width <= 0:
        return (distance >= 0).to(distance)
    share = (distance / width + 0.5).clamp(0, 1)
    return share * share * (3 - 2 * share)


def tiled_forward(
    network: Network,
    image: torch.Tensor,
    scale: int | None,
    tile: int | None,
    overlap: int | None = None,
    batch_size: int = 1,
    window: int = 1,
) -> torch.Tensor:
    """Runs a network over an image, tile by tile; tiles fade into one another.

    The result equals that of the whole image where ``overlap // 2`` covers the network's receptive field (its radius, in
    pixels of the input), that is, where ``overlap`` covers its diameter.

    Args:
        network: Maps (n, channels, h, w) to (n, any, h * scale, w * scale).
        image: Of shape (n, channels, height, width).
        scale: Factor by which the network enlarges; ``None`` takes what it does.
        tile: Height and width of a tile in pixels of the input; an image side that is shorter is taken whole.
            ``None`` runs the whole image at once.
        overlap: Of two neighbouring tiles, in pixels of the input; they share up to a quarter more, to fade. ``None``: 16, or
            half of a smaller tile.
        batch_size: Tiles that go through the network together.
        window: The network takes sides that are multiples of it: images are padded by mirroring, tiles are rounded up
            and begin at whole windows.

    Returns:
        Tensor of shape (n, any, height * scale, width * scale), of the dtype that the network gives.

    Raises:
        UserError: ``tile`` or ``overlap`` is out of range, or the network's output is not ``scale`` times its input.
    """
    check_tile(tile, overlap)
    height, width = image.shape[-2:]
    padded = pad_to_multiple(image, window)
    if tile is None:
        output = _checked_forward(network, padded, scale)
    else:
        output = _blended_forward(network, padded, scale, tile, resolve_overlap(tile, overlap), batch_size, window)
    scale = output.shape[-1] // padded.shape[-1]
    return output[..., : height * scale, : width * scale]


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Mirrors an image (..., height, width) at its last row and column, as often as it takes to fill whole windows."""
    for axis in (-2, -1):
        if image.shape[axis] % multiple:
            image = image.index_select(axis, mirrored_places(image.shape[axis], multiple).to(image.device))
    return image


def mirrored_places(length: int, multiple: int) -> torch.Tensor:
    """Places of an axis, and those that its mirror image repeats to fill whole windows."""
    period = max(2 * (length - 1), 1)
    places = torch.arange(length + -length % multiple) % period
    return torch.where(places < length, places, period - places)


def _blended_forward(
    network: Network, image: torch.Tensor, scale: int | None, tile: int, overlap: int, batch_size: int, window: int
) -> torch.Tensor:
    def crop(number: int, top: int, left: int, rows: int, columns: int) -> torch.Tensor:
        return image[number, :, top : top + rows, left : left + columns]

    result: torch.Tensor | None = None
    bands = blended_bands(network, crop, len(image), image.shape[-2:], scale, tile, overlap, batch_size, window)
    for number, first, band in bands:
        if result is None:
            height = image.shape[-2] * (band.shape[-1] // image.shape[-1])
            result = torch.empty((len(image), len(band), height, band.shape[-1]), dtype=band.dtype, device=band.device)
        result[number, :, first : first + band.shape[-2]] = band
    assert result is not None
    return result


def blended_bands(
    network: Network,
    crop: Callable[[int, int, int, int, int], torch.Tensor],
    count: int,
    size: Sequence[int],
    scale: int | None,
    tile: int,
    overlap: int,
    batch_size: int = 1,
    window: int = 1,
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """Runs a network over images tile by tile, and gives the result in bands of rows, from the top, as they are done.

    The memory that it takes is that of a row of tiles.

    Args:
        network: As for :func:`tiled_forward`.
        crop: Gives (channels, rows, columns) of an image: of its number, first row and column, rows and columns.
        count: Number of images.
        size: Their height and width, multiples of ``window``.
        scale: As for :func:`tiled_forward`.
        tile: As there.
        overlap: As there.
        batch_size: As there.
        window: As there.

    Yields:
        Number of the image, first row of the result, and rows (any, rows, width * scale), valid until the next ones.
    """
    rows, columns = (lay_tiles(length, tile, overlap, window) for length in size)
    places = itertools.product(range(count), range(len(rows.starts)), range(len(columns.starts)))
    strip: torch.Tensor | None = None  # what the tiles of a row, and of those above it, have added up to so far
    at = (0, 0)
    for group in _groups(list(places), batch_size):
        tiles = torch.stack([crop(n, rows.starts[r], columns.starts[c], rows.size, columns.size) for n, r, c in group])
        outputs = _checked_forward(network, tiles, scale)
        if strip is None:
            scale = outputs.shape[-1] // tiles.shape[-1]
            dtype = torch.promote_types(outputs.dtype, torch.float32)  # half precision would round at every fade
            shape = (outputs.shape[1], rows.size * scale, size[1] * scale)
            strip = torch.zeros(shape, dtype=dtype, device=outputs.device)
            weights = [tile_weights(axis, scale).to(strip) for axis in (rows, columns)]
        assert scale is not None
        for (n, row, column), output in zip(group, outputs, strict=True):
            if (n, row) != at:  # no tile to come reaches above its own first row
                done = (rows.starts[row] - rows.starts[at[1]] if n == at[0] else rows.size) * scale
                yield at[0], rows.starts[at[1]] * scale, strip[:, :done].to(outputs.dtype)
                left = strip[:, done:].clone()
                strip.zero_()[:, : left.shape[1]] = left
                at = (n, row)
            weighted = output * weights[0][row][:, None] * weights[1][column]
            first = columns.starts[column] * scale
            strip[..., first : first + columns.size * scale].add_(weighted)
    assert strip is not None and scale is not None
    yield at[0], rows.starts[at[1]] * scale, strip.to(outputs.dtype)


def _checked_forward(network: Network, image: torch.Tensor, scale: int | None) -> torch.Tensor:
    output = network(image)
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        raise UserError(
            f'The network gives {type(output).__name__}, expected one image tensor: use another network (network_g).'
        )
    given = image.shape[-2:]
    factor = output.shape[-1] // given[-1] if scale is None else scale
    expected = (given[0] * factor, given[1] * factor)
    if output.shape[-2:] != expected or factor < 1:
        wanted = (
            'a whole number of times as many' if scale is None else f'{expected[0]}x{expected[1]} for scale {scale}'
        )
        raise UserError(
            f'The network turns {given[0]}x{given[1]} pixels into {output.shape[-2]}x{output.shape[-1]}, '
            f'expected {wanted}: change scale, or the network (network_g).'
        )
    return output


def _groups(places: list, size: int) -> Iterator[list]:
    for start in range(0, len(places), size):
        yield places[start : start + size]
