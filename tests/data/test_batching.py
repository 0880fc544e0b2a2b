"""Batches that are read in one go hold what single samples hold, to the bit."""

import cv2
import numpy as np
import pytest
import torch
from memory_store import coordinate_stores
from torch.utils.data import DataLoader, Subset

from basicsr_ext import UserError
from basicsr_ext.data.batching import read_windows, to_nchw
from basicsr_ext.data.crop_geometry import Geometry, augment, copy_flipped, to_chw
from basicsr_ext.data.paired_centroid_dataset import PairedCentroidDataset
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.pairing import Source
from basicsr_ext.data.sample_id import SampleId
from basicsr_ext.storage import RawLmdbWriter, open_store

SIZES = {'a': (150, 160), 'b': (170, 140)}  # of GT images
FLIPS = [(bool(h), bool(v), bool(t)) for h in (0, 1) for v in (0, 1) for t in (0, 1)]
IDS = [SampleId(position % 2, 0, position, 1 + position // 8, 5) for position in range(24)]
IMAGES = ('gt', 'lq', 'centroid', 'centroid_lq')


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    scales = dict(zip(IMAGES, (4, 1, 4, 1), strict=True))
    return {
        name: {
            key: random.integers(0, 256, (height * scale, width * scale, 3), np.uint8)
            for key, (height, width) in SIZES.items()
        }
        for name, scale in scales.items()
    }


@pytest.fixture
def options(tmp_path, images):
    for name, members in images.items():
        with RawLmdbWriter(tmp_path / f'{name}.lmdb', channels=3, dtype=np.uint8) as writer:
            for key, image in members.items():
                writer.put(key, image)
    roots = {f'dataroot_{name}': str(tmp_path / f'{name}.lmdb') for name in IMAGES}
    return {'name': 'raw', 'phase': 'train', 'scale': 4, 'gt_size': 96, 'geometry': True, **roots}


@pytest.mark.parametrize('flips', FLIPS)
@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_flipped_copies_equal_numpys(dtype, channels, flips):
    image = (np.random.default_rng(0).random((40, 30, channels)) * 250).astype(dtype)
    window = image[5:37, 3:27]
    expected = augment(window, Geometry(0, 0, 0, 32, 24, *flips))
    batch = np.zeros((3, *expected.shape), dtype)
    copy_flipped(window, batch[1], *flips)
    np.testing.assert_array_equal(batch[1], expected)
    assert not batch[[0, 2]].any()


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_batches_for_networks_equal_single_images(dtype):
    images = (np.random.default_rng(0).random((3, 8, 9, 3)) * 200).astype(dtype)
    for unit_range in (True, False):
        found = to_nchw(images, unit_range)
        np.testing.assert_array_equal(found, np.stack([to_chw(image, unit_range) for image in images]))
        assert found.is_contiguous() == unit_range
    assert to_nchw(images, True).dtype == torch.float32


@pytest.mark.parametrize('output', ['uint8', 'float32'])
def test_batches_equal_single_samples(options, output):
    dataset = PairedCentroidDataset(options | {'output': output})
    single = [dataset[sample] for sample in IDS[:8]]
    (batch,) = dataset.__getitems__(IDS[:8])
    assert batch.keys() == single[0].keys()
    for name in (*IMAGES, 'geometry'):
        assert batch[name].dtype == single[0][name].dtype
        assert torch.equal(batch[name], torch.stack([sample[name] for sample in single]))
    assert batch['lq_path'] == [sample['lq_path'] for sample in single]
    assert batch['gt_path'] == [sample['gt_path'] for sample in single]
    assert len({tuple(flags) for flags in batch['geometry'][:, 5:].tolist()}) > 3


@pytest.mark.parametrize('output', ['uint8', 'float32'])
@pytest.mark.parametrize('workers', [0, 1, 2])
def test_loaders_take_batches_as_they_are(options, images, workers, output, monkeypatch):
    dataset = PairedCentroidDataset(options | {'output': output})
    expected = [dataset[sample] for sample in IDS]
    monkeypatch.delattr(PairedStoreDataset, '__getitem__')
    batches = list(DataLoader(dataset, batch_size=8, sampler=IDS, num_workers=workers))
    assert [type(batch) for batch in batches] == [dict] * 3
    for name in (*IMAGES, 'geometry'):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.stack([one[name] for one in expected]))
    assert [key for batch in batches for key in batch['gt_path']] == [one['gt_path'] for one in expected]


def test_a_part_of_the_dataset_can_be_loaded(options):
    dataset = PairedStoreDataset({key: value for key, value in options.items() if 'centroid' not in key})
    (batch,) = DataLoader(Subset(dataset, [1, 0]), batch_size=2)
    assert batch['gt'].shape == (2, 3, 96, 96)


def test_batches_of_two_iterations_are_put_together_sample_by_sample(options):
    dataset = PairedCentroidDataset(options)
    assert len(dataset.__getitems__(IDS[4:12])) == 8
    dataset.centroids_until(1)
    (before,), (after,) = dataset.__getitems__(IDS[:8]), dataset.__getitems__(IDS[8:16])
    assert set(IMAGES) < before.keys() and 'centroid' not in after and 'centroid_lq' not in after


def test_whole_images_of_different_sizes_stay_single(use_stores):
    use_stores(coordinate_stores({'a': (10, 12), 'b': (9, 8)}, scale=4))
    dataset = PairedStoreDataset({'name': 'val', 'phase': 'val', 'scale': 4, 'dataroot_gt': 'gt', 'dataroot_lq': 'lq'})
    samples = dataset.__getitems__([0, 1])
    assert [tuple(sample['gt'].shape) for sample in samples] == [(3, 40, 48), (3, 36, 32)]


def test_indices_out_of_range_are_refused_in_batches(options):
    dataset = PairedStoreDataset({key: value for key, value in options.items() if 'centroid' not in key})
    with pytest.raises(IndexError, match='2 is out of range for 2 samples'):
        dataset.__getitems__([0, 2])


@pytest.mark.parametrize('output', ['uint8', 'float32'])
@pytest.mark.parametrize('flips', FLIPS)
def test_equals_basicsrs_crop_and_flips(options, images, tmp_path, flips, output, monkeypatch):
    """BasicSR's own functions get the positions and flips of our samples, and must give the same pixels."""
    from types import SimpleNamespace

    from basicsr.data import transforms
    from basicsr.utils import img2tensor

    dataset = PairedStoreDataset(
        {key: value for key, value in options.items() if 'centroid' not in key} | {'output': output}
    )
    geometries = [
        Geometry(1, 4 * top, 4 * left, 96, 96, *flips) for top, left in ((0, 0), (110, 7), (146, 116), (61, 33))
    ]
    found = {
        name: to_nchw(read_windows(source, geometries, 4), output == 'float32')
        for name, source in dataset.sources.items()
    }
    for number, geometry in enumerate(geometries):
        integers = iter([geometry.top // 4, geometry.left // 4])
        fractions = iter([0.0 if flag else 0.9 for flag in flips])
        fixed = SimpleNamespace(randint=lambda low, high, i=integers: next(i), random=lambda f=fractions: next(f))
        monkeypatch.setattr(transforms, 'random', fixed)
        pair = [np.ascontiguousarray(images[name]['b'][..., ::-1]) for name in ('gt', 'lq')]
        if output == 'float32':
            pair = [image.astype(np.float32) / 255.0 for image in pair]
        pair = transforms.augment(list(transforms.paired_random_crop(*pair, 96, 4, 'b')), True, True)
        for name, image in zip(('gt', 'lq'), pair, strict=True):
            expected = img2tensor(image.copy(), bgr2rgb=True, float32=output == 'float32')
            assert found[name][number].dtype == expected.dtype
            assert torch.equal(found[name][number], expected)


def test_a_damaged_image_is_named(tmp_path):
    for name, side in (('gt', 64), ('lq', 16)):
        (tmp_path / name).mkdir()
        for key in 'ab':
            cv2.imwrite(str(tmp_path / name / f'{key}.png'), np.random.default_rng(0).integers(0, 255, (side, side, 3)))
    victim = tmp_path / 'gt' / 'b.png'
    victim.write_bytes(victim.read_bytes()[:200])  # the header stays
    roots = {f'dataroot_{name}': str(tmp_path / name) for name in ('gt', 'lq')}
    dataset = PairedStoreDataset({'name': 'x', 'phase': 'train', 'scale': 4, 'gt_size': 32, **roots})
    with pytest.raises(UserError, match=r'image "b": OpenCV cannot decode'):
        list(DataLoader(dataset, batch_size=4, sampler=IDS[:8]))


def test_a_store_that_decodes_gives_windows_too(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image[..., ::-1])
    source = Source('dataroot', open_store(tmp_path), ['a'], 1)
    found = read_windows(source, [Geometry(0, 3, 4, 10, 12), Geometry(0, 0, 0, 10, 12, True)], 1)
    np.testing.assert_array_equal(found[0], image[3:13, 4:16])
    np.testing.assert_array_equal(found[1], image[:10, 11::-1])
