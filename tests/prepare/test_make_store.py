"""``basicsr prepare lmdb``."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.storage import RawLmdbWriter, open_store


@pytest.mark.parametrize('command', ['lmdb', 'store'])
@pytest.mark.parametrize('layout', ['raw', 'basicsr'])
def test_a_store_holds_the_pixels_of_the_folder(tmp_path, prepare, lq_folder, crops, command, layout):
    prepare(command, '-i', lq_folder, '-o', tmp_path / 'set.lmdb', '--layout', layout)
    store = open_store(tmp_path / 'set.lmdb')
    assert list(store.keys()) == sorted(crops)
    for key, image in crops.items():
        np.testing.assert_array_equal(store.read(key), image)


def test_the_default_layout_is_raw(tmp_path, prepare, lq_folder):
    prepare('lmdb', '-i', lq_folder, '-o', tmp_path / 'default.lmdb')
    make_store(lq_folder, tmp_path / 'raw.lmdb', layout='raw')
    make_store(lq_folder, tmp_path / 'basicsr.lmdb', layout='basicsr')
    kinds = [type(open_store(tmp_path / f'{name}.lmdb')) for name in ('default', 'raw', 'basicsr')]
    assert kinds[0] is kinds[1]
    assert kinds[0] is not kinds[2]


def test_grey_images(tmp_path, prepare, crops):
    (tmp_path / 'grey').mkdir()
    for key, image in crops.items():
        cv2.imwrite(str(tmp_path / f'grey/{key}.png'), np.ascontiguousarray(image[:, :, 1]))
    for name, options, channels in [('as_is', [], 1), ('one', ['--channels', 1], 1), ('three', ['--channels', 3], 3)]:
        prepare('lmdb', '-i', tmp_path / 'grey', '-o', tmp_path / f'{name}.lmdb', *options)
        store = open_store(tmp_path / f'{name}.lmdb')
        for key, image in crops.items():
            np.testing.assert_array_equal(store.read(key), np.repeat(image[:, :, 1:2], channels, axis=2))


def test_compression(tmp_path, prepare, folder_of, photos):
    folder = folder_of(tmp_path / 'photo', {'rocket': photos['rocket'][:128, :128]})
    sizes = []
    for level in (0, 9):
        prepare('lmdb', '-i', folder, '-o', tmp_path / f'{level}.lmdb', '--layout=basicsr', '--compress-level', level)
        sizes.append((tmp_path / f'{level}.lmdb' / 'data.mdb').stat().st_size)
    assert sizes[0] > sizes[1]


def test_from_one_store_to_another(tmp_path, lq_folder, crops):
    make_store(lq_folder, tmp_path / 'png.lmdb', layout='basicsr')
    make_store(tmp_path / 'png.lmdb', tmp_path / 'raw.lmdb')
    np.testing.assert_array_equal(open_store(tmp_path / 'raw.lmdb').read('coffee'), crops['coffee'])


def test_the_record_of_a_store_is_kept(tmp_path):
    with RawLmdbWriter(tmp_path / 'one.lmdb', channels=3, dtype=np.uint8) as writer:
        writer.meta['kind'] = 'centroid'
        writer.put('a', np.zeros((4, 5, 3), np.uint8))
    make_store(tmp_path / 'one.lmdb', tmp_path / 'two.lmdb')
    assert open_store(tmp_path / 'two.lmdb').meta['kind'] == 'centroid'


def test_names_of_all_kinds(tmp_path, crops):
    names = {'a.b.c': 'coffee', 'größe x2': 'rocket', 'scene/日本 1': 'chelsea'}
    (tmp_path / 'LR/scene').mkdir(parents=True)
    for name, key in names.items():
        cv2.imwrite(str(tmp_path / f'LR/{name}.png'), np.ascontiguousarray(crops[key][:, :, ::-1]))
    make_store(tmp_path / 'LR', tmp_path / 'raw.lmdb', num_workers=2)
    store = open_store(tmp_path / 'raw.lmdb')
    assert set(store.keys()) == set(names)
    for name, key in names.items():
        np.testing.assert_array_equal(store.read(name), crops[key])
    with pytest.raises(UserError, match='BasicSR cannot find key'):
        make_store(tmp_path / 'LR', tmp_path / 'png.lmdb', layout='basicsr')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['LR', 'raw.lmdb']


def test_processes_write_the_same_as_basicsr_layout(tmp_path, lq_folder):
    for workers in (1, 3):
        make_store(lq_folder, tmp_path / f'{workers}.lmdb', layout='basicsr', num_workers=workers)
    for file in ('data.mdb', 'meta_info.txt'):
        assert (tmp_path / '1.lmdb' / file).read_bytes() == (tmp_path / '3.lmdb' / file).read_bytes()


@pytest.mark.parametrize('layout', ['raw', 'basicsr'])
def test_a_damaged_image_leaves_nothing(tmp_path, lq_folder, layout):
    damaged = lq_folder / 'rocket.png'
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(UserError, match='rocket'):
        make_store(lq_folder, tmp_path / 'set.lmdb', layout=layout)
    assert [path.name for path in tmp_path.iterdir()] == ['LR']


def test_bad_arguments(tmp_path, lq_folder):
    with pytest.raises(UserError, match='layout: expected one of raw, basicsr'):
        make_store(lq_folder, tmp_path / 'set.lmdb', layout='png')
    with pytest.raises(UserError, match=r'output: expected a path ending in .lmdb'):
        make_store(lq_folder, tmp_path / 'set')
    with pytest.raises(UserError, match='"astronaut" is coloured'):
        make_store(lq_folder, tmp_path / 'set.lmdb', channels=1)
    with pytest.raises(UserError, match='nowhere'):
        make_store(tmp_path / 'nowhere', tmp_path / 'set.lmdb')
    with RawLmdbWriter(tmp_path / 'float.lmdb', channels=1, dtype=np.float32) as writer:
        writer.put('a', np.zeros((4, 5, 1), np.float32))
    with pytest.raises(UserError, match='not float32: choose the layout raw'):
        make_store(tmp_path / 'float.lmdb', tmp_path / 'set.lmdb', layout='basicsr')
    (tmp_path / 'taken.lmdb').mkdir()
    with pytest.raises(UserError, match='taken'):
        make_store(lq_folder, tmp_path / 'taken.lmdb')
    assert not (tmp_path / 'set.lmdb').exists()


def test_a_store_of_grey_images_says_what_networks_in_colour_need(tmp_path, capsys):
    (tmp_path / 'grey').mkdir()
    cv2.imwrite(str(tmp_path / 'grey/a.png'), np.zeros((8, 8), np.uint8))
    for channels, said in ((None, True), (1, False), (3, False)):
        make_store(tmp_path / 'grey', tmp_path / f'{channels}.lmdb', channels=channels)
        assert ('all images are grey' in capsys.readouterr().err) == said
    with pytest.raises(UserError, match='basicsr prepare lmdb --channels 3'):
        open_store(tmp_path / '1.lmdb', channels=3)
