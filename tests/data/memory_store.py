"""An image store in memory, and images that tell where each of their pixels comes from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from basicsr_ext.storage.base import ImageSpec, ImageStore


class MemoryStore(ImageStore):
    """Holds given arrays, hands out read-only views, and remembers the windows that were asked for."""

    def __init__(self, name: str, images: Mapping[str, np.ndarray]) -> None:
        self.path = Path(name)
        self.images = dict(sorted(images.items()))
        for image in self.images.values():
            image.flags.writeable = False
        first = next(iter(self.images.values()), np.zeros((1, 1, 3), np.uint8))
        self.channels, self.dtype, self.meta = first.shape[2], first.dtype, {}
        self.asked: list[tuple] = []

    def keys(self):
        return list(self.images)

    def spec(self, key):
        return ImageSpec(*self.images[key].shape, self.images[key].dtype)

    def _read(self, key, top, left, height, width):
        self.asked.append((key, top, left, height, width))
        return self.images[key][top : top + height, left : left + width]


def coordinates(height: int, width: int, mark: int, dtype=np.uint8) -> np.ndarray:
    """Image whose channels are the row, the column and ``mark``."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, mark)], axis=2).astype(dtype)


def coordinate_stores(
    lq_sizes: Mapping[str, tuple[int, int]], scale: int, surplus: tuple[int, int] = (0, 0), dtype=np.uint8
) -> dict[str, MemoryStore]:
    """Stores ``gt``, ``lq``, ``centroid`` and ``centroid_lq``; the mark is 10 times the image's index plus 0 to 3."""
    stores = {}
    for kind, (name, factor) in enumerate({'gt': scale, 'lq': 1, 'centroid': scale, 'centroid_lq': 1}.items()):
        extra = surplus if name == 'gt' else (0, 0)
        stores[name] = MemoryStore(
            name,
            {
                key: coordinates(height * factor + extra[0], width * factor + extra[1], 10 * index + kind, dtype)
                for index, (key, (height, width)) in enumerate(lq_sizes.items())
            },
        )
    return stores
