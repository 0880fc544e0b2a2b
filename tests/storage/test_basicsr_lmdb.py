from __future__ import annotations

import cv2
import lmdb
import numpy as np
import pytest
from storage_samples import encode, random_image, write_basicsr

import basicsr_ext
from basicsr_ext import UserError
from basicsr_ext.storage import BasicSRLmdbStore, BasicSRLmdbWriter

GREY, COLOUR = random_image((16, 24, 1)), random_image((16, 24, 3))


@pytest.fixture(scope='module')
def basicsr():
    """BasicSR, importable."""
    basicsr_ext.register()
    return pytest.importorskip('basicsr')


def stock_lmdb(path, files):
    """Makes an LMDB of image files with BasicSR's own function; key -> encoded image."""
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    folder = path.with_suffix('.files')
    folder.mkdir()
    for key, encoded in files.items():
        (folder / f'{key}.png').write_bytes(encoded)
    make_lmdb_from_imgs(str(folder), str(path), [f'{key}.png' for key in files], list(files), map_size=1 << 24)
    return path


def test_stock_basicsr_reads_what_we_write(tmp_path, basicsr):
    from basicsr.data.paired_image_dataset import PairedImageDataset

    gt = {f'{number:04}_s001': random_image((32, 40, 3), seed=number) for number in (2, 1)}
    lq = {key: random_image((16, 20, 3), seed=int(key[:4])) for key in gt}
    write_basicsr(tmp_path / 'gt.lmdb', gt)
    write_basicsr(tmp_path / 'lq.lmdb', lq)
    dataset = PairedImageDataset(
        {
            'phase': 'val',
            'scale': 2,
            'dataroot_gt': str(tmp_path / 'gt.lmdb'),
            'dataroot_lq': str(tmp_path / 'lq.lmdb'),
            'io_backend': {'type': 'lmdb'},
        }
    )
    assert len(dataset) == 2
    for index, key in enumerate(sorted(gt)):
        for name, images in (('gt', gt), ('lq', lq)):
            found = (dataset[index][name] * 255).round().byte().permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(found, images[key])


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_we_read_what_stock_basicsr_writes(dtype, tmp_path, basicsr):
    images = {f'{number:03}': random_image((16, 20 + number, 3), dtype, number) for number in range(3)}
    store = BasicSRLmdbStore(stock_lmdb(tmp_path / 'a.lmdb', {key: encode(image) for key, image in images.items()}))
    assert (list(store.keys()), store.channels, store.dtype) == (sorted(images), 3, np.dtype(dtype))
    for key, image in images.items():
        assert store.spec(key)[:2] == image.shape[:2]
        np.testing.assert_array_equal(store.read(key), image)


def test_stock_grey_and_alpha(tmp_path, basicsr):
    alpha = random_image((8, 9, 4))
    path = stock_lmdb(
        tmp_path / 'a.lmdb',
        {'alpha': cv2.imencode('.png', alpha)[1].tobytes(), 'colour': encode(COLOUR), 'grey': encode(GREY)},
    )
    store = BasicSRLmdbStore(path)
    assert store.channels == 3
    np.testing.assert_array_equal(store.read('alpha'), alpha[..., 2::-1])
    np.testing.assert_array_equal(store.read('grey'), GREY.repeat(3, axis=2))
    with pytest.raises(UserError, match='"alpha" is coloured'):
        BasicSRLmdbStore(path, 1)


def test_index_is_the_one_that_basicsr_writes(tmp_path, basicsr):
    write_basicsr(tmp_path / 'ours.lmdb', {'b': COLOUR, 'a': COLOUR})
    stock = stock_lmdb(tmp_path / 'stock.lmdb', {'b': encode(COLOUR), 'a': encode(COLOUR)})
    assert (tmp_path / 'ours.lmdb/meta_info.txt').read_text() == (stock / 'meta_info.txt').read_text()


def test_grey_images(tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'grey': GREY})
    assert (path / 'meta_info.txt').read_text() == 'grey.png (16,24,1) 1\n'
    assert BasicSRLmdbStore(path).channels == 1
    np.testing.assert_array_equal(BasicSRLmdbStore(path, 3).read('grey'), GREY.repeat(3, axis=2))


