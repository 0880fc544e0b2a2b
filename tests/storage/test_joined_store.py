"""Several stores as one."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from run_helpers import write_images

from basicsr_ext.errors import UserError
from basicsr_ext.storage import open_store
from basicsr_ext.storage.joined import JoinedStore


@pytest.fixture
def stores(tmp_path):
    rng = np.random.default_rng(0)
    images = {name: rng.integers(0, 256, (9, 7 + i, 3)).astype(np.uint8) for i, name in enumerate(('x', 'y', 'z'))}
    first = write_images(tmp_path / 'first', {'x': images['x'], 'y': images['y']})
    second = write_images(tmp_path / 'second/deep', {'x': images['z']}).parent
    return images, {'b': open_store(first), 'a': open_store(second)}


def test_keys_and_pixels(stores):
    images, parts = stores
    joined = JoinedStore(parts)
    assert list(joined.keys()) == ['a/deep/x', 'b/x', 'b/y']
    for key, name in {'b/x': 'x', 'b/y': 'y', 'a/deep/x': 'z'}.items():
        for store in (joined, pickle.loads(pickle.dumps(joined))):
            np.testing.assert_array_equal(store.read(key), images[name])
            np.testing.assert_array_equal(store.read(key, 2, 1, 4, 5), images[name][2:6, 1:6])
        assert joined.spec(key)[:3] == images[name].shape
    places = {'b/y': ('y', 0, 0), 'a/deep/x': ('z', 2, 1), 'b/x': ('x', 1, 1)}
    found = joined.windows([(key, top, left) for key, (_, top, left) in places.items()], 4, 5)
    for window, (name, top, left) in zip(found, places.values(), strict=True):
        np.testing.assert_array_equal(window, images[name][top : top + 4, left : left + 5])


def test_each_store_is_asked_for_all_its_windows_at_once(stores, monkeypatch):
    _, parts = stores
    asked = []
    for name, store in parts.items():
        monkeypatch.setattr(
            store,
            'windows',
            lambda places, *size, name=name: asked.append(name) or [(name, *place) for place in places],
        )
    found = JoinedStore(parts).windows([('b/y', 0, 0), ('a/deep/x', 2, 1), ('b/x', 1, 1)], 4, 5)
    assert found == [('b', 'y', 0, 0), ('a', 'deep/x', 2, 1), ('b', 'x', 1, 1)]
    assert asked == ['b', 'a']


def test_refused(stores, tmp_path):
    _, parts = stores
    joined = JoinedStore(parts)
    with pytest.raises(UserError, match='no image "c/x"; keys begin with one of b, a'):
        joined.read('c/x')
    with pytest.raises(UserError, match='no image "w"'):
        joined.read('b/w')
    grey = open_store(parts['b'].path, channels=3)
    grey.channels = 1
    with pytest.raises(
        UserError, match=r'expected images of one kind, found uint8 images of 3 channels in b .* 1 channel in c'
    ):
        JoinedStore({'b': parts['b'], 'c': grey})
