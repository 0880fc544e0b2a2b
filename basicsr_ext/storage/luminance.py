"""The luminance of an RGB store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.functional.luminance import luminance
from basicsr_ext.storage.base import ImageSpec, ImageStore


class LuminanceStore(ImageStore):
    """The images of another store as luminance: one channel, float32 in [16/255, 235/255], not rounded.

    Args:
        store: RGB images.

    Raises:
        UserError: The store holds grey images.
    """

    def __init__(self, store: ImageStore) -> None:
        if store.channels != 3:
            raise UserError(
                f'{store.path}: expected RGB images, whose luminance is to be taken, found images of {store.channels} channel.'
            )
        self.path = store.path
        self.channels = 1
        self.dtype = np.dtype(np.float32)
        self.meta = store.meta
        self._store = store
        dtype = np.dtype(store.dtype)
        self._to_255 = 255 / np.iinfo(dtype).max if dtype.kind == 'u' else 255.0

    def keys(self) -> Sequence[str]:
        return self._store.keys()

    def spec(self, key: str) -> ImageSpec:
        return self._store.spec(key)._replace(channels=self.channels, dtype=self.dtype)

    def verify(self, key: str) -> None:
        self._store.verify(key)

    def marks(self, keys: Sequence[str]) -> list[str]:
        return self._store.marks(keys)

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        return self._luminance(self._store._read(key, top, left, height, width))

    def windows(self, places: Sequence[tuple[str, int, int]], height: int, width: int) -> list[np.ndarray]:
        return [self._luminance(window) for window in self._store.windows(places, height, width)]

    def _luminance(self, image: np.ndarray) -> np.ndarray:
        values = image if self._to_255 == 1 else image * np.float64(self._to_255)
        return np.divide(luminance(values), 255, dtype=np.float64).astype(np.float32)[..., np.newaxis]
