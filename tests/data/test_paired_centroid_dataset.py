import pickle

import numpy as np
import pytest
import torch
from memory_store import MemoryStore, coordinate_stores
from torch.utils.data import DataLoader

from basicsr_ext import UserError
from basicsr_ext.data.crop_geometry import Geometry, augment
from basicsr_ext.data.paired_centroid_dataset import PairedCentroidDataset
from basicsr_ext.data.sample_id import SampleId

SIZES = {'a': (20, 31), 'b': (40, 17), 'c': (12, 12)}
TRAIN = {
    'name': 'coordinates',
    'type': 'PairedCentroidDataset',
    'phase': 'train',
    'scale': 3,
    'dataroot_gt': 'gt',
    'dataroot_lq': 'lq',
    'dataroot_centroid': 'centroid',
    'dataroot_centroid_lq': 'centroid_lq',
    'gt_size': 24,
}
IMAGES = {'gt': 0, 'lq': 1, 'centroid': 2, 'centroid_lq': 3}


def sample_id(index, position=0, iteration=1):
    return SampleId(index, 0, position, iteration, 5)


def renamed(store, template):
    return MemoryStore(str(store.path), {template.format(key): image.copy() for key, image in store.images.items()})


@pytest.fixture
def stores(use_stores):
    return use_stores(coordinate_stores(SIZES, scale=3, surplus=(2, 0)))


