"""Several image stores as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import ImageSpec, ImageStore


class JoinedStore(ImageStore):
    """The images of several stores; a key is the name of its store, a slash, and the key there.

    Args:
        stores: Name -> store; all with the same number of channels and the same dtype.

    Raises:
        UserError: The stores hold different kinds of images.
    """

    def __init__(self, stores: Mapping[str, ImageStore]) -> None:
        kinds = {name: (store.channels, np.dtype(store.dtype)) for name, store in stores.items()}
        first, *others = kinds
        for name in others:
            if kinds[name] != kinds[first]:
                raise UserError(
                    f'expected images of one kind, found {_kind(*kinds[first])} in {first} ({stores[first].path}) and '
                    f'{_kind(*kinds[name])} in {name} ({stores[name].path}).'
                )
        self.path = Path(', '.join(str(store.path) for store in stores.values()))
        self.channels, self.dtype = kinds[first]
        self.meta = {}
        self._stores = dict(stores)
        self._keys = sorted(f'{name}/{key}' for name, store in stores.items() for key in store.keys())

    def keys(self) -> Sequence[str]:
        return self._keys

    def spec(self, key: str) -> ImageSpec:
        store, inner = self._find(key)
        return store.spec(inner)

    def verify(self, key: str) -> None:
        store, inner = self._find(key)
        store.verify(inner)

    def marks(self, keys: Sequence[str]) -> list[str]:
        found = map(self._find, keys)
        return [mark for store, inner in found for mark in store.marks([inner])]

    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        store, inner = self._find(key)
        return store._read(inner, top, left, height, width)

    def windows(self, places: Sequence[tuple[str, int, int]], height: int, width: int) -> list[np.ndarray]:
        asked: dict[int, tuple[ImageStore, list[int], list[tuple[str, int, int]]]] = {}  # each store at once
        for position, (key, top, left) in enumerate(places):
            store, inner = self._find(key)
            _, positions, inside = asked.setdefault(id(store), (store, [], []))
            positions.append(position)
            inside.append((inner, top, left))
        found: dict[int, np.ndarray] = {}
        for store, positions, inside in asked.values():
            found.update(zip(positions, store.windows(inside, height, width), strict=True))
        return [found[position] for position in range(len(places))]

    def _find(self, key: str) -> tuple[ImageStore, str]:
        name, _, inner = key.partition('/')
        if name not in self._stores:
            raise UserError(f'{self.path}: no image "{key}"; keys begin with one of {", ".join(self._stores)}.')
        return self._stores[name], inner


def _kind(channels: int, dtype: np.dtype) -> str:
    return f'{dtype} images of {channels} {"channels" if channels > 1 else "channel"}'
