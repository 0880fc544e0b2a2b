from __future__ import annotations

import json
import mmap
import os
import pickle
import shutil
import signal
import subprocess
import sys
import zlib

import lmdb
import numpy as np
import pytest
from storage_samples import random_image, write_raw
from waiting import LIMIT

from basicsr_ext import UserError
from basicsr_ext.storage import RawLmdbStore
from basicsr_ext.storage.environment import LmdbReader

IMAGE = random_image((1300, 50, 3))
SMALL = random_image((5, 50, 3))

READS_HALF_A_FILE = """
import os, sys
from basicsr_ext.storage import RawLmdbStore
store = RawLmdbStore(sys.argv[1])
store.read('image', 0, 0, 1, 1)  # and the name behind the pixels
os.truncate(sys.argv[1] + '/data.mdb', int(sys.argv[2]))
print(int(store.read('image', *map(int, sys.argv[3:])).sum()), flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return write_raw(tmp_path / 'a.lmdb', {'image': IMAGE, 'small': SMALL})


def edit_index(path, **changes):
    index = json.loads((path / 'meta.json').read_text())
    index.update(changes)
    (path / 'meta.json').write_text(json.dumps(index))


def edit_data(path, function):
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        function(transaction)
    environment.close()


def test_the_layout_is_the_documented_one(path):
    environment = lmdb.open(str(path), readonly=True, lock=False)
    with environment.begin() as transaction:
        values = dict(transaction.cursor())
    state = environment.info()
    environment.close()
    assert values == {b'image': IMAGE.tobytes() + b'image\0', b'small': SMALL.tobytes() + b'small\0'}
    data = (path / 'data.mdb').read_bytes()
    assert json.loads((path / 'meta.json').read_text()) == {
        'format': 'basicsr_ext raw images',
        'version': 2,
        'dtype': 'uint8',
        'channels': 3,
        'images': {'image': [1300, 50], 'small': [5, 50]},
        'crc32': {'image': zlib.crc32(IMAGE.tobytes()), 'small': zlib.crc32(SMALL.tobytes())},
        'offsets': {'image': data.index(IMAGE.tobytes())},
        'file': {name: state[name] for name in ('last_txnid', 'last_pgno')},
        'meta': {},
    }
    assert {file.name for file in path.iterdir()} == {'data.mdb', 'meta.json'}


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_pixels_are_found_in_the_file_without_lmdb(dtype, tmp_path, monkeypatch):
    """Images of one grey, also of LMDB's own zeros, and equal images have a place of their own each."""
    images = {f'random {number}': random_image((60 + number, 40, 3), dtype, seed=number) for number in range(50)}
    images |= {f'flat {value}': np.full((70, 30, 3), value, dtype) for value in (0, 1, 255)}
    images |= {'again': images['random 7'], 'zeros again': images['flat 0']}
    path = write_raw(tmp_path / 'many.lmdb', dict(sorted(images.items(), reverse=True)))
    offsets = json.loads((path / 'meta.json').read_text())['offsets']
    assert offsets.keys() == images.keys()
    assert len(set(offsets.values())) == len(images)
    monkeypatch.delattr(LmdbReader, 'view')
    store = RawLmdbStore(path)
    for key, image in images.items():
        np.testing.assert_array_equal(store.read(key), image)
        np.testing.assert_array_equal(store.read(key, 3, 5, 50, 20), image[3:53, 5:25])


@pytest.mark.parametrize('number', [1, 2, 40])
def test_a_compacted_copy_whose_values_lie_elsewhere_is_read_through_lmdb(number, tmp_path, monkeypatch):
    images = {f'{n:02}': random_image((60, 40, 3), seed=n) for n in range(number)}
    path = write_raw(tmp_path / 'a.lmdb', dict(sorted(images.items(), reverse=True)))
    copy = tmp_path / 'copy.lmdb'
    shutil.copytree(path, copy, ignore=shutil.ignore_patterns('data.mdb'))
    environment = lmdb.open(str(path), readonly=True, lock=False)
    environment.copy(str(copy), compact=True)
    environment.close()
    offsets = json.loads((path / 'meta.json').read_text())['offsets']
    assert (copy / 'data.mdb').read_bytes().index(images['00'].tobytes()) != offsets['00']
    store = RawLmdbStore(copy)
    for key, image in images.items():
        np.testing.assert_array_equal(store.windows([(key, 3, 5)], 50, 20)[0], image[3:53, 5:25])
    moved = shutil.copytree(path, tmp_path / 'moved.lmdb')  # a plain copy keeps its places
    monkeypatch.delattr(LmdbReader, 'view')
    np.testing.assert_array_equal(RawLmdbStore(moved).read('00'), images['00'])


