from __future__ import annotations

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from storage_samples import encode, random_image, write_folder

from basicsr_ext import UserError
from basicsr_ext.storage import FolderStore

GREY, COLOUR = random_image((6, 9, 1)), random_image((6, 9, 3))


def save(file, image, **options):
    """Saves with Pillow: options that OpenCV's encoders lack."""
    Image.fromarray(image.squeeze()).save(file, **options)


def opencv(file):
    """What BasicSR makes of an image file, as RGB."""
    return cv2.cvtColor(cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize('extension', ['png', 'PNG', 'jpg', 'jpeg', 'bmp', 'tif', 'tiff', 'webp', 'ppm'])
def test_colour_files_of_every_format(extension, tmp_path):
    file = tmp_path / f'a.{extension}'
    file.write_bytes(encode(COLOUR, f'.{extension.lower()}'))
    store = FolderStore(tmp_path)
    assert store.spec('a') == (6, 9, 3, np.uint8)
    np.testing.assert_array_equal(store.read('a'), opencv(file))


@pytest.mark.parametrize('extension', ['png', 'jpg', 'bmp', 'tiff', 'pgm'])
def test_grey_files_of_every_format(extension, tmp_path):
    file = tmp_path / f'a.{extension}'
    file.write_bytes(encode(GREY, f'.{extension}'))
    assert FolderStore(tmp_path).spec('a') == (6, 9, 1, np.uint8)
    np.testing.assert_array_equal(FolderStore(tmp_path, 1).read('a'), opencv(file)[..., :1])
    np.testing.assert_array_equal(FolderStore(tmp_path, 3).read('a'), opencv(file))


@pytest.mark.parametrize('extension', ['png', 'tiff', 'ppm'])
def test_sixteen_bits_stay_sixteen_bits(extension, tmp_path):
    image = random_image((6, 9, 3), 'uint16')
    (tmp_path / f'a.{extension}').write_bytes(encode(image, f'.{extension}'))
    store = FolderStore(tmp_path)
    assert store.spec('a') == (6, 9, 3, np.uint16)
    np.testing.assert_array_equal(store.read('a', 1, 2, 3, 4), image[1:4, 2:6])


@pytest.mark.parametrize('extension', ['png', 'pgm', 'tiff'])
def test_sixteen_bit_grey(extension, tmp_path):
    image = random_image((6, 9, 1), 'uint16')
    (tmp_path / f'a.{extension}').write_bytes(encode(image, f'.{extension}'))
    np.testing.assert_array_equal(FolderStore(tmp_path).read('a'), image)
    np.testing.assert_array_equal(FolderStore(tmp_path, 3).read('a'), image.repeat(3, axis=2))


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_alpha_is_dropped(dtype, tmp_path):
    image = random_image((6, 9, 4), dtype)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    np.testing.assert_array_equal(FolderStore(tmp_path).read('a'), image[..., 2::-1])


def test_grey_with_alpha_is_grey(tmp_path):
    Image.fromarray(random_image((6, 9, 2)), 'LA').save(tmp_path / 'a.png')
    np.testing.assert_array_equal(FolderStore(tmp_path, 1).read('a'), opencv(tmp_path / 'a.png')[..., :1])


def test_palette_and_bilevel_images(tmp_path):
    Image.fromarray(COLOUR).convert('P').save(tmp_path / 'palette.png')
    Image.fromarray(GREY[..., 0]).convert('1').save(tmp_path / 'bilevel.png')
    store = FolderStore(tmp_path)
    for key in ('palette', 'bilevel'):
        np.testing.assert_array_equal(store.read(key), opencv(tmp_path / f'{key}.png'))
    with pytest.raises(UserError, match='"palette" is coloured'):
        FolderStore(tmp_path, 1)


@pytest.mark.parametrize('extension', ['jpg', 'png', 'webp', 'tiff'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_obeyed_as_opencv_does(orientation, extension, tmp_path):
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = tmp_path / f'a.{extension}'
    save(file, COLOUR, exif=tags)
    expected = opencv(file)
    store = FolderStore(tmp_path)
    assert store.spec('a')[:2] == expected.shape[:2]
    np.testing.assert_array_equal(store.read('a'), expected)


def test_damaged_exif_data_do_not_matter(tmp_path):
    save(tmp_path / 'a.jpg', COLOUR, exif=b'Exif\0\0nonsense')
    np.testing.assert_array_equal(FolderStore(tmp_path).read('a'), opencv(tmp_path / 'a.jpg'))


def test_opening_decodes_nothing(tmp_path, monkeypatch):
    write_folder(tmp_path, {'a': GREY, 'b': COLOUR})
    monkeypatch.setattr(cv2, 'imdecode', lambda *_: pytest.fail('decoded'))
    assert FolderStore(tmp_path).spec('b').width == 9


def test_grey_is_repeated_beside_colour_and_refused_where_grey_was_demanded(tmp_path):
    write_folder(tmp_path, {'a_grey': GREY, 'b_colour': COLOUR})
    store = FolderStore(tmp_path)
    assert store.channels == 3
    np.testing.assert_array_equal(store.read('a_grey'), GREY.repeat(3, axis=2))
    with pytest.raises(UserError, match='"b_colour" is coloured'):
        FolderStore(tmp_path, 1)
    with pytest.raises(UserError, match='channels must be 1 or 3, found 4'):
        FolderStore(tmp_path, 4)


def test_mixed_depths_are_refused(tmp_path):
    write_folder(tmp_path, {'eight': COLOUR, 'sixteen': random_image((6, 9, 3), 'uint16')})
    with pytest.raises(UserError, match='"eight" has 8 bits a channel and "sixteen" has 16'):
        FolderStore(tmp_path)


def test_keys_are_paths_below_the_folder(tmp_path):
    write_folder(tmp_path, {'b': GREY, 'sub/a': GREY, 'sub.dir/v1.2 ä': GREY})
    assert list(FolderStore(tmp_path).keys()) == ['b', 'sub.dir/v1.2 ä', 'sub/a']
    np.testing.assert_array_equal(FolderStore(tmp_path).read('sub.dir/v1.2 ä'), GREY)


def test_hidden_and_other_files_are_left_out(tmp_path):
    write_folder(tmp_path, {'a': GREY, '.hidden': GREY, '.thumbnails/b': GREY})
    (tmp_path / 'notes.txt').write_text('no image')
    assert list(FolderStore(tmp_path).keys()) == ['a']


def test_links_are_followed_but_not_in_circles(tmp_path):
    write_folder(tmp_path / 'elsewhere', {'x': GREY})
    write_folder(tmp_path / 'images', {'a': GREY})
    for name in ('one', 'two'):
        (tmp_path / 'images' / name).symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'images' / 'circle').symlink_to(tmp_path / 'images')
    (tmp_path / 'elsewhere' / 'back').symlink_to(tmp_path / 'images')
    assert list(FolderStore(tmp_path / 'images').keys()) == ['a', 'one/x', 'two/x']


def test_two_files_with_one_key_are_refused(tmp_path):
    for extension in ('.png', '.jpg'):
        (tmp_path / f'same{extension}').write_bytes(encode(COLOUR, extension))
    with pytest.raises(UserError, match=r'"same.jpg" and "same.png" have the same key "same"'):
        FolderStore(tmp_path)


def test_no_images_and_no_folder(tmp_path):
    with pytest.raises(UserError, match='found none'):
        FolderStore(tmp_path)
    with pytest.raises(UserError, match='no such folder'):
        FolderStore(tmp_path / 'missing')


def test_a_broken_link_is_named(tmp_path):
    (tmp_path / 'gone.png').symlink_to(tmp_path / 'nowhere.png')
    with pytest.raises(UserError, match=r'gone\.png: cannot be read: No such file'):
        FolderStore(tmp_path)


@pytest.mark.filterwarnings('ignore:Corrupt EXIF')
@pytest.mark.parametrize('extension', ['png', 'jpg', 'bmp', 'tiff', 'webp', 'ppm'])
@pytest.mark.parametrize('part', [0.5, 0.9])
def test_a_truncated_image_is_named(extension, part, tmp_path):
    image = random_image((64, 64, 3))
    whole = encode(image, f'.{extension}')
    file = tmp_path / f'broken.{extension}'
    file.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(UserError, match=rf'broken\.{extension}'):
        FolderStore(tmp_path).read('broken', 0, 0, 4, 4)


@pytest.mark.parametrize(
    'content', [b'', b'x', b'not an image at all', b'\x89PNG\r\n\x1a\n', b'P6\n# cut', b'P5 x y 255\n']
)
def test_what_is_no_image_is_named(content, tmp_path):
    (tmp_path / 'odd.png').write_bytes(content)
    with pytest.raises(UserError, match=r'odd\.png: .*image'):
        FolderStore(tmp_path)


@pytest.mark.parametrize('missing', [1, 12, 500])
def test_no_line_of_a_library_stands_before_the_error_of_a_png_that_is_cut_off(missing, tmp_path, capfd):
    (tmp_path / 'cut.png').write_bytes(encode(random_image((64, 64, 3)))[:-missing])
    with pytest.raises(UserError, match=r'cut\.png: image "cut": OpenCV cannot decode it'):
        FolderStore(tmp_path).read('cut')
    assert capfd.readouterr().err == ''


def test_something_may_follow_an_image(tmp_path):
    (tmp_path / 'a.png').write_bytes(encode(COLOUR) + bytes(100))
    np.testing.assert_array_equal(FolderStore(tmp_path).read('a'), COLOUR)


def test_a_damaged_pixel_stream_is_named(tmp_path):
    damaged = bytearray(encode(random_image((64, 64, 3))))
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / 'damaged.png').write_bytes(damaged)
    with pytest.raises(UserError, match=r'damaged\.png: image "damaged": OpenCV cannot decode it'):
        FolderStore(tmp_path).read('damaged')


def test_a_file_that_changed_is_named(tmp_path):
    file = tmp_path / 'late.png'
    write_folder(tmp_path, {'late': COLOUR})
    store = FolderStore(tmp_path)
    file.write_bytes(encode(random_image((9, 6, 3))))
    with pytest.raises(UserError, match=r'late\.png: image "late": expected 6x9 pixels of uint8, found 9x6'):
        store.read('late')
    file.unlink()
    with pytest.raises(UserError, match=r'late\.png: image "late" cannot be read'):
        store.read('late')


def test_the_orientation_is_found_behind_other_chunks(tmp_path):
    tags = Image.Exif()
    tags[0x0112] = 6
    encoded = io.BytesIO()
    save(encoded, COLOUR, format='PNG', exif=tags, icc_profile=b'profile' * 4000)
    (tmp_path / 'a.png').write_bytes(encoded.getvalue())
    assert FolderStore(tmp_path).spec('a')[:2] == (9, 6)


def test_png_with_absurd_size_is_refused(tmp_path):
    header = struct.pack('>IIBBBBB', 0, 5, 8, 2, 0, 0, 0)
    chunks = b''.join(
        struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
        for kind, data in ((b'IHDR', header), (b'IDAT', b''))
    )
    (tmp_path / 'empty.png').write_bytes(b'\x89PNG\r\n\x1a\n' + chunks)
    with pytest.raises(UserError, match='header says 5x0 pixels'):
        FolderStore(tmp_path)


def test_formats_that_would_be_misread_are_refused(tmp_path):
    cases = {
        'float.tiff': (
            cv2.imencode('.tiff', random_image((4, 4, 1), 'float32'))[1].tobytes(),
            'found floating point or signed numbers of 32 bits',
        ),
        'odd.pgm': (b'P5\n2 1\n1023\n\0\0\0\0', 'largest value 255 or 65535, found 1023'),
    }
    for name, (content, message) in cases.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            FolderStore(folder)


def test_large_images_are_no_threat(tmp_path, monkeypatch):
    """Pillow refuses to open images of twice this size, but only their headers are read."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 4)
    for extension in ('jpg', 'bmp', 'tiff'):
        (tmp_path / f'{extension}.{extension}').write_bytes(encode(COLOUR, f'.{extension}'))
    assert len(FolderStore(tmp_path)) == 3


def test_tiff_with_alpha_is_refused(tmp_path):
    Image.fromarray(random_image((6, 9, 4)), 'RGBA').save(tmp_path / 'a.tiff')
    with pytest.raises(UserError, match='TIFF image with alpha'):
        FolderStore(tmp_path)


def test_tiff_of_several_images_is_refused_but_for_thumbnails(tmp_path):
    first, second = (Image.fromarray(random_image((6, 9, 3))) for _ in range(2))
    for name, big in (('a', False), ('b', True)):
        path = tmp_path / name / 'a.tiff'
        path.parent.mkdir()
        second.encoderinfo = {'tiffinfo': {254: 1}}  # a thumbnail
        first.save(path, save_all=True, append_images=[second], big_tiff=big)
        with Image.open(path) as written:
            written.seek(1)
            if 254 not in written.tag_v2:
                pytest.skip('this Pillow writes no tags of further pages')
        assert Image.open(path).n_frames == 2 and FolderStore(path.parent).spec('a')[:2] == (6, 9)
        first.save(path, save_all=True, append_images=[Image.fromarray(random_image((6, 9, 3)))], big_tiff=big)
        with pytest.raises(UserError, match=r'a\.tiff: TIFF file of several images'):
            FolderStore(path.parent)


def test_headers_are_read_in_parts(tmp_path, monkeypatch):
    """Of several threads, a few files at a time: sizes stay with their images, and the first bad file is named."""
    from basicsr_ext.storage import folder

    monkeypatch.setattr(folder, '_FILES_AT_ONCE', 3)
    for number in range(10):
        cv2.imwrite(str(tmp_path / f'{number}.png'), np.zeros((4 + number, 5, 3), np.uint8))
    store = FolderStore(tmp_path)
    assert [store.spec(key)[:2] for key in store.keys()] == [(4 + number, 5) for number in range(10)]
    (tmp_path / '7.png').write_bytes(b'nothing')
    with pytest.raises(UserError, match=r'7\.png: not an image'):
        FolderStore(tmp_path)
