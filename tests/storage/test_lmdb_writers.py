from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from storage_samples import random_image, write_raw
from waiting import LIMIT

from basicsr_ext import UserError
from basicsr_ext.storage import (
    BasicSRLmdbStore,
    BasicSRLmdbWriter,
    RawLmdbStore,
    RawLmdbWriter,
    lmdb_writer,
    open_store,
)

IMAGE = random_image((20, 30, 3))

DIES_WHILE_WRITING = """
import os, signal, sys
import numpy as np
from basicsr_ext.storage import RawLmdbWriter
with RawLmdbWriter(sys.argv[1], channels=1, dtype='uint8') as writer:
    writer.put('a', np.zeros((9, 9, 1), np.uint8))
    os.kill(os.getpid(), signal.SIGKILL)
"""

FILLS_THE_DISK = """
import resource, sys
import numpy as np
from basicsr_ext import UserError
from basicsr_ext.storage import RawLmdbWriter, BasicSRLmdbWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
make = {'raw': lambda path: RawLmdbWriter(path, channels=3, dtype='uint8'), 'basicsr': BasicSRLmdbWriter}[sys.argv[1]]
try:
    with make(sys.argv[2]) as writer:
        for number in range(30):
            writer.put(str(number), np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8))
except UserError as error:
    print(error)
    sys.exit(7)
"""


def raw_writer(path):
    return RawLmdbWriter(path, channels=3, dtype='uint8')


writers = pytest.mark.parametrize('make_writer', [raw_writer, BasicSRLmdbWriter])


def run(script, *arguments):
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)}
    command = [sys.executable, '-c', script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=LIMIT)


@writers
def test_the_name_appears_only_when_all_is_done(make_writer, tmp_path):
    path = tmp_path / 'new/sub/a.lmdb'
    with make_writer(path) as writer:
        writer.put('a', IMAGE)
        assert not path.exists()
        assert path.with_name('a.lmdb.partial').is_dir()
    np.testing.assert_array_equal(open_store(path).read('a'), IMAGE)
    assert [file.name for file in path.parent.iterdir()] == ['a.lmdb']


@writers
@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_nothing(error, make_writer, tmp_path):
    def interrupted():
        with make_writer(tmp_path / 'a.lmdb') as writer:
            writer.put('a', IMAGE)
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@writers
def test_what_exists_is_not_overwritten(make_writer, tmp_path):
    (tmp_path / 'a.lmdb').mkdir()
    with pytest.raises(UserError, match=r'a\.lmdb: exists already\. Remove it, or choose another name'):
        make_writer(tmp_path / 'a.lmdb')


@writers
def test_what_appears_meanwhile_is_not_overwritten(make_writer, tmp_path):
    def race():
        with make_writer(tmp_path / 'a.lmdb') as writer:
            writer.put('a', IMAGE)
            (tmp_path / 'a.lmdb').mkdir()

    with pytest.raises(UserError, match='exists already'):
        race()
    assert not (tmp_path / 'a.lmdb.partial').exists()


@writers
def test_the_name_must_end_in_lmdb(make_writer, tmp_path):
    with pytest.raises(UserError, match=r'must end in "\.lmdb"'):
        make_writer(tmp_path / 'images')


@writers
def test_a_store_without_images_is_not_made(make_writer, tmp_path):
    with pytest.raises(UserError, match='no image was given'), make_writer(tmp_path / 'a.lmdb'):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_named_and_replaced(tmp_path):
    path, partial = tmp_path / 'a.lmdb', tmp_path / 'a.lmdb.partial'
    assert run(DIES_WHILE_WRITING, path).returncode == -signal.SIGKILL
    assert not path.exists()
    assert partial.is_dir()
    for place in (path, partial):
        with pytest.raises(UserError, match=r'unfinished LMDB.*Make it again'):
            open_store(place)
    write_raw(path, {'b': IMAGE})
    assert list(RawLmdbStore(path).keys()) == ['b']
    assert not partial.exists()


def test_of_two_writers_of_one_store_the_first_gives_up(tmp_path):
    path = tmp_path / 'a.lmdb'
    with raw_writer(path) as second:

        def overtaken():
            with raw_writer(path) as first:
                first.put('first', IMAGE)
                second.__enter__()
                second.put('second', IMAGE)

        with pytest.raises(UserError, match='another process has started to write the same LMDB'):
            overtaken()
    assert list(RawLmdbStore(path).keys()) == ['second']


@writers
def test_images_of_the_wrong_shape_are_refused(make_writer, tmp_path):
    with make_writer(tmp_path / 'a.lmdb') as writer:
        for shape in ((4, 4), (4, 4, 2), (0, 4, 3), (1, 4, 4, 3)):
            with pytest.raises(UserError, match='image "bad": expected an array'):
                writer.put('bad', np.zeros(shape, np.uint8))
        writer.put('good', IMAGE)
    assert list(open_store(tmp_path / 'a.lmdb').keys()) == ['good']


@writers
def test_a_key_is_given_once(make_writer, tmp_path):
    with make_writer(tmp_path / 'a.lmdb') as writer:
        writer.put('a', IMAGE)
        with pytest.raises(UserError, match='there is an image "a" already'):
            writer.put('a', IMAGE)


