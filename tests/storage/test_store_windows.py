"""What all kinds of stores must do alike."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from storage_samples import KINDS, random_image

from basicsr_ext import UserError
from basicsr_ext.storage import ImageSpec, RawLmdbStore, RawLmdbWriter

# The small ones lie inside LMDB's own pages.
SIZES = ((1, 1), (5, 7), (511, 20), (512, 33), (513, 20), (1100, 30))


def images_of(dtype, channels):
    return {f'image{number}': random_image((*size, channels), dtype, seed=number) for number, size in enumerate(SIZES)}


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
@pytest.mark.parametrize('kind', KINDS)
def test_round_trip(kind, dtype, channels, make_store):
    images = images_of(dtype, channels)
    store = make_store(kind, images)
    assert (store.channels, store.dtype, len(store)) == (channels, np.dtype(dtype), len(images))
    assert list(store.keys()) == sorted(images)
    for key, image in images.items():
        assert store.spec(key) == ImageSpec(*image.shape, np.dtype(dtype))
        np.testing.assert_array_equal(store.read(key), image)
        assert store.read(key).dtype == dtype


@pytest.mark.parametrize('channels', [1, 3])
def test_float_round_trip(channels, make_store):
    images = images_of('float32', channels)
    store = make_store('raw', images)
    assert store.dtype == np.float32
    for key, image in images.items():
        np.testing.assert_array_equal(store.read(key), image)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('kind', KINDS)
def test_random_windows_equal_slices(kind, channels, make_store):
    images = images_of('uint8', channels)
    store = make_store(kind, images)
    generator = np.random.default_rng(1)
    for key, image in images.items():
        for _ in range(25):
            top, left = (int(generator.integers(size)) for size in image.shape[:2])
            height, width = (
                int(generator.integers(1, image.shape[0] - top + 1)),
                int(generator.integers(1, image.shape[1] - left + 1)),
            )
            window = store.read(key, top, left, height, width)
            np.testing.assert_array_equal(window, image[top : top + height, left : left + width])
            (window,) = store.windows([(key, top, left)], height, width)
            np.testing.assert_array_equal(window, image[top : top + height, left : left + width])


@pytest.mark.parametrize('kind', KINDS)
def test_windows_default_to_the_rest_of_the_image(kind, make_store):
    image = random_image((70, 30, 3))
    store = make_store(kind, {'a': image})
    np.testing.assert_array_equal(store.read('a', 60, 4), image[60:, 4:])
    np.testing.assert_array_equal(store.read('a', height=2), image[:2])


@pytest.mark.parametrize('kind', KINDS)
def test_arrays_belong_to_the_caller(kind, make_store):
    image = random_image((70, 30, 3))
    store = make_store(kind, {'a': image})
    window = store.read('a', 3, 4, 66, 20)
    assert window.flags.c_contiguous
    assert window.flags.owndata
    window[:] = 0
    np.testing.assert_array_equal(store.read('a'), image)


@pytest.mark.parametrize(
    'window', [(-1, 0, 2, 2), (0, -1, 2, 2), (5, 0, 6, 2), (0, 5, 2, 6), (0, 0, 0, 2), (0, 0, 2, -1)]
)
@pytest.mark.parametrize('kind', KINDS)
def test_windows_outside_are_refused(kind, window, make_store):
    store = make_store(kind, {'inside': random_image((10, 10, 3))})
    with pytest.raises(UserError, match='does not lie in image "inside" of 10x10'):
        store.read('inside', *window)


@pytest.mark.parametrize('kind', KINDS)
def test_unknown_key_is_refused(kind, make_store):
    store = make_store(kind, {'known': random_image((4, 4, 3))})
    for ask in (store.spec, store.read):
        with pytest.raises(UserError, match=r'no image "missing".*"known"'):
            ask('missing')


@pytest.mark.parametrize('kind', KINDS)
def test_a_pickled_store_reads_the_same(kind, make_store):
    image = random_image((10, 10, 3))
    store = make_store(kind, {'a': image})
    copy = pickle.loads(pickle.dumps(store))
    assert copy.spec('a') == store.spec('a')
    np.testing.assert_array_equal(copy.read('a'), image)


def test_a_photograph_survives_every_layout(photos, make_store):
    images = {'chelsea': photos['chelsea']}
    for kind in KINDS:
        np.testing.assert_array_equal(
            make_store(kind, images).read('chelsea', 100, 50, 96, 96), photos['chelsea'][100:196, 50:146]
        )


def test_meta_is_kept(tmp_path):
    with RawLmdbWriter(tmp_path / 'a.lmdb', channels=1, dtype='uint8') as writer:
        writer.put('a', random_image((4, 4, 1)))
        writer.meta.update({'source': tmp_path, 'scale': np.int64(4), 'weights': np.arange(3.0), 'note': 'größer'})
    meta = RawLmdbStore(tmp_path / 'a.lmdb').meta
    assert meta == {'source': str(tmp_path), 'scale': 4, 'weights': [0.0, 1.0, 2.0], 'note': 'größer'}


@pytest.mark.parametrize('kind', ['folder', 'basicsr'])
def test_meta_is_empty_where_a_layout_has_none(kind, make_store):
    assert make_store(kind, {'a': random_image((4, 4, 3))}).meta == {}
