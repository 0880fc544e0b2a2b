from __future__ import annotations

import json
import os

import lmdb
import pytest
from storage_samples import random_image, write_basicsr, write_folder, write_raw

from basicsr_ext import UserError
from basicsr_ext.storage import BasicSRLmdbStore, FolderStore, RawLmdbStore, open_store

GREY, COLOUR = random_image((6, 9, 1)), random_image((6, 9, 3))


def test_each_kind_is_recognised(tmp_path):
    cases = {
        write_folder(tmp_path / 'folder', {'a': COLOUR}): FolderStore,
        write_basicsr(tmp_path / 'basicsr.lmdb', {'a': COLOUR}): BasicSRLmdbStore,
        write_raw(tmp_path / 'raw.lmdb', {'a': COLOUR}): RawLmdbStore,
    }
    for path, kind in cases.items():
        assert type(open_store(path)) is kind
        assert type(open_store(str(path))) is kind
        assert open_store(path).path == path


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    write_folder(tmp_path / 'images', {'a': COLOUR})
    assert open_store('~/images').path == tmp_path / 'images'


@pytest.mark.parametrize('write', [write_folder, write_basicsr])
def test_channels_are_passed_on(write, tmp_path):
    path = write(tmp_path / 'a.lmdb', {'a': GREY}) if write is write_basicsr else write(tmp_path / 'a', {'a': GREY})
    assert [open_store(path, channels).channels for channels in (None, 1, 3)] == [1, 1, 3]


def test_channels_of_a_raw_lmdb_must_agree(tmp_path):
    path = write_raw(tmp_path / 'a.lmdb', {'a': GREY})
    assert open_store(path, 1).channels == 1
    with pytest.raises(UserError, match='expected images of 3 channels, but this LMDB has 1'):
        open_store(path, 3)
    with pytest.raises(UserError, match='channels must be 1 or 3, found 2'):
        open_store(path, 2)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match='and there is nothing'):
        open_store(tmp_path / 'missing')


def test_a_file(tmp_path):
    (tmp_path / 'image.png').write_bytes(b'')
    with pytest.raises(UserError, match='expected a folder of images or an LMDB directory, found a file'):
        open_store(tmp_path / 'image.png')


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UserError, match=r'expected images .* found none'):
        open_store(tmp_path)


def test_an_lmdb_without_data(tmp_path):
    path = write_raw(tmp_path / 'a.lmdb', {'a': GREY})
    os.remove(path / 'data.mdb')
    with pytest.raises(UserError, match=r'there is no data\.mdb in it'):
        open_store(path)


@pytest.mark.parametrize('index', [None, '{}', 'no json'])
def test_an_lmdb_of_others(index, tmp_path):
    lmdb.open(str(tmp_path / 'a.lmdb')).close()
    if index is not None:
        (tmp_path / 'a.lmdb/meta.json').write_text(index)
    with pytest.raises(UserError, match="neither BasicSR's"):
        open_store(tmp_path / 'a.lmdb')


def test_a_newer_raw_format_is_named_as_such(tmp_path):
    path = write_raw(tmp_path / 'a.lmdb', {'a': GREY})
    text = (path / 'meta.json').read_text()
    (path / 'meta.json').write_text(text.replace('"version": 2', '"version": 3'))
    with pytest.raises(UserError, match='expected version 2 of the format, found 3'):
        open_store(path)


def test_an_unfinished_lmdb(tmp_path):
    (tmp_path / 'a.lmdb.partial').mkdir()
    for name in ('a.lmdb', 'a.lmdb.partial'):
        with pytest.raises(UserError, match=r'unfinished LMDB: .* Make it again'):
            open_store(tmp_path / name)


UNFIT = ['', '/abs/photo', '../../x', 'a/../b', './a', 'a//b', 'a/', 'a\\b', 'C:a', 'a\0b']


@pytest.mark.parametrize('key', UNFIT)
def test_keys_that_lead_elsewhere_are_refused_in_a_raw_lmdb(key, tmp_path):
    path = write_raw(tmp_path / 'a.lmdb', {'a': GREY, 'b': GREY})
    index = json.loads((path / 'meta.json').read_text())
    index['images'][key] = index['images'].pop('b')
    (path / 'meta.json').write_text(json.dumps(index))
    with pytest.raises(UserError, match='expected a name that is a path below a folder') as error:
        open_store(path)
    assert repr(key) in str(error.value)


@pytest.mark.parametrize('key', ['../third', '/abs/photo', 'a\\b', 'a/./b'])
def test_keys_that_lead_elsewhere_are_refused_in_a_basicsr_lmdb(key, tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'a': COLOUR})
    with (path / 'meta_info.txt').open('a') as index:
        index.write(f'{key}.png (6,9,3) 1\n')
    with pytest.raises(UserError, match='expected a name that is a path below a folder'):
        open_store(path)


@pytest.mark.parametrize(('name', 'reason'), [(b'a\xff', 'bytes that are no UTF-8'), (b'a\\b', 'a backslash')])
def test_names_that_are_no_keys_are_refused_in_a_folder(name, reason, tmp_path):
    write_folder(tmp_path / 'images', {'a': COLOUR})
    os.rename(tmp_path / 'images/a.png', os.path.join(os.fsencode(tmp_path / 'images'), name + b'.png'))
    with pytest.raises(UserError, match=f'found {reason}') as error:
        open_store(tmp_path / 'images')
    assert str(error.value).isprintable()