def test_compress_level_is_used(tmp_path):
    smooth = np.zeros((256, 256, 3), np.uint8)
    sizes = []
    for level in (0, 9):
        with BasicSRLmdbWriter(tmp_path / f'{level}.lmdb', compress_level=level) as writer:
            writer.put('a', smooth)
        sizes.append((tmp_path / f'{level}.lmdb/data.mdb').stat().st_size)
        assert (tmp_path / f'{level}.lmdb/meta_info.txt').read_text() == f'a.png (256,256,3) {level}\n'
    assert sizes[0] > 10 * sizes[1]
    with pytest.raises(UserError, match='compress_level must be 0 to 9, found 10'):
        BasicSRLmdbWriter(tmp_path / 'b.lmdb', compress_level=10)


@pytest.mark.parametrize('key', ['v1.2', 'größe', 'line\nbreak'])
def test_keys_that_stock_basicsr_could_not_read_are_refused(key, tmp_path):
    with BasicSRLmdbWriter(tmp_path / 'a.lmdb') as writer:
        writer.put('good', COLOUR)
        with pytest.raises(UserError, match='raw layout'):
            writer.put(key, COLOUR)
    assert list(BasicSRLmdbStore(tmp_path / 'a.lmdb').keys()) == ['good']


def test_keys_with_slashes_and_spaces(tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'camera 1/0001': COLOUR})
    np.testing.assert_array_equal(BasicSRLmdbStore(path).read('camera 1/0001'), COLOUR)


def test_images_must_be_alike_and_whole_numbers(tmp_path):
    with BasicSRLmdbWriter(tmp_path / 'a.lmdb') as writer:
        with pytest.raises(UserError, match='expected uint8 or uint16, found float32'):
            writer.put('a', random_image((4, 4, 3), 'float32'))
        writer.put('a', COLOUR)
        with pytest.raises(UserError, match='expected 3 channels of uint8 as in the images before, found 1'):
            writer.put('b', GREY)
        with pytest.raises(UserError, match='found 3 of uint16'):
            writer.put('b', random_image((4, 4, 3), 'uint16'))


def test_mixed_depths_are_named_when_they_are_read(tmp_path, basicsr):
    files = {'eight': encode(COLOUR), 'sixteen': encode(random_image((4, 4, 3), 'uint16'))}
    store = BasicSRLmdbStore(stock_lmdb(tmp_path / 'a.lmdb', files))
    np.testing.assert_array_equal(store.read('eight'), COLOUR)
    with pytest.raises(UserError, match='"eight" has 8 bits a channel and "sixteen" has 16'):
        store.read('sixteen')


def replace_value(path, value):
    environment = lmdb.open(str(path), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        transaction.put(b'b', value)
    environment.close()


@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (encode(COLOUR)[:400], 'image "b": OpenCV cannot decode it'),
        (b'no image', 'image "b": not an image'),
        (encode(COLOUR[:5]), r'image "b" has \(16, 24, 3\) rows, columns and channels, but it has \(5, 24, 3\)'),
    ],
)
def test_damaged_values_are_named(value, message, tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'a': COLOUR, 'b': COLOUR})
    replace_value(path, value)
    store = BasicSRLmdbStore(path)
    np.testing.assert_array_equal(store.read('a'), COLOUR)
    with pytest.raises(UserError, match=message):
        store.read('b', 0, 0, 2, 2)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'lists no images'),
        ('a.png 16 24 3\n', 'line 1: expected "name.png'),
        ('c.png (1,1,3) 1\n', "b'c' is missing"),
    ],
)
def test_bad_indices_are_refused(text, message, tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'a': COLOUR})
    (path / 'meta_info.txt').write_text(text)
    with pytest.raises(UserError, match=message):
        BasicSRLmdbStore(path)


def test_a_truncated_file_is_refused(tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'a': random_image((64, 64, 3))})
    size = (path / 'data.mdb').stat().st_size
    with open(path / 'data.mdb', 'r+b') as file:
        file.truncate(size - 4096)
    with pytest.raises(UserError, match=f'data.mdb is cut off: expected at least {size} bytes, found {size - 4096}'):
        BasicSRLmdbStore(path)


def test_an_lmdb_that_others_hold_open_is_explained(tmp_path):
    path = write_basicsr(tmp_path / 'a.lmdb', {'a': COLOUR})
    other = lmdb.open(str(path), readonly=True, lock=False)
    with pytest.raises(UserError, match='open in this process for another reader'):
        BasicSRLmdbStore(path)
    other.close()
    np.testing.assert_array_equal(BasicSRLmdbStore(path).read('a'), COLOUR)
