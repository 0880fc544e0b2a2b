from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys

import lmdb
import numpy as np
import pytest
from storage_samples import random_image, write_raw

from basicsr_ext import UserError
from basicsr_ext.storage import RawLmdbStore
from basicsr_ext.storage.environment import LmdbReader

IMAGE = random_image((1300, 50, 3))

READS_HALF_A_FILE = """
import os, sys
from basicsr_ext.storage import RawLmdbStore
store = RawLmdbStore(sys.argv[1])
os.truncate(sys.argv[1] + '/data.mdb', int(sys.argv[2]))
print(int(store.read('image', *map(int, sys.argv[3:])).sum()), flush=True)
"""


@pytest.fixture
def path(tmp_path):
    return write_raw(tmp_path / 'a.lmdb', {'image': IMAGE})


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
        stripes = dict(transaction.cursor())
    environment.close()
    assert list(stripes) == [b'image\0' + row.to_bytes(4, 'big') for row in (0, 512, 1024)]
    assert b''.join(stripes.values()) == IMAGE.tobytes()
    index = json.loads((path / 'meta.json').read_text())
    assert index.pop('offsets').keys() == {'image'}
    assert index == {
        'format': 'basicsr_ext raw images',
        'version': 1,
        'stripe_rows': 512,
        'dtype': 'uint8',
        'channels': 3,
        'images': {'image': [1300, 50]},
        'meta': {},
    }
    assert {file.name for file in path.iterdir()} == {'data.mdb', 'meta.json'}


@pytest.mark.parametrize(
    ('top', 'height', 'rows'),
    [
        (0, 512, [0]),
        (511, 2, [0, 512]),
        (512, 512, [512]),
        (520, 5, [512]),
        (9, 1200, [0, 512, 1024]),
        (1299, 1, [1024]),
    ],
)
def test_only_the_stripes_of_the_window_are_looked_up(top, height, rows, path, monkeypatch):
    looked_up = []
    view = LmdbReader.view
    monkeypatch.setattr(LmdbReader, 'view', lambda reader, name: (looked_up.append(name), view(reader, name))[1])
    store = RawLmdbStore(path)
    store.read('image', top, 3, height, 20)
    assert looked_up == [b'image\0' + row.to_bytes(4, 'big') for row in rows]
    store.read('image', top, 5, height, 10)
    assert len(looked_up) == len(rows)


@pytest.mark.skipif(
    sys.platform != 'linux', reason='needs the signal that Linux sends for a page behind the end of a file'
)
def test_only_the_rows_of_the_window_are_touched(tmp_path):
    """Half of the data file is cut away behind the store's back: touching a page of that half kills the process."""
    image = random_image((2048, 300, 3))
    path = write_raw(tmp_path / 'tall.lmdb', {'image': image})
    half = (path / 'data.mdb').stat().st_size // 2

    def read(*window):
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
        command = [sys.executable, '-c', READS_HALF_A_FILE, str(path), str(half), *map(str, window)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    above = read(0, 10, 500, 200)
    assert above.stdout.strip() == str(image[:500, 10:210].sum()), above.stderr
    path.joinpath('data.mdb').unlink()
    shutil.rmtree(path)
    write_raw(path, {'image': image})
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
    [({'format': 'other'}, 'found something else'), ({'version': 99}, 'expected version 1 of the format, found 99')],
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


def test_a_stripe_of_the_wrong_length_is_named(path):
    edit_data(path, lambda transaction: transaction.put(b'image\0' + (512).to_bytes(4, 'big'), b'short'))
    store = RawLmdbStore(path)
    np.testing.assert_array_equal(store.read('image', height=512), IMAGE[:512])
    with pytest.raises(UserError, match='rows 512 and following of image "image" have 5 bytes'):
        store.read('image')


def test_a_store_made_anew_under_the_same_name(path):
    old = RawLmdbStore(path)
    shutil.rmtree(path)
    other = random_image((70, 8, 1), 'uint16')
    write_raw(path, {'image': other})
    np.testing.assert_array_equal(RawLmdbStore(path).read('image'), other)
    np.testing.assert_array_equal(old.read('image'), IMAGE)


def test_stores_with_other_stripes_are_read(tmp_path, monkeypatch):
    """The index says how many rows a stripe has; there are stores of 64 and 128, whose index has no offsets."""
    monkeypatch.setattr('basicsr_ext.storage.raw_lmdb_writer.STRIPE_ROWS', 64)
    path = write_raw(tmp_path / 'other.lmdb', {'image': IMAGE})
    index = json.loads((path / 'meta.json').read_text())
    del index['offsets']
    (path / 'meta.json').write_text(json.dumps(index))
    store = RawLmdbStore(path)
    np.testing.assert_array_equal(store.read('image', 30, 2, 190, 40), IMAGE[30:220, 2:42])
    (window,) = store.windows([('image', 30, 2)], 190, 40)
    np.testing.assert_array_equal(window, IMAGE[30:220, 2:42])


def test_windows_of_a_stripe_lie_in_the_store(path):
    store = RawLmdbStore(path)
    inside, across, again = store.windows([('image', 20, 2), ('image', 500, 0), ('image', 600, 9)], 30, 40)
    np.testing.assert_array_equal(inside, IMAGE[20:50, 2:42])
    np.testing.assert_array_equal(across, IMAGE[500:530, :40])
    np.testing.assert_array_equal(again, IMAGE[600:630, 9:49])
    assert [window.flags.owndata for window in (inside, across, again)] == [False, True, False]
    assert not inside.flags.writeable


@pytest.mark.skipif(not hasattr(os, 'posix_fadvise'), reason='needs posix_fadvise')
def test_new_stripes_are_announced_all_at_once_and_where_they_lie(tmp_path, monkeypatch):
    images = {f'{number:02}': random_image((600, 60 + number, 3), seed=number) for number in range(40)}
    path = write_raw(tmp_path / 'many.lmdb', images)
    data = (path / 'data.mdb').read_bytes()
    announced = []
    monkeypatch.setattr(os, 'posix_fadvise', lambda file, first, size, advice: announced.append((first, size)))
    store = RawLmdbStore(path)
    store.windows([('03', 100, 0)], 30, 20)
    assert len(announced) == 1
    announced.clear()
    store.windows([(key, 500, 0) for key in images], 30, 20)  # two stripes of each
    wanted = [
        image[rows].tobytes()
        for key, image in images.items()
        for rows in ((slice(512, None),) if key == '03' else (slice(512), slice(512, None)))
    ]
    for stripe, (first, size) in zip(wanted, announced, strict=True):
        place = data.find(stripe)
        assert first <= place
        assert place + len(stripe) <= first + size <= place + len(stripe) + 8 * 4096
    store.windows([(key, 400, 5) for key in images], 30, 20)
    assert len(announced) == len(wanted)


def test_a_file_that_was_moved_away_is_read_as_long_as_it_is_open(path):
    store = RawLmdbStore(path)
    store.windows([('image', 20, 2)], 30, 40)
    (path / 'data.mdb').rename(path / 'moved.mdb')
    (window,) = store.windows([('image', 600, 9)], 30, 40)  # a new stripe, which cannot be announced
    np.testing.assert_array_equal(window, IMAGE[600:630, 9:49])


@pytest.mark.parametrize('offset', [0, 10**12])
def test_wrong_offsets_do_no_harm(offset, path):
    edit_index(path, offsets={'image': offset})
    store = RawLmdbStore(path)
    (window,) = store.windows([('image', 20, 2)], 30, 40)
    np.testing.assert_array_equal(window, IMAGE[20:50, 2:42])
