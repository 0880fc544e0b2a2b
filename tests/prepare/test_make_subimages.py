"""``basicsr prepare subimages``."""

from __future__ import annotations

import re

import cv2
import numpy as np
import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.prepare.check import check_sets
from basicsr_ext.prepare.lr import make_lr
from basicsr_ext.prepare.subimages import make_subimages, subimage_starts
from basicsr_ext.storage import open_store


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        ((480, 480, 240, 0), [0]),
        ((1356, 480, 240, 0), [0, 240, 480, 720, 876]),  # DIV2K: the last is moved inward
        ((1356, 480, 240, 156), [0, 240, 480, 720]),  # as many pixels may be lost as the threshold says
        ((1356, 480, 240, 155), [0, 240, 480, 720, 876]),
        ((960, 480, 240, 0), [0, 240, 480]),
        ((20, 7, 10, 2), [0, 10, 13]),
    ],
)
def test_starts_are_those_of_basicsr(arguments, expected):
    length, size, step, threshold = arguments
    # BasicSR's scripts/data_preparation/extract_subimages.py says it with NumPy.
    space = np.arange(0, length - size + 1, step)
    if length - (space[-1] + size) > threshold:
        space = np.append(space, length - size)
    assert subimage_starts(*arguments) == expected == space.tolist()


@pytest.mark.parametrize('output', ['sub', 'sub.lmdb'])
def test_names_and_pixels(tmp_path, prepare, folder_of, photos, capsys, output):
    image = photos['chelsea'][:50, :70]
    folder = folder_of(tmp_path / 'LR', {'0001x4': image, 'x4_box': image[:30, :30]})
    prepare('subimages', '-i', folder, '-o', tmp_path / output, '--size=30', '--step=20', '--threshold=0')
    store = open_store(tmp_path / output)
    places = [(top, left) for top in (0, 20) for left in (0, 20, 40)]
    assert list(store.keys()) == [f'0001_s{number:03d}' for number in range(1, 7)] + ['x4_box_s001']
    for number, (top, left) in enumerate(places, start=1):
        np.testing.assert_array_equal(store.read(f'0001_s{number:03d}'), image[top : top + 30, left : left + 30])
    assert capsys.readouterr().out == f'{tmp_path / output}: 7 sub-images\n'


