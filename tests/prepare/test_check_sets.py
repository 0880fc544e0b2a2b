"""``basicsr prepare check``."""

from __future__ import annotations

import json
import struct
import zlib

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.functional.perceptual_hash import hash_distances, perceptual_hash, turned_hashes
from basicsr_ext.functional.resize import downsample, mod_crop
from basicsr_ext.prepare.check import check_sets
from basicsr_ext.prepare.distances import DISTANCE
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.prepare.subimages import make_subimages
from basicsr_ext.storage import open_store

SIDE = 64


@pytest.fixture
def sets(tmp_path, photos, folder_of):
    """Folders of GT and x4 LQ images that fit."""
    hr = {key: photo[100 : 100 + SIDE, 120 : 120 + SIDE] for key, photo in photos.items()}
    folder_of(tmp_path / 'GT', hr)
    folder_of(tmp_path / 'LQ', {f'{key}x4': downsample(image, 4) for key, image in hr.items()})
    return tmp_path


def check(root, *arguments) -> int:
    return main(['prepare', 'check', '--gt', str(root / 'GT'), *map(str, arguments)])


def rewrite(path, change) -> None:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert cv2.imwrite(str(path), np.ascontiguousarray(change(image)))


def pairs(root):
    return ['--lq', root / 'LQ', '--scale', 4, '--filename_tmpl', '{}x4', '--num_workers', 1]


def rows(output: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split('  ') if cell.strip()] for line in output.splitlines()[1:-1]]


def test_sets_that_fit(sets, capsys):
    assert check(sets, *pairs(sets)) == 0
    assert capsys.readouterr().out == 'no problems\n'
    rewrite(sets / 'GT/coffee.png', lambda image: np.pad(image, ((0, 3), (0, 2), (0, 0))))  # cut away in training
    assert check_sets(sets / 'GT', sets / 'LQ', scale=4, filename_tmpl='{}x4') == []