def test_raw_images_must_be_what_was_declared(tmp_path):
    with raw_writer(tmp_path / 'a.lmdb') as writer:
        with pytest.raises(UserError, match='expected 3 channels of uint8, found 1 of uint8'):
            writer.put('a', random_image((4, 4, 1)))
        with pytest.raises(UserError, match='expected 3 channels of uint8, found 3 of uint16'):
            writer.put('a', random_image((4, 4, 3), 'uint16'))
        writer.put('a', IMAGE)


@pytest.mark.parametrize('arguments', [{'channels': 4, 'dtype': 'uint8'}, {'channels': 3, 'dtype': 'float64'}])
def test_raw_formats_that_are_not_supported(arguments, tmp_path):
    with pytest.raises(UserError, match='must be'):
        RawLmdbWriter(tmp_path / 'a.lmdb', **arguments)


def test_raw_keys_of_all_kinds(tmp_path):
    keys = ['v1.2', 'sub.dir/größe', '東京/0001', 'with space', 'k' * 511]
    images = {key: random_image((70, 5, 3), seed=number) for number, key in enumerate(keys)}
    store = RawLmdbStore(write_raw(tmp_path / 'a.lmdb', images))
    assert list(store.keys()) == sorted(keys)
    for key, image in images.items():
        np.testing.assert_array_equal(store.read(key), image)


@pytest.mark.parametrize(
    ('key', 'message'),
    [
        ('', 'empty name'),
        ('ä' * 256, 'found 512'),
        ('\udc80', 'no UTF-8'),
        ('../a', r'the part "\.\."'),
        ('/a', 'absolute path'),
    ],
)
def test_raw_keys_that_do_not_fit(key, message, tmp_path):
    with raw_writer(tmp_path / 'a.lmdb') as writer:
        with pytest.raises(UserError, match=message):
            writer.put(key, IMAGE)
        writer.put('good', IMAGE)


def test_views_that_are_not_contiguous(tmp_path):
    write_raw(tmp_path / 'a.lmdb', {'turned': IMAGE[::-1, ::2].transpose(1, 0, 2)})
    np.testing.assert_array_equal(RawLmdbStore(tmp_path / 'a.lmdb').read('turned'), IMAGE[::-1, ::2].transpose(1, 0, 2))


@writers
def test_the_map_grows_and_claims_no_room(make_writer, tmp_path, monkeypatch):
    monkeypatch.setattr(lmdb_writer, '_FIRST_MAP_SIZE', 1 << 16)
    images = {f'{number:02}': random_image((150, 200, 3), seed=number) for number in range(30)}
    with make_writer(tmp_path / 'a.lmdb') as writer:
        for key, image in images.items():
            writer.put(key, image)
    store = open_store(tmp_path / 'a.lmdb')
    for key, image in images.items():
        np.testing.assert_array_equal(store.read(key), image)
    status = (tmp_path / 'a.lmdb/data.mdb').stat()
    payload = sum(image.nbytes for image in images.values())
    assert max(status.st_size, status.st_blocks * 512) < 1.15 * payload


@writers
def test_tiny_images_in_large_numbers(make_writer, tmp_path):
    """Values that lie inside LMDB's tree pages: the tree splits many times, and the file's end must still be right."""
    with make_writer(tmp_path / 'a.lmdb') as writer:
        for number in range(1500):
            writer.put(f'image{number}', np.full((2, 3, 3), number % 256, np.uint8))
    store = open_store(tmp_path / 'a.lmdb')
    assert len(store) == 1500
    assert [int(store.read(f'image{number}', 1, 1, 1, 1).mean()) for number in (0, 255, 256, 1499)] == [0, 255, 0, 219]


@pytest.mark.skipif(sys.platform == 'win32', reason='needs a limit on the size of files')
@pytest.mark.parametrize('kind', ['raw', 'basicsr'])
def test_a_full_disk_leaves_one_message_and_nothing_else(kind, tmp_path):
    result = run(FILLS_THE_DISK, kind, tmp_path / 'a.lmdb')
    assert result.returncode == 7, result.stderr
    assert 'a.lmdb: writing failed' in result.stdout
    assert list(tmp_path.iterdir()) == []


@writers
def test_a_target_that_cannot_be_made(make_writer, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match=r'writing failed.*choose another'), make_writer(tmp_path / 'file/a.lmdb'):
        pass


@pytest.mark.skipif(not hasattr(os, 'geteuid') or os.geteuid() == 0, reason='root may write anywhere')
@writers
def test_a_read_only_target(make_writer, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match='writing failed'), make_writer(tmp_path / 'a.lmdb'):
        pass


def test_meta_that_json_cannot_hold(tmp_path):
    def write():
        with raw_writer(tmp_path / 'a.lmdb') as writer:
            writer.put('a', IMAGE)
            writer.meta['function'] = write

    with pytest.raises(UserError, match='meta must be what JSON can hold'):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_needs_a_with_statement(tmp_path):
    with pytest.raises(RuntimeError, match='"with" statement'):
        raw_writer(tmp_path / 'a.lmdb').put('a', IMAGE)


def test_both_layouts_hold_the_same_pixels(tmp_path):
    for make_writer, name in ((raw_writer, 'raw.lmdb'), (BasicSRLmdbWriter, 'basicsr.lmdb')):
        with make_writer(tmp_path / name) as writer:
            writer.put('a', IMAGE)
    np.testing.assert_array_equal(
        RawLmdbStore(tmp_path / 'raw.lmdb').read('a'), BasicSRLmdbStore(tmp_path / 'basicsr.lmdb').read('a')
    )