def test_a_file_that_was_written_to_is_read_through_lmdb(path):
    other = random_image(IMAGE.shape, seed=5)
    edit_data(path, lambda transaction: transaction.put(b'image', other.tobytes() + b'image\0'))
    np.testing.assert_array_equal(RawLmdbStore(path).read('image'), other)


@pytest.mark.parametrize('keys', [('a', 'b', 'c'), ('a', 'ab', 'abc')])
def test_an_index_of_another_file_with_equal_sizes_and_transactions_does_no_harm(keys, tmp_path):
    images = {key: random_image((60, 40, 3), seed=number) for number, key in enumerate(keys)}
    path = write_raw(tmp_path / 'a.lmdb', images)
    other = write_raw(tmp_path / 'b.lmdb', dict(sorted(images.items(), reverse=True)))
    assert (path / 'data.mdb').stat().st_size == (other / 'data.mdb').stat().st_size
    assert json.loads((path / 'meta.json').read_text())['file'] == json.loads((other / 'meta.json').read_text())['file']
    shutil.copy(other / 'meta.json', path / 'meta.json')
    store = RawLmdbStore(path)
    for key, image in images.items():
        np.testing.assert_array_equal(store.read(key), image)


def test_a_pickled_store_reads_what_was_made_anew_meanwhile(tmp_path):
    images = {key: random_image((60, 40, 3), seed=number) for number, key in enumerate('abc')}
    path = write_raw(tmp_path / 'a.lmdb', images)
    pickled = pickle.dumps(RawLmdbStore(path))
    shutil.rmtree(path)
    anew = {key: random_image((61, 40, 3), seed=number + 7) for number, key in enumerate('cba')}
    write_raw(path, anew)
    store = pickle.loads(pickled)
    for key, image in anew.items():
        np.testing.assert_array_equal(store.read(key), image)


@pytest.mark.skipif(
    sys.platform != 'linux', reason='needs the signal that Linux sends for a page behind the end of a file'
)
def test_only_the_rows_of_the_window_are_touched(tmp_path):
    """Half of the data file is cut away behind the store's back: touching a page of that half kills the process."""
    image = random_image((2048, 300, 3))
    path = write_raw(tmp_path / 'tall.lmdb', {'image': image, 'small': SMALL})
    half = (path / 'data.mdb').stat().st_size // 2

    def read(*window):
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
        command = [sys.executable, '-c', READS_HALF_A_FILE, str(path), str(half), *map(str, window)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)

    above = read(0, 10, 500, 200)
    assert above.stdout.strip() == str(image[:500, 10:210].sum()), above.stderr
    shutil.rmtree(path)
    write_raw(path, {'image': image, 'small': SMALL})
    assert read(1348, 10, 700, 200).returncode == -signal.SIGBUS


def test_a_truncated_file_is_refused_at_every_length(path):
    data = (path / 'data.mdb').read_bytes()
    for length in (0, 1, 100, 4095, 4096, 5000, 8192, 9000, len(data) // 2, len(data) - 4096, len(data) - 1):
        (path / 'data.mdb').write_bytes(data[:length])
        with pytest.raises(UserError, match=r'data\.mdb'):
            RawLmdbStore(path)
    (path / 'data.mdb').write_bytes(data)
    np.testing.assert_array_equal(RawLmdbStore(path).read('image'), IMAGE)


def test_noise_instead_of_data_is_refused(path):
    (path / 'data.mdb').write_bytes(np.random.default_rng(0).bytes(40960))
    with pytest.raises(UserError, match=r'data\.mdb cannot be opened'):
        RawLmdbStore(path)


def test_a_missing_data_file_is_refused(path):
    (path / 'data.mdb').unlink()
    with pytest.raises(UserError, match=r'data\.mdb cannot be read: No such file'):
        RawLmdbStore(path)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [({'format': 'other'}, 'found something else'), ({'version': 99}, 'expected version 2 of the format, found 99')],
)
def test_other_indices_are_refused(changes, message, path):
    edit_index(path, **changes)
    with pytest.raises(UserError, match=message):
        RawLmdbStore(path)


