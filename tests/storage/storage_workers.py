"""What other processes do in the tests; the start method spawn imports this module."""

from __future__ import annotations

from multiprocessing.connection import Connection

import numpy as np

from basicsr_ext.storage import ImageStore


class StoreDataset:
    """Whole images of a store by index, for a DataLoader."""

    def __init__(self, store: ImageStore) -> None:
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.store.read(self.store.keys()[index])


def send_all(store: ImageStore, connection: Connection) -> None:
    """Reads every image and sends them home."""
    connection.send(list(map(store.read, store.keys())))
    connection.close()
