"""``basicsr prepare luma``."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import imresize
from basicsr_ext.prepare.luma import luma_images, make_luma
from basicsr_ext.storage import open_store


def luminance_by_hand(image: np.ndarray) -> np.ndarray:
    """MATLAB's rgb2ycbcr on doubles."""
    red, green, blue = np.moveaxis(image.astype(np.float64) / 255, 2, 0)
    return (16 + 65.481 * red + 128.553 * green + 24.966 * blue) / 255


def test_copies_of_all_factors_and_scales(tmp_path, prepare, folder_of, photos, capsys):
    images = {'a': photos['chelsea'][:61, :90], 'b.1': photos['coffee'][:82, :85]}
    folders = [
        folder_of(tmp_path / name, {key: image}) for name, (key, image) in zip('TB', images.items(), strict=True)
    ]
    outputs = tmp_path / 'gt.lmdb', tmp_path / 'lq.lmdb'
    prepare('luma', '-i', *folders, '-o', outputs[0], '--output_lq', outputs[1], '-s', 2, 3)
    gt, lq = map(open_store, outputs)
    # of "a" at 0.7, 43 rows give 42 for both scales; at 0.5, 31 rows hold no patch of 41
    names = [
        f'{key}_{factor}_x{scale}'
        for key, factors in {'B/b.1': ('0.5', '0.7', '1'), 'T/a': ('0.7', '1')}.items()
        for factor in factors
        for scale in (2, 3)
    ]
    names.remove('B/b.1_0.5_x3')  # 41 rows, 39 of which are a multiple of 3
    names.remove('B/b.1_0.5_x2')  # 41 rows, 40 of which are even
    assert list(gt.keys()) == list(lq.keys()) == sorted(names)
    assert capsys.readouterr().out == f'{outputs[0]}, {outputs[1]}: {len(names)} images\n'
    assert (gt.dtype, gt.channels, lq.dtype, lq.channels) == (np.float32, 1, np.float32, 1)
    for name in names:
        key, factor, scale = name.rsplit('_', 2)
        image = images[key.partition('/')[2]]
        small = image if factor == '1' else imresize(image, float(factor))
        luma = luminance_by_hand(small)
        scale = int(scale[1:])
        luma = luma[: len(luma) // scale * scale, : luma.shape[1] // scale * scale]
        np.testing.assert_allclose(gt.read(name)[..., 0], luma, rtol=0, atol=1e-7)
        enlarged = imresize(imresize(luma, 1 / scale), scale)
        np.testing.assert_allclose(lq.read(name)[..., 0], enlarged, rtol=0, atol=1e-7)
    meta = gt.meta
    assert (meta['kind'], meta['sources'], meta['scales'], meta['factors']) == (
        'luma',
        ['T', 'B'],
        [2, 3],
        [1, 0.7, 0.5],
    )
    assert lq.meta['kind'] == 'luma_lq'


def test_equal_to_matlab(bench_dir):
    scipy_io = pytest.importorskip('scipy.io')
    import cv2

    expected = scipy_io.loadmat(bench_dir / 'Set5_VDSR_mat_float64/butterfly_GT_x3.mat')
    image = cv2.imread(str(bench_dir / 'Set5/HR/butterfly.png'))[..., ::-1]
    made = luma_images(np.ascontiguousarray(image), 1, 3)
    gt, lq = made['luma'], made['luma_lq']
    assert abs(made['luma_small'] * 255 - expected['im_l_y']).max() < 1e-9
    assert gt.shape == expected['im_gt_y'].shape
    assert abs(gt * 255 - expected['im_gt_y']).max() < 1e-9
    assert abs(lq * 255 - expected['im_b_y']).max() < 1e-9


@pytest.mark.parametrize('factor', [1, 0.7])
def test_luminance_of_8_bits(photos, factor):
    """As MATLAB's rgb2ycbcr gives it for 8-bit images; what is made from it is not rounded."""
    image = photos['coffee'][:61, :90]
    made, exact = luma_images(image, factor, 3, True), luma_images(image, factor, 3)
    luma = luminance_by_hand(image if factor == 1 else imresize(image, factor)) * 255
    rounded = np.floor(luma[: len(luma) // 3 * 3, : luma.shape[1] // 3 * 3] + 0.5)
    np.testing.assert_array_equal(made['luma'] * 255, rounded)
    assert 0.4 < abs(made['luma'] - exact['luma']).max() * 255 <= 0.5
    small = imresize(rounded / 255, 1 / 3)
    np.testing.assert_allclose(made['luma_small'], small, rtol=0, atol=1e-12)
    np.testing.assert_allclose(made['luma_lq'], imresize(small, 3), rtol=0, atol=1e-12)


def test_a_store_tells_that_luminance_was_rounded(tmp_path, prepare, folder_of, photos):
    folder = folder_of(tmp_path / 'T91', {'a': photos['chelsea'][:50, :60]})
    prepare(
        'luma', '-i', folder, '-o', tmp_path / 'gt.lmdb', '--output_lq', tmp_path / 'lq.lmdb', '-s', 2, '--round_luma'
    )
    gt = open_store(tmp_path / 'gt.lmdb')
    values = gt.read('T91/a_1_x2') * 255
    assert gt.meta['round_luma'] is True
    np.testing.assert_allclose(values, values.round(), rtol=0, atol=1e-4)


def test_a_dataset_draws_patches(tmp_path, folder_of, photos):
    import basicsr_ext

    basicsr_ext.register()
    from basicsr_ext.data.paired_store_dataset import PairedStoreDataset

    folder = folder_of(tmp_path / 'T91', {'a': photos['chelsea'][:100, :120]})
    make_luma([folder], tmp_path / 'gt.lmdb', tmp_path / 'lq.lmdb', [2, 3, 4])
    stores = {'dataroot_gt': tmp_path / 'gt.lmdb', 'dataroot_lq': tmp_path / 'lq.lmdb'}
    dataset = PairedStoreDataset({'name': '291', 'phase': 'train', 'scale': 1, 'gt_size': 41, **stores})
    assert len(dataset) == 9
    sample = dataset[0]
    assert sample['gt'].shape == sample['lq'].shape == (1, 41, 41)
    assert sample['gt'].dtype == sample['lq'].dtype
    difference = (sample['gt'] - sample['lq']).abs()
    assert 0 < difference.mean() < 0.1  # the same place


def test_luminance_before_it_is_enlarged(tmp_path, prepare, folder_of, photos):
    folder = folder_of(tmp_path / 'T91', {'a': photos['chelsea'][:62, :81]})
    paths = {name: tmp_path / f'{name}.lmdb' for name in ('gt', 'lq', 'small')}
    command = ['luma', '-i', folder, '-o', paths['gt'], '--output_lq', paths['lq'], '--output_small', paths['small']]
    prepare(*command, '-s', 4, '--factors', 1, '--num_workers', 1)
    gt, lq, small = (open_store(path).read('T91/a_1_x4')[..., 0] for path in paths.values())
    assert gt.shape == (60, 80) and small.shape == (15, 20)
    np.testing.assert_allclose(small, imresize(gt.astype(np.float64), 1 / 4), rtol=0, atol=1e-6)
    np.testing.assert_allclose(lq, imresize(small.astype(np.float64), 4), rtol=0, atol=1e-6)
    assert open_store(paths['small']).meta['kind'] == 'luma_small'


def test_grey_images_count_as_rgb(tmp_path, photos):
    import cv2

    grey = np.ascontiguousarray(photos['coffee'][:60, :60, 0])
    (tmp_path / 'grey').mkdir()
    cv2.imwrite(str(tmp_path / 'grey/a.png'), grey)
    make_luma([tmp_path / 'grey'], tmp_path / 'gt.lmdb', tmp_path / 'lq.lmdb', [2], factors=[1])
    luma = open_store(tmp_path / 'gt.lmdb').read('grey/a_1_x2')[..., 0]
    np.testing.assert_allclose(luma, (16 + 219 * (grey / 255)) / 255, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'scales': []}, 'scale: expected different integers'),
        ({'scales': [2, 2]}, 'scale: expected different integers'),
        ({'scales': [1]}, 'at least 2'),
        ({'factors': [1.5]}, 'factors: expected'),
        ({'factors': []}, 'factors: expected'),
        ({'patch_size': 0}, '--patch_size: expected a positive'),
        ({'patch_size': 1000}, 'no image has 1000x1000'),
        ({'output': 'gt'}, 'ending in .lmdb, since PNGs hold no float32'),
        ({'output': 'lq.lmdb'}, 'a path of its own for every store'),
        ({'inputs': ['LR', 'x/LR']}, 'folders with different names'),
        ({'inputs': ['nowhere']}, 'nowhere'),
    ],
)
def test_bad_arguments(tmp_path, monkeypatch, lq_folder, changes, message):
    monkeypatch.chdir(tmp_path)
    arguments = {
        'inputs': ['LR'],
        'output': 'gt.lmdb',
        'output_lq': 'lq.lmdb',
        'scales': [2],
        'patch_size': 8,
        **changes,
    }
    with pytest.raises(UserError, match=message):
        make_luma(**arguments)
    assert [path.name for path in tmp_path.iterdir()] == ['LR']