def test_all_four_images_show_the_same_place(stores):
    dataset = PairedCentroidDataset(TRAIN | {'output': 'uint8', 'geometry': True})
    seen = set()
    for position in range(150):
        sample = dataset[sample_id(position % 3, position)]
        geometry = Geometry(*sample['geometry'].tolist())
        for name, kind in IMAGES.items():
            scale = 1 if name.endswith('lq') else 3
            top, left, height, width = (side * scale // 3 for side in geometry[1:5])
            image = stores[name].images[dataset.pairs[geometry.image][0]]
            window = augment(image[top : top + height, left : left + width], geometry)
            np.testing.assert_array_equal(sample[name], window.transpose(2, 0, 1))
            assert set(sample[name][2].flatten().tolist()) == {10 * geometry.image + kind}
        seen.add(geometry[5:])
    assert len(seen) == 8


def test_float32_output(stores):
    sample = PairedCentroidDataset(TRAIN)[sample_id(1)]
    values = PairedCentroidDataset(TRAIN | {'output': 'uint8'})[sample_id(1)]
    for name in IMAGES:
        assert torch.equal(sample[name], values[name] / 255)


def test_draws_the_same_crops_as_without_centroids(stores):
    from basicsr_ext.data.paired_store_dataset import PairedStoreDataset

    with_centroids = PairedCentroidDataset(TRAIN | {'geometry': True})
    options = {key: value for key, value in TRAIN.items() if 'centroid' not in key}
    without = PairedStoreDataset(options | {'geometry': True})
    for position in range(10):
        one, other = with_centroids[sample_id(0, position)], without[sample_id(0, position)]
        assert one.keys() - other.keys() == {'centroid', 'centroid_lq'}
        assert all(torch.equal(one[key], other[key]) for key in ('gt', 'lq', 'geometry'))


def test_centroids_are_not_read_after_the_last_iteration(stores):
    dataset = PairedCentroidDataset(TRAIN)
    before = dataset[sample_id(0, iteration=11)]
    assert {'centroid', 'centroid_lq'} < before.keys()
    dataset.centroids_until(10)
    assert dataset[sample_id(0, iteration=10)].keys() == before.keys()
    reads = len(stores['centroid'].asked), len(stores['centroid_lq'].asked)
    after = dataset[sample_id(0, iteration=11)]
    assert set(after) == {'lq', 'gt', 'lq_path', 'gt_path'}
    assert (len(stores['centroid'].asked), len(stores['centroid_lq'].asked)) == reads
    assert torch.equal(after['gt'], before['gt'])
    dataset.centroids_until(0)
    assert 'centroid' not in dataset[sample_id(0, iteration=1)]
    assert 'centroid' in dataset[0]


@pytest.mark.parametrize('workers', [0, 2])
def test_batches_agree_on_their_entries_in_a_loader(stores, workers):
    dataset = PairedCentroidDataset(TRAIN)
    dataset.centroids_until(2)
    ids = [SampleId(position % 3, 0, position, 1 + position // 4, 5) for position in range(16)]
    batches = list(DataLoader(dataset, batch_size=4, sampler=ids, num_workers=workers))
    assert ['centroid' in batch for batch in batches] == [True, True, False, False]
    assert ['centroid_lq' in batch for batch in batches] == [True, True, False, False]
    expected = torch.stack([dataset[sample]['centroid'] for sample in ids[4:8]])
    assert torch.equal(batches[1]['centroid'], expected)


@pytest.mark.parametrize('template', ['{}', '{}x3'])
def test_keys_are_those_of_lq_or_of_gt(use_stores, template):
    stores = coordinate_stores(SIZES, 3)
    stores['lq'] = renamed(stores['lq'], '{}x3')
    stores['centroid'] = renamed(stores['centroid'], template)
    use_stores(stores)
    dataset = PairedCentroidDataset(TRAIN | {'filename_tmpl': '{}x3', 'output': 'uint8', 'geometry': True})
    sample = dataset[sample_id(1)]
    image = sample['geometry'][0].item()
    assert sample['centroid'][2, 0, 0] == 10 * image + 2


def test_offers_its_stores_and_pairs(stores):
    dataset = PairedCentroidDataset(TRAIN)
    for name, store in stores.items():
        assert getattr(dataset, f'{name}_store') is store
    assert dataset.pairs == [('a', 'a'), ('b', 'b'), ('c', 'c')]


def test_whole_images_in_validation(stores):
    options = {key: value for key, value in TRAIN.items() if key != 'gt_size'} | {'phase': 'val'}
    sample = PairedCentroidDataset(options)[1]
    assert sample['gt'].shape == sample['centroid'].shape == (3, 120, 51)
    assert sample['lq'].shape == sample['centroid_lq'].shape == (3, 40, 17)


def test_survives_pickling(stores):
    dataset = PairedCentroidDataset(TRAIN)
    dataset.centroids_until(4)
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[sample_id(2)]['centroid'], dataset[sample_id(2)]['centroid'])
    assert 'centroid' not in copy[sample_id(2, iteration=5)]


@pytest.mark.parametrize('option', ['dataroot_centroid', 'dataroot_centroid_lq'])
def test_both_options_are_required(stores, option):
    with pytest.raises(UserError, match=rf'^datasets\.train\.{option}: this option is required'):
        PairedCentroidDataset({key: value for key, value in TRAIN.items() if key != option})


@pytest.mark.parametrize('name', ['centroid', 'centroid_lq'])
def test_centroids_of_another_dataset_are_refused(use_stores, name):
    stores = coordinate_stores(SIZES, 3)
    images = stores[name].images
    stores[name] = MemoryStore(name, {'a': images['a'].copy(), 'x': images['b'].copy(), 'y': images['c'].copy()})
    use_stores(stores)
    message = (
        rf'^datasets\.train\.dataroot_{name} \({name}\) was not made for the images of dataroot_lq \(lq\): 2 of 3 '
        r'images are not in it: "b", "c"\. 2 of its 3 images are not in the dataset: "x", "y"\. Make'
    )
    with pytest.raises(UserError, match=message):
        PairedCentroidDataset(TRAIN)


@pytest.mark.parametrize(('name', 'scale'), [('centroid', 3), ('centroid_lq', 1)])
def test_sizes_must_be_exact(use_stores, name, scale):
    stores = coordinate_stores(SIZES, 3)
    images = {key: image.copy() for key, image in stores[name].images.items()}
    height, width = images['b'].shape[:2]
    images['b'] = np.zeros((height + 1, width, 3), np.uint8)
    stores[name] = MemoryStore(name, images)
    use_stores(stores)
    sizes = f'"b" is {height + 1}x{width}, expected {height}x{width}'
    message = rf'^datasets\.train\.dataroot_{name} \({name}\): 1 of 3 images are not {scale} times .* {sizes}\.'
    with pytest.raises(UserError, match=message):
        PairedCentroidDataset(TRAIN)


def test_uint8_output_names_a_centroid_store_of_another_type(use_stores):
    use_stores(coordinate_stores(SIZES, 3) | {'centroid': coordinate_stores(SIZES, 3, dtype=np.float32)['centroid']})
    PairedCentroidDataset(TRAIN)
    message = r'^datasets\.train\.dataroot_centroid \(centroid\) holds float32 images, but output: uint8'
    with pytest.raises(UserError, match=message):
        PairedCentroidDataset(TRAIN | {'output': 'uint8'})