def test_a_damaged_or_missing_index_is_refused(path):
    (path / 'meta.json').write_text('{"format": ')
    with pytest.raises(UserError, match='damaged index'):
        RawLmdbStore(path)
    (path / 'meta.json').unlink()
    with pytest.raises(UserError, match=r'meta\.json: expected the index'):
        RawLmdbStore(path)


def test_an_image_that_the_data_lack_is_named(path):
    edit_index(path, images={'absent': [10, 10]})
    with pytest.raises(UserError, match=r"data\.mdb is damaged \(b'absent"):
        RawLmdbStore(path).read('absent')


def test_an_image_of_the_wrong_length_is_named(path):
    edit_data(path, lambda transaction: transaction.put(b'image', b'shortimage\0'))
    store = RawLmdbStore(path)
    np.testing.assert_array_equal(store.read('small'), SMALL)
    with pytest.raises(UserError, match=r'image "image" has 5 bytes, which do not make \(1300, 50, 3\) of uint8'):
        store.read('image')


def test_a_store_made_anew_under_the_same_name(path):
    old = RawLmdbStore(path)
    shutil.rmtree(path)
    other = random_image((70, 8, 1), 'uint16')
    write_raw(path, {'image': other})
    np.testing.assert_array_equal(RawLmdbStore(path).read('image'), other)
    np.testing.assert_array_equal(old.read('image'), IMAGE)


def test_windows_lie_in_the_store(path):
    store = RawLmdbStore(path)
    windows = store.windows([('image', 20, 2), ('image', 500, 0), ('image', 600, 9)], 30, 40)
    for window, (top, left) in zip(windows, ((20, 2), (500, 0), (600, 9)), strict=True):
        np.testing.assert_array_equal(window, IMAGE[top : top + 30, left : left + 40])
        assert not window.flags.owndata
        assert not window.flags.writeable


@pytest.fixture
def announced(monkeypatch):
    """First byte and number of bytes of what the system is told to read."""

    class Content(mmap.mmap):
        def madvise(self, advice, first, size):
            assert advice == mmap.MADV_WILLNEED
            ranges.append((first, size))
            super().madvise(advice, first, size)

    ranges = []
    monkeypatch.setattr(mmap, 'mmap', Content)
    return ranges


@pytest.mark.skipif(not hasattr(mmap, 'MADV_WILLNEED'), reason='needs madvise')
@pytest.mark.parametrize('exceeds_memory', [False, True])
def test_rows_of_new_images_are_announced_all_at_once_and_nothing_else(
    tmp_path, announced, exceeds_memory, monkeypatch
):
    """Where the file may not stay in memory, those of known images too."""
    if exceeds_memory:
        monkeypatch.setattr('basicsr_ext.storage.raw_lmdb._physical_memory', lambda: 1000)
    images = {f'{number:02}': random_image((600, 60 + number, 3), seed=number) for number in range(40)}
    path = write_raw(tmp_path / 'many.lmdb', images)
    data = (path / 'data.mdb').read_bytes()
    store = RawLmdbStore(path)
    store.windows([('03', 100, 0)], 30, 20)
    assert len(announced) == 2  # the rows, and the name behind the pixels
    announced.clear()
    places = [(key, 500, 0) for key in images]
    store.windows(places, 30, 20)
    wanted = [image[500:530].tobytes() for key, image in images.items() if exceeds_memory or key != '03']
    names = [range_ for range_ in announced if range_[1] <= mmap.PAGESIZE]
    for rows, (first, size) in zip(wanted, [range_ for range_ in announced if range_ not in names], strict=True):
        place = data.index(rows)
        assert first <= place < first + mmap.PAGESIZE
        assert first + size == place + len(rows)
    for key, (first, size) in zip([key for key in images if key != '03'], names, strict=True):
        place = data.index(images[key][-5:].tobytes() + f'{key}\0'.encode()) + images[key][-5:].nbytes
        assert first <= place < first + size
    announced.clear()
    store.windows(places, 30, 20)
    assert len(announced) == (40 if exceeds_memory else 0)


def test_a_file_that_was_moved_away_is_read_as_long_as_it_is_open(path):
    store = RawLmdbStore(path)
    store.windows([('image', 20, 2)], 30, 40)
    (path / 'data.mdb').rename(path / 'moved.mdb')
    (window,) = store.windows([('small', 1, 9)], 3, 40)
    np.testing.assert_array_equal(window, SMALL[1:4, 9:49])


