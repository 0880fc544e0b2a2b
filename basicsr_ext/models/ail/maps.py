"""Makes the importance maps of a round: ranks share the images, keep step, and stop and fail together."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from basicsr.utils import get_root_logger

from basicsr_ext.distributed import Ranks
from basicsr_ext.errors import UserError
from basicsr_ext.models.ail.map_files import ImportanceMaps

_SECONDS = 60  # between two lines that tell how far an update is

MapOfImage = Callable[[int], tuple[torch.Tensor, float]]
Marks = tuple[int, float, float, int]  # image, PSNR, sum of its map, how many values of it are 1


def make_maps(
    maps: ImportanceMaps, ranks: Ranks, number: int, key: str, of_image: MapOfImage, record: dict[str, float]
) -> None:
    """Makes the maps of a round, each rank its share, and opens them; all ranks must call it.

    A map that is written stays: where making them was interrupted, its image is not done again. After each image ranks
    wait for one another, so that one that fails or is asked to stop holds up none; images of about the same size are
    done at the same time.

    Args:
        maps: Where they go; all ranks must see the same folder.
        ranks: Of the run.
        number: Of the round.
        key: What the maps are made from.
        of_image: Makes the map of an image, (channels, height, width) in [0, 1], and measures the PSNR (dB, or NaN) of what
            it was made from, given the image's number.
        record: Plain values to keep with the maps.

    Raises:
        UserError: An image cannot be read or a map be written, on any rank; what is done is kept.
    """
    ranks.keep()
    todo = ranks.on_first(lambda: _written(maps, lambda: maps.begin(number, key)))
    todo.sort(key=maps.values_of, reverse=True)
    count = len(maps.shapes)
    get_root_logger().info(f'Importance of round {number}: {len(todo)} of {count} images are to do.')
    told = time.monotonic()
    for start in range(0, len(todo), ranks.world_size):
        ranks.leave_if_asked()
        mine = todo[start : start + ranks.world_size][ranks.rank : ranks.rank + 1]
        done = ranks.together(lambda mine=mine: [_made(maps, number, image, of_image) for image in mine])
        ranks.on_first(lambda done=done: _mark(maps, number, done))
        if time.monotonic() - told >= _SECONDS:
            told = time.monotonic()
            left = len(todo) - start - ranks.world_size
            get_root_logger().info(f'Importance of round {number}: {count - max(0, left)} of {count} images.')
    ranks.on_first(lambda: _written(maps, lambda: maps.commit(number, key, record)))
    if not all(ranks.gather(maps.open(number, key))):
        raise UserError(
            f'{maps.folder}: the importance maps of round {number} were made and cannot be read: all ranks need the same '
            'folder.'
        )


def _made(maps: ImportanceMaps, number: int, image: int, of_image: MapOfImage) -> Marks:
    """Makes and writes the map of an image; returns its marks."""
    importance, measure = of_image(image)
    if not importance.isfinite().all():
        raise UserError(
            f'Importance of round {number}: it is not finite for training image {image}, counted from 0, since a network '
            'gives values there that are not.'
        )
    return image, measure, *_written(maps, lambda: maps.write(number, image, importance))


def _mark(maps: ImportanceMaps, number: int, done: list[list[Marks]]) -> None:
    for made in done:
        for marks in made:
            _written(maps, lambda marks=marks: maps.mark(number, *marks))


def _written(maps: ImportanceMaps, write: Callable[[], Any]) -> Any:
    try:
        return write()
    except OSError as error:
        raise UserError(
            f'{maps.folder}: importance maps cannot be written ({error}). All ranks need the same folder, with room for '
            'three rounds: make room, or move the experiment to another place; then go on with --auto_resume.'
        ) from None