def test_16_bit_grey_and_alpha(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 65536, (12, 14, 4), dtype=np.uint16)
    for name, image in {
        'deep': pixels[..., :3],
        'grey': pixels[..., 0],
        'alpha': (pixels >> 8).astype(np.uint8),
    }.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), np.ascontiguousarray(image))
        make_subimages(tmp_path / name, tmp_path / f'{name}_sub', size=12, step=6)
        cut = cv2.imread(str(tmp_path / f'{name}_sub/a_s002.png'), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(cut, image[:12, 2:14] if name != 'alpha' else image[:12, 2:14, :3])
        assert cut.dtype == image.dtype


def test_compression(tmp_path, folder_of, photos):
    folder = folder_of(tmp_path / 'HR', {'a': photos['rocket'][:64, :64]})
    sizes = []
    for level in (0, 9):
        make_subimages(folder, tmp_path / str(level), size=64, step=64, compress_level=level)
        sizes.append((tmp_path / str(level) / 'a_s001.png').stat().st_size)
    assert sizes[0] > sizes[1]


def test_all_images_that_are_too_small_are_named_or_left_out(tmp_path, lq_folder, prepare, capsys):
    message = r'size 22 do not fit into 2 of 4 images: "chelsea" \(21x27\), "rocket" \(14x19\)'
    with pytest.raises(UserError, match=rf'{message}\. Choose a smaller size, or .*--skip_small'):
        make_subimages(lq_folder, tmp_path / 'sub', size=22)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['LR']  # nothing was begun
    prepare('subimages', '-i', lq_folder, '-o', tmp_path / 'sub', '--size=22', '--step=22', '--skip_small')
    printed = capsys.readouterr()
    assert re.match(rf'note: .*{message}; they are left out\.\n', printed.err)
    assert printed.out == f'{tmp_path / "sub"}: 8 sub-images\n'
    names = {f'{key}_s00{number}' for key in ('astronaut', 'coffee') for number in range(1, 5)}
    assert set(open_store(tmp_path / 'sub').keys()) == names
    with pytest.raises(UserError, match='into 4 of 4 images'):
        make_subimages(lq_folder, tmp_path / 'none', size=100, skip_small=True)
    assert not (tmp_path / 'none').exists()


def test_bad_arguments(tmp_path, lq_folder, folder_of, crops):
    for wrong in ({'size': 0}, {'step': 0}, {'threshold': -1}):
        with pytest.raises(UserError, match=f'^--{next(iter(wrong))}: expected an integer'):
            make_subimages(lq_folder, tmp_path / 'sub', **{'size': 8, **wrong})
    with pytest.raises(UserError, match='--compress_level: expected'):
        make_subimages(lq_folder, tmp_path / 'sub', size=8, compress_level=10)
    with pytest.raises(UserError, match='num_workers: expected 0 or'):
        make_subimages(lq_folder, tmp_path / 'sub', size=8, num_workers=-1)
    both = folder_of(tmp_path / 'both', {'a': crops['coffee'], 'ax2': crops['coffee']})
    with pytest.raises(UserError, match='sub-images of "a" and "ax2" would have the same names'):
        make_subimages(both, tmp_path / 'sub', size=8)
    assert not (tmp_path / 'sub').exists()


@pytest.fixture
def hr_and_lr(tmp_path, folder_of, photos):
    """HR images of which neither side is a multiple of 3, and their x3 LR images under the names of DIV2K."""
    folder = folder_of(
        tmp_path / 'HR', {'a': photos['astronaut'][100:291, 100:354], 'b': photos['coffee'][100:282, 100:341]}
    )
    make_lr(folder, tmp_path / 'LR', 3, suffix='x3')
    return tmp_path


def test_the_scale_crops_first(hr_and_lr, prepare):
    prepare('subimages', '-i', hr_and_lr / 'HR', '-o', hr_and_lr / 'sub', '--size=60', '--step=30', '--scale=3')
    prepare('subimages', '-i', hr_and_lr / 'LR', '-o', hr_and_lr / 'sub_lq', '--size=20', '--step=10')
    store, lq = open_store(hr_and_lr / 'sub'), open_store(hr_and_lr / 'sub_lq')
    assert store.keys() == lq.keys() and len(store) == 48 + 35
    whole = open_store(hr_and_lr / 'HR')
    np.testing.assert_array_equal(store.read('a_s048'), whole.read('a', 129, 192, 60, 60))
    np.testing.assert_array_equal(store.read('b_s035'), whole.read('b', 120, 180, 60, 60))


@pytest.mark.parametrize('ending', ['', '.lmdb'])
def test_pairs_that_are_cut_together_fit(hr_and_lr, prepare, capsys, ending):
    gt, lq = hr_and_lr / f'sub{ending}', hr_and_lr / f'sub_lq{ending}'
    arguments = ['-i', hr_and_lr / 'HR', '--input_lq', hr_and_lr / 'LR', '-o', gt, '--output_lq', lq]
    prepare('subimages', *arguments, '--size=60', '--step=30', '--scale=3')
    assert capsys.readouterr().out == f'{gt}, {lq}: 83 pairs of sub-images\n'
    whole, store = open_store(hr_and_lr / 'LR'), open_store(lq)
    np.testing.assert_array_equal(store.read('a_s048'), whole.read('ax3', 43, 64, 20, 20))
    assert check_sets(gt, lq, scale=3, every_pair=True) == []


def test_pairs_that_do_not_belong_together_are_not_cut(hr_and_lr):
    hr, lr, out, out_lq = (hr_and_lr / name for name in ('HR', 'LR', 'sub', 'sub_lq'))

    def refused(message, **arguments):
        arguments = {'input_lq': lr, 'output_lq': out_lq, 'scale': 3, 'size': 60, 'step': 30, **arguments}
        with pytest.raises(UserError, match=message):
            make_subimages(hr, out, **arguments)
        assert sorted(path.name for path in hr_and_lr.iterdir()) == ['HR', 'LR']

    refused('--size: expected a multiple of --scale, which is 3, found 61', size=61)
    refused('--step: expected a multiple', step=31)
    refused('--scale: expected an integer of at least 1', scale=0)
    refused('--scale: .* which --input_lq needs, found none', scale=None)
    refused('--input_lq and --output_lq: expected both', output_lq=None)
    refused('--output_lq: expected another path', output_lq=out)
    refused('2 of 2 LR images are not 2 times smaller .*"a" is 191x254, "ax3" is 63x84', scale=2)
    refused('2 of 2 GT images have no LQ image', filename_tmpl='{}x4')
    refused('--filename_tmpl: this is for LR images', input_lq=None, output_lq=None, filename_tmpl='{}x3')
    for key in 'ab':
        (lr / f'{key}x3.png').rename(lr / f'{key}_low.png')
    refused(r'2 of 2 GT images have no LQ image.* All names fit --filename_tmpl "\{\}_low"')