@pytest.mark.parametrize('offset', [0, 8192, 8209, 10**12])
def test_wrong_offsets_do_no_harm(offset, path):
    edit_index(path, offsets={'image': offset, 'small': offset})
    store = RawLmdbStore(path)
    np.testing.assert_array_equal(store.windows([('image', 20, 2)], 30, 40)[0], IMAGE[20:50, 2:42])
    np.testing.assert_array_equal(store.read('small'), SMALL)


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        *((name, None) for name in ('file', 'offsets', 'images', 'dtype', 'channels', 'meta')),
        ('offsets', {'image': '8208'}),
        ('offsets', {'image': -8}),
        ('offsets', {'image': 8208.0}),
        ('images', {}),
        ('images', {'image': [1300]}),
        ('images', {'image': [1300, '50']}),
        ('images', {'image': [1300, 0]}),
        ('dtype', 'int8'),
        ('channels', 4),
    ],
)
def test_a_damaged_entry_of_the_index_is_named(name, value, path):
    edit_index(path, **{name: value})
    with pytest.raises(UserError, match=rf'meta\.json: damaged index \("{name}" is missing or wrong\)'):
        RawLmdbStore(path)


def corrupt(path, first):
    """Changes one byte of data.mdb, as a bad disk does."""
    with (path / 'data.mdb').open('r+b') as file:
        file.seek(first)
        byte = file.read(1)
        file.seek(first)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_a_changed_pixel_is_noticed(dtype, tmp_path):
    image = random_image((40, 60, 3), dtype)
    path = write_raw(tmp_path / 'a.lmdb', {'good': random_image((40, 60, 3), dtype, seed=1), 'image': image})
    store = RawLmdbStore(path)
    for key in store.keys():
        store.verify(key)
    corrupt(path, (path / 'data.mdb').read_bytes().index(image.tobytes()) + image.nbytes // 2)
    store = RawLmdbStore(path)
    store.verify('good')
    with pytest.raises(
        UserError, match=r'image "image": its pixels are not those that were stored \(crc32 [0-9a-f]{8}'
    ):
        store.verify('image')


def test_images_without_a_place_of_their_own_are_verified_too(path):
    edit_data(path, lambda transaction: transaction.put(b'small', SMALL[::-1].tobytes() + b'small\0'))
    store = RawLmdbStore(path)
    store.verify('image')
    with pytest.raises(UserError, match='its pixels are not those'):
        store.verify('small')


def test_stores_without_checksums_are_read(path):
    index = json.loads((path / 'meta.json').read_text())
    del index['crc32']
    (path / 'meta.json').write_text(json.dumps(index))
    store = RawLmdbStore(path)
    assert store.checksums == {} and store.marks(['image', 'small']) == ['', '']
    store.verify('image')
    np.testing.assert_array_equal(store.read('image'), IMAGE)


@pytest.mark.parametrize('checksums', [{'image': 1, 'small': 'x'}, [1, 2], None])
def test_damaged_checksums(path, checksums):
    edit_index(path, crc32=checksums)
    with pytest.raises(UserError, match='damaged index \\("crc32" is missing or wrong'):
        RawLmdbStore(path)


def test_a_list_of_checksums_that_lacks_one(path):
    edit_index(path, crc32={'image': zlib.crc32(IMAGE.tobytes())})
    store = RawLmdbStore(path)
    store.verify('image')
    with pytest.raises(UserError, match='lacks the checksum of image "small"'):
        store.verify('small')


def test_marks_are_checksums(path):
    crc = zlib.crc32(IMAGE.tobytes())
    assert RawLmdbStore(path).marks(['image', 'small'])[0] == f'crc32 {crc}'


def test_the_kind_of_a_store_is_known_by_the_head_of_its_index(path, monkeypatch):
    """The index of a large set has megabytes; written in another order, it is read whole."""
    from basicsr_ext.storage import raw_lmdb

    index = json.loads((path / 'meta.json').read_text())
    with monkeypatch.context() as patch:
        patch.setattr(raw_lmdb, 'read_file', lambda file: pytest.fail('the whole index was read'))
        assert raw_lmdb.is_raw_lmdb(path)
    (path / 'meta.json').write_text(json.dumps(dict(sorted(index.items())), indent=1))
    assert raw_lmdb.is_raw_lmdb(path)
    edit_index(path, format='another')
    assert not raw_lmdb.is_raw_lmdb(path)
