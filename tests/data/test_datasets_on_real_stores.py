import pickle

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from basicsr_ext import UserError
from basicsr_ext.data.paired_centroid_dataset import PairedCentroidDataset
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.sample_id import SampleId
from basicsr_ext.storage import RawLmdbWriter

SIZES = {'a': (20, 31), 'b': (40, 17), 'c': (12, 12)}
IDS = [SampleId(position % 3, 0, position, 1 + position // 4, 5) for position in range(12)]


@pytest.fixture
def images():
    random = np.random.default_rng(0)
    return {
        name: {
            key: random.integers(0, 256, (height * scale, width * scale, 3), np.uint8)
            for key, (height, width) in SIZES.items()
        }
        for name, scale in {'gt': 2, 'lq': 1, 'centroid': 2, 'centroid_lq': 1}.items()
    }


@pytest.fixture
def options(tmp_path, images):
    (tmp_path / 'gt').mkdir()
    for key, image in images['gt'].items():
        cv2.imwrite(str(tmp_path / 'gt' / f'{key}.png'), image[..., ::-1])
    for name in ('lq', 'centroid', 'centroid_lq'):
        with RawLmdbWriter(tmp_path / f'{name}.lmdb', channels=3, dtype=np.uint8) as writer:
            for key, image in images[name].items():
                writer.put(key, image)
            writer.meta['made'] = name
    return {
        'name': 'real',
        'type': 'PairedCentroidDataset',
        'phase': 'train',
        'scale': 2,
        'dataroot_gt': str(tmp_path / 'gt'),
        'dataroot_lq': str(tmp_path / 'lq.lmdb'),
        'dataroot_centroid': str(tmp_path / 'centroid.lmdb'),
        'dataroot_centroid_lq': str(tmp_path / 'centroid_lq.lmdb'),
        'gt_size': 16,
        'output': 'uint8',
        'geometry': True,
    }


def test_crops_come_from_the_stored_pixels(options, images):
    dataset = PairedCentroidDataset(options | {'use_hflip': False, 'use_rot': False})
    for sample in map(dataset.__getitem__, IDS):
        image, top, left = sample['geometry'][:3].tolist()
        for name in images:
            scale = 1 if name.endswith('lq') else 2
            y, x, side = top * scale // 2, left * scale // 2, 8 * scale
            window = images[name][dataset.pairs[image][0]][y : y + side, x : x + side]
            np.testing.assert_array_equal(sample[name], window.transpose(2, 0, 1))
    assert dataset.centroid_store.meta['made'] == 'centroid'


@pytest.mark.parametrize(('workers', 'context'), [(0, None), (2, 'fork'), (1, 'spawn')])
def test_workers_read_the_same_however_they_are_started(options, workers, context):
    dataset = PairedCentroidDataset(options)
    expected = [dataset[sample] for sample in IDS]  # The stores are open when workers start.
    loader = DataLoader(dataset, batch_size=4, sampler=IDS, num_workers=workers, multiprocessing_context=context)
    batches = list(loader)
    for name in ('lq', 'gt', 'centroid', 'centroid_lq', 'geometry'):
        assert torch.equal(torch.cat([batch[name] for batch in batches]), torch.stack([one[name] for one in expected]))


def test_survives_pickling_after_reading(options):
    dataset = PairedCentroidDataset(options)
    expected = dataset[IDS[5]]
    found = pickle.loads(pickle.dumps(dataset))[IDS[5]]
    assert all(torch.equal(found[name], expected[name]) for name in ('lq', 'gt', 'centroid', 'centroid_lq'))


def test_grey_images_need_channels_where_the_others_are_rgb(options, images, tmp_path):
    for key, image in images['gt'].items():
        cv2.imwrite(str(tmp_path / 'gt' / f'{key}.png'), image[..., 0])
    with pytest.raises(
        UserError, match=r'dataroot_gt .* has images of 1 channels, .*dataroot_lq .* of 3; set channels: 3'
    ):
        PairedCentroidDataset(options)
    sample = PairedCentroidDataset(options | {'channels': 3})[IDS[0]]
    assert sample['gt'].shape == (3, 16, 16)
    assert torch.equal(sample['gt'][0], sample['gt'][2])


def test_grey_images_alone_are_samples_of_one_channel(options, images, tmp_path):
    for name in ('gt', 'lq'):
        (tmp_path / 'grey' / name).mkdir(parents=True)
        for key, image in images[name].items():
            cv2.imwrite(str(tmp_path / 'grey' / name / f'{key}.png'), image[..., 0])
    roots = {f'dataroot_{name}': str(tmp_path / 'grey' / name) for name in ('gt', 'lq')}
    stock = {key: value for key, value in options.items() if 'centroid' not in key}
    for channels in (None, 1):
        sample = PairedStoreDataset(stock | roots | {'channels': channels})[IDS[0]]
        assert sample['gt'].shape == (1, 16, 16)
        assert sample['lq'].shape == (1, 8, 8)


def test_demanding_grey_images_names_the_store_that_is_rgb(options):
    with pytest.raises(UserError, match=r'^datasets\.train\.dataroot_\w+: .*channels'):
        PairedCentroidDataset(options | {'channels': 1})


def test_missing_folder_is_named_by_its_option(options, tmp_path):
    stock = {key: value for key, value in options.items() if 'centroid' not in key}
    with pytest.raises(UserError, match=r'^datasets\.train\.dataroot_gt: .*nowhere'):
        PairedStoreDataset(stock | {'dataroot_gt': str(tmp_path / 'nowhere')})


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_pairs_of_set5_show_the_same(bench_dir, scale):
    dataset = PairedStoreDataset(
        {
            'name': 'Set5',
            'phase': 'train',
            'scale': scale,
            'dataroot_gt': str(bench_dir / 'Set5' / 'HR'),
            'dataroot_lq': str(bench_dir / 'Set5' / 'LR_bicubic' / f'X{scale}'),
            'filename_tmpl': f'{{}}x{scale}',
            'gt_size': 12 * scale,
        }
    )
    assert [gt for gt, _ in dataset.pairs] == ['baby', 'bird', 'butterfly', 'head', 'woman']
    for position in range(20):
        sample = dataset[SampleId(position % 5, 0, position, 1, 0)]
        # Box averages are close to bicubic downsampling, unless the crop, the flips or the channels differ.
        boxes = torch.nn.functional.avg_pool2d(sample['gt'], scale)
        assert (boxes - sample['lq']).abs().mean() < 0.03
