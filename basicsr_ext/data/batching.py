"""Batches that are put together where they are read, not sample by sample.

``__getitems__`` of a dataset returns a list with one :class:`Batch`; torch's loaders, with and without workers, then take
its entries as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.collate import default_collate_fn_map

from basicsr_ext.data.crop_geometry import WHITE, copy_flipped
from basicsr_ext.data.pairing import Source


class Batch(dict):
    """The entries of a batch by name."""


def _take_entries(batches: list[Batch], *, collate_fn_map: Any = None) -> dict[str, Any]:
    (batch,) = batches
    return dict(batch)


default_collate_fn_map[Batch] = _take_entries


def read_windows(source: Source, geometries: Sequence[Sequence[int]], scale: int) -> np.ndarray:
    """Reads windows of images, and flips each on its way into the batch.

    Args:
        source: Where the images come from.
        geometries: Windows in HR pixels, all equally large, and flips; each as in
            :class:`~basicsr_ext.data.crop_geometry.Geometry`.
        scale: HR pixels per LQ pixel.

    Returns:
        New array of shape (N, height, width, channels), of the stored dtype.
    """
    factor, store, keys = source.scale, source.store, source.keys
    _, _, _, height, width, _, _, transpose = geometries[0]
    height, width = height * factor // scale, width * factor // scale
    # All windows first, then all copies: a copy drives what Python needs out of the processor's cache.
    places = [(keys[where[0]], where[1] * factor // scale, where[2] * factor // scale) for where in geometries]
    windows = store.windows(places, height, width)
    images = np.empty((len(windows), *((width, height) if transpose else (height, width)), store.channels), store.dtype)
    for window, image, where in zip(windows, images, geometries, strict=True):
        copy_flipped(window, image, where[5], where[6], where[7])
    return images


def to_nchw(images: np.ndarray, unit_range: bool) -> torch.Tensor:
    """Makes a batch for networks.

    Args:
        images: Array of shape (N, height, width, channels), of dtype uint8, uint16 or float32.
        unit_range: Whether to turn integers into float32 in [0, 1]: the value divided by 255 or 65535, in float32.

    Returns:
        Tensor of shape (N, channels, height, width). Of stored values it is a view: their order in memory (channels last)
        is changed where that is cheap, on the device. Otherwise it is contiguous, as models of BasicSR expect it.
    """
    images = images.transpose(0, 3, 1, 2)
    if not unit_range:
        return torch.from_numpy(images)
    planes = np.empty(images.shape, np.float32)
    if images.dtype in WHITE:
        np.divide(images, WHITE[images.dtype], out=planes, dtype=np.float32)
    else:
        np.copyto(planes, images)
    return torch.from_numpy(planes)
