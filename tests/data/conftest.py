"""Fixtures of the dataset tests."""

from __future__ import annotations

import pytest

import basicsr_ext
from basicsr_ext import UserError, storage

# Datasets are classes in BasicSR's registry: test modules can import them only once BasicSR can be imported.
basicsr_ext.register()


@pytest.fixture
def use_stores(monkeypatch):
    """Gives a function that makes ``open_store`` find the given stores by name."""

    def use(stores):
        def open_store(path, channels=None):
            if str(path) not in stores:
                raise UserError(f'{path} is not an image store.')
            return stores[str(path)]

        monkeypatch.setattr(storage, 'open_store', open_store, raising=False)
        return stores

    return use
