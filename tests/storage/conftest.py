"""Fixtures of the storage tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from storage_samples import write_basicsr, write_folder, write_raw

from basicsr_ext.storage import BasicSRLmdbStore, FolderStore, ImageStore, RawLmdbStore


@pytest.fixture
def make_store(tmp_path: Path) -> Callable[[str, dict[str, np.ndarray]], ImageStore]:
    """Writes images as a store of a kind and opens it."""

    def make(kind: str, images: dict[str, np.ndarray]) -> ImageStore:
        if kind == 'folder':
            return FolderStore(write_folder(tmp_path / 'folder', images))
        if kind == 'basicsr':
            return BasicSRLmdbStore(write_basicsr(tmp_path / 'basicsr.lmdb', images))
        return RawLmdbStore(write_raw(tmp_path / 'raw.lmdb', images))

    return make