def test_a_table_of_problems(sets, capsys):
    gt, lq = sets / 'GT', sets / 'LQ'
    (lq / 'astronautx4.png').unlink()
    (gt / 'extra.png').write_bytes((gt / 'chelsea.png').read_bytes())
    (lq / 'stray.png').write_bytes((lq / 'chelseax4.png').read_bytes())
    rewrite(lq / 'chelseax4.png', lambda image: cv2.resize(image, (SIDE // 2, SIDE // 2)))
    rewrite(gt / 'coffee.png', lambda image: image[:-1])
    rewrite(lq / 'rocketx4.png', lambda image: image[..., 0])
    whole = (gt / 'rocket.png').read_bytes()
    (gt / 'motorcycle_left.png').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit) as end:
        check(sets, *pairs(sets))
    assert end.value.code == 1
    output = capsys.readouterr().out
    assert rows(output) == [
        ['GT motorcycle_left', 'damaged', 'an image', 'OpenCV cannot decode it; it is damaged or cut off'],
        ['GT extra', 'copy (warning)', 'another image', 'GT chelsea'],
        ['LQ rocketx4', 'channels', 'colour as most', 'grey'],
        ['LQ stray', 'extra', 'a GT image', 'none'],
        ['GT astronaut', 'missing', 'LQ astronautx4', 'none'],
        ['GT chelsea', 'scale', '4', '2'],
        ['GT coffee', 'size', '64x64, or up to 3 more on each side', '63x64 (LQ 16x16)'],
        ['GT extra', 'missing', 'LQ extrax4', 'none'],
        ['GT rocket', 'channels of the pair', 'grey as LQ', 'colour'],
    ]
    assert output.endswith('\n8 problems, 1 warning\n')


def test_copies_are_warnings(sets, capsys, tmp_path):
    (sets / 'GT/zebra.png').write_bytes((sets / 'GT/coffee.png').read_bytes())
    rewrite(sets / 'GT/rocket.png', lambda image: cv2.imread(str(sets / 'GT/coffee.png')))
    assert check(sets) == 0
    output = capsys.readouterr().out
    assert rows(output) == [
        ['GT rocket', 'copy (warning)', 'another image', 'GT coffee'],
        ['GT zebra', 'copy (warning)', 'another image', 'GT coffee'],
    ]
    assert output.endswith('\nno problems, 2 warnings\n')
    make_store(sets / 'GT', tmp_path / 'GT.lmdb')
    assert [problem.image for problem in check_sets(tmp_path / 'GT.lmdb')] == ['GT rocket', 'GT zebra']


def test_the_help_says_what_is_recognised(capsys):
    with pytest.raises(SystemExit):
        main(['prepare', 'check', '--help'])
    text = ' '.join(capsys.readouterr().out.split())
    assert 'also flipped, rotated, rescaled, JPEG compressed' in text and 'was cropped are not' in text


def test_the_template_that_the_names_follow_is_suggested(sets, capsys):
    (sets / 'LQ/coffeex4.png').unlink()
    with pytest.raises(SystemExit):
        check(sets, '--lq', sets / 'LQ', '--scale', 4, '--num_workers', 1)
    missing = {row[0]: row[3] for row in rows(capsys.readouterr().out) if row[1] == 'missing'}
    assert missing.pop('GT coffee') == 'none'
    assert len(missing) == 4 and missing['GT rocket'] == 'LQ rocketx4 (--filename_tmpl "{}x4")'


def test_depths(sets):
    rewrite(sets / 'LQ/coffeex4.png', lambda image: image.astype(np.uint16) * 257)
    found = check_sets(sets / 'GT', sets / 'LQ', scale=4, filename_tmpl='{}x4')
    assert [tuple(problem) for problem in found] == [
        ('LQ coffeex4', 'bit depth', 'uint8 as most', 'uint16'),
        ('GT coffee', 'bit depth of the pair', 'uint16 as LQ', 'uint8'),
    ]


def test_versions_of_test_images_are_found(sets, photos, folder_of):
    image = photos['astronaut'][30:330, 60:400]
    versions = {
        'same': image,
        'half': downsample(image, 2),
        'flipped': image[:, ::-1],
        'turned': image.transpose(1, 0, 2)[::-1],
        'brighter': np.clip(image * 1.1, 0, 255).astype(np.uint8),
        'cropped': image[2:-2, 2:-2],
        'other': photos['coffee'][:300, :340],
    }
    folder_of(sets / 'train', versions)
    cv2.imwrite(str(sets / 'train/jpeg.jpg'), image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])
    folder_of(sets / 'test', {'portrait': image, 'cat': photos['chelsea']})
    found = check_sets(sets / 'train', tests=[sets / 'test'])
    assert {problem.image for problem in found} == {f'GT {key}' for key in [*versions, 'jpeg']} - {'GT other'}
    assert all(problem.problem == 'test image' and 'test portrait' in problem.found for problem in found)
    exact = {problem.image for problem in check_sets(sets / 'train', tests=[sets / 'test'], distance=0)}
    assert 'GT same' in exact and not exact & {'GT jpeg', 'GT cropped'}


def test_alpha_is_reported(sets, tmp_path, capsys):
    rewrite(sets / 'GT/coffee.png', lambda image: np.dstack([image, image[..., 0]]))
    rewrite(sets / 'LQ/rocketx4.png', lambda image: np.dstack([image, image[..., 0]]))
    expected = ['GT coffee', 'channels', 'no alpha', 'alpha, which is dropped']
    found = check_sets(sets / 'GT', sets / 'LQ', scale=4, filename_tmpl='{}x4')
    assert [list(problem) for problem in found] == [expected, ['LQ rocketx4', *expected[1:]]]
    mixed = store_of(tmp_path / 'a.lmdb', {'coffee': cv2.imread(str(sets / 'GT/coffee.png'), cv2.IMREAD_UNCHANGED)})
    assert [list(problem) for problem in check_sets(mixed)] == [expected]
    with pytest.raises(SystemExit):
        check(sets)
    assert capsys.readouterr().out.endswith('\n1 problem\n')


def test_two_files_of_one_name_are_listed_beside_the_rest(sets):
    (sets / 'GT/rocket.jpg').write_bytes((sets / 'GT/rocket.png').read_bytes())
    (sets / 'LQ/rocketx4.bmp').write_bytes((sets / 'LQ/rocketx4.png').read_bytes())
    (sets / 'GT/coffee.png').write_bytes(b'nothing')
    found = check_sets(sets / 'GT', sets / 'LQ', scale=4, filename_tmpl='{}x4')
    assert [list(problem) for problem in found] == [
        ['GT coffee', 'damaged', 'an image', 'not an image, or of a format that is not supported'],
        ['GT rocket.png', 'same name', 'a key of its own', 'rocket.jpg'],
        ['LQ rocketx4.png', 'same name', 'a key of its own', 'rocketx4.bmp'],
    ]


def store_of(path, images):
    """A store as BasicSR writes it, of whatever OpenCV reads."""
    path.mkdir()
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, image in images.items():
            transaction.put(key.encode(), cv2.imencode('.png', image)[1].tobytes())
    shapes = (f'{key}.png ({",".join(map(str, image.shape))}) 1\n' for key, image in images.items())
    (path / 'meta_info.txt').write_text(''.join(shapes))
    return path


def test_a_store_of_basicsr_that_mixes_depths(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    mixed = store_of(tmp_path / 'm.lmdb', {'a': image, 'b': image.astype(np.uint16), 'c': image[::-1]})
    for workers in (1, 2):
        found = check_sets(mixed, num_workers=workers)
        assert [list(problem) for problem in found] == [['GT b', 'bit depth', 'uint8 as most', 'uint16']]


def test_the_distance_lies_between_versions_and_other_images(sets, photos, folder_of):
    """Versions of one image differ in fewer bits, also strongly changed ones; different photographs in over 90."""
    image = photos['astronaut'][30:330, 60:400]
    strong = {
        'cut': image[10:-10, 10:-10],
        'noisy': np.clip(image + np.random.default_rng(0).normal(0, 30, image.shape), 0, 255).astype(np.uint8),
        'small': downsample(image, 4),
    }
    distances = [int(hash_distances(*(perceptual_hash(i)[None] for i in (image, v)))[0, 0]) for v in strong.values()]
    assert 25 < max(distances) <= DISTANCE, distances
    others = [perceptual_hash(photo) for photo in photos.values()]
    turned = turned_hashes(np.stack(others))
    nearest = np.stack([hash_distances(np.stack(others), hashes) for hashes in turned]).min(axis=0)
    assert nearest[~np.eye(len(others), dtype=bool)].min() > 90 > DISTANCE + 20
    folder_of(sets / 'train', strong)
    folder_of(sets / 'test', {'portrait': image})
    arguments = ['prepare', 'check', '--gt', str(sets / 'train'), '--test', str(sets / 'test')]
    with pytest.raises(SystemExit):  # by the default of the command line
        main(arguments)
    assert {problem.image for problem in check_sets(sets / 'train', tests=[sets / 'test'])} == {
        f'GT {k}' for k in strong
    }
    assert main([*arguments, '--distance', '0']) == 0


def test_real_sets(bench_dir):
    """T91 (an image of it is there twice) and BSD, here without Set5's woman, have nothing of Set5; one more folder has."""
    train, set5 = bench_dir / 'train', bench_dir / 'Set5/HR'
    found = check_sets(train / 'T91', tests=[set5], num_workers=1)
    assert [tuple(problem) for problem in found] == [('GT t65', 'copy (warning)', 'another image', 'GT t36')]
    assert check_sets(train / 'BSDS500_train', tests=[set5], num_workers=1) == []
    found = check_sets(bench_dir / 'realworld/RealSRSet_noGT', tests=[set5], num_workers=1)
    assert [(p.image, p.problem) for p in found if p.problem == 'test image'] == [('GT butterfly', 'test image')]
    lq = bench_dir / 'Set5/LR_bicubic/X3'
    assert check_sets(set5, lq, scale=3, filename_tmpl='{}x3', num_workers=1) == []
    assert {p.problem for p in check_sets(set5, lq, scale=4, filename_tmpl='{}x3', num_workers=1)} == {'scale'}


def test_stores(sets, tmp_path):
    make_store(sets / 'GT', tmp_path / 'GT.lmdb')
    make_store(sets / 'LQ', tmp_path / 'LQ.lmdb', layout='basicsr')
    stores = tmp_path / 'GT.lmdb', tmp_path / 'LQ.lmdb'
    assert check_sets(*stores, scale=4, filename_tmpl='{}x4') == []
    assert {problem.problem for problem in check_sets(*stores, scale=2, filename_tmpl='{}x4')} == {'scale'}
    assert len(check_sets(stores[0], tests=[stores[0]])) == 5


@pytest.fixture
def cut_apart(tmp_path, folder_of, photos):
    """Sub-images of which those at the right and the bottom show places that lie 2 HR pixels apart."""
    hr = photos['astronaut'][100:291, 100:354]
    folder_of(tmp_path / 'HR', {'a': hr})
    folder_of(tmp_path / 'LR', {'a': downsample(mod_crop(hr, 3), 3)})
    make_subimages(tmp_path / 'HR', tmp_path / 'GT', size=60, step=30)
    make_subimages(tmp_path / 'LR', tmp_path / 'LQ', size=20, step=10)
    return tmp_path


def test_pairs_that_show_different_places_are_warnings(cut_apart, capsys):
    assert check(cut_apart, '--lq', cut_apart / 'LQ', '--scale', 3, '--all') == 0
    output = capsys.readouterr().out
    found = {row[0]: row[3] for row in rows(output)}
    # the last column and the last row of a grid of 8 x 6, wherever there is something to see
    assert set(found) <= {f'GT a_s{n:03d}' for n in range(1, 49) if n % 8 == 0 or n > 40} and len(found) >= 8
    assert found['GT a_s048'].startswith('LQ fits 1 pixel further up and 1 pixel further left: ')
    assert output.endswith(f'no problems, {len(found)} warnings\n')


def test_fifty_pairs_are_compared_unless_all_are_asked_for(tmp_path, folder_of, photos):
    hr = {f'{n:02d}': photos['coffee'][n : n + 80, n : n + 80] for n in range(0, 120, 2)}
    folder_of(tmp_path / 'GT', hr)
    folder_of(tmp_path / 'LQ', {key: downsample(image[4:], 4) for key, image in hr.items()})
    folder_of(tmp_path / 'cut', {key: image[:76] for key, image in hr.items()})
    for every_pair, expected in ((False, 50), (True, 60)):
        found = check_sets(tmp_path / 'cut', tmp_path / 'LQ', scale=4, every_pair=every_pair)
        assert [p.problem for p in found] == ['shifted (warning)'] * expected
        assert {p.found.split(':')[0] for p in found} == {'LQ fits 1 pixel further down'}


def test_the_contents_of_real_pairs_are_not_doubted(bench_dir, tmp_path):
    for scale in (2, 3, 4):
        lq = bench_dir / f'Set5/LR_bicubic/X{scale}'
        assert check_sets(bench_dir / 'Set5/HR', lq, scale=scale, filename_tmpl=f'{{}}x{scale}', every_pair=True) == []
    for letter in 'hl':
        (tmp_path / letter).mkdir()
        for file in (bench_dir / 'realworld/City100_iPhoneX_crops').glob(f'*{letter}.png'):
            (tmp_path / letter / f'{file.stem[:-1]}.png').symlink_to(file)
    assert check_sets(tmp_path / 'h', tmp_path / 'l', scale=1, every_pair=True) == []


def test_pixels_of_raw_stores_are_compared_with_their_checksums(sets, tmp_path, capsys):
    make_store(sets / 'GT', tmp_path / 'GT.lmdb')
    make_store(sets / 'LQ', tmp_path / 'LQ.lmdb')
    image = open_store(tmp_path / 'GT.lmdb').read('coffee').tobytes()
    content = bytearray((tmp_path / 'GT.lmdb/data.mdb').read_bytes())
    content[content.index(image) + len(image) // 2] ^= 255
    (tmp_path / 'GT.lmdb/data.mdb').write_bytes(content)
    index = json.loads((tmp_path / 'LQ.lmdb/meta.json').read_text())
    del index['crc32']  # as earlier versions wrote it
    (tmp_path / 'LQ.lmdb/meta.json').write_text(json.dumps(index))
    found = check_sets(tmp_path / 'GT.lmdb', tmp_path / 'LQ.lmdb', scale=4, filename_tmpl='{}x4')
    assert [problem[:2] for problem in found] == [('GT coffee', 'damaged'), ('LQ', 'no checksums (warning)')]
    assert 'its pixels are not those that were stored' in found[0].found
    assert main(['prepare', 'check', '--gt', str(tmp_path / 'LQ.lmdb')]) == 0
    assert capsys.readouterr().out.endswith('no problems, 1 warning\n')


def png_of_size(height: int, width: int) -> bytes:
    """The beginning and the end of a PNG, without pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return b'\x89PNG\r\n\x1a\n' + header + chunk(b'IDAT', b'') + chunk(b'IEND', b'')


def test_what_is_not_supported_is_not_damaged(sets, capsys):
    Image.fromarray(np.zeros((8, 8), np.float32)).save(sets / 'GT/float.tif')
    (sets / 'GT/large.png').write_bytes(png_of_size(33000, 33000))
    (sets / 'GT/wide.png').write_bytes(png_of_size(2, 2_000_000))
    found = {problem.image: problem for problem in check_sets(sets / 'GT')}
    assert {problem.problem for problem in found.values()} == {'not supported'}
    assert 'whole numbers of 8 or 16 bits, found floating point or signed numbers of 32 bits: convert it' in (
        found['GT float'].found
    )
    assert '33000x33000 pixels, and OpenCV reads at most 1,073,741,824 (pixels): cut it' in found['GT large'].found
    assert 'OPENCV_IO_MAX_IMAGE_PIXELS to 1089000000' in found['GT large'].found
    assert 'at most 1,048,576 (width)' in found['GT wide'].found
    for name in ('float.tif', 'large.png', 'wide.png'):
        (sets / 'new').mkdir(exist_ok=True)
        (sets / 'GT' / name).rename(sets / 'new' / name)
        with pytest.raises(UserError, match=r'convert it|cut it into parts') as error:
            make_store(sets / 'new', sets / 'new.lmdb')
        assert 'damaged' not in str(error.value)
        (sets / 'new' / name).unlink()


def test_bad_arguments(sets, capsys):
    with pytest.raises(UserError, match='scale: LQ images need it'):
        check_sets(sets / 'GT', sets / 'LQ')
    with pytest.raises(UserError, match=r'filename_tmpl: expected \{\} once'):
        check_sets(sets / 'GT', sets / 'LQ', scale=4, filename_tmpl='x4')
    with pytest.raises(UserError, match='distance: expected 0 to 256'):
        check_sets(sets / 'GT', distance=300)
    for wrong in (['--test', sets / 'nowhere'], ['--lq', sets / 'nowhere', '--scale', 4]):
        assert check(sets, *wrong) == 2
        assert 'nowhere' in capsys.readouterr().err
