import math
import pickle
import random
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from memory_store import MemoryStore, coordinate_stores
from torch.utils.data import DataLoader
from waiting import LIMIT

from basicsr_ext import UserError
from basicsr_ext.data.crop_geometry import Geometry, augment
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.sample_id import SampleId

SIZES = {'a': (20, 31), 'b': (40, 17), 'c': (12, 12), 'd': (60, 50)}
TRAIN = {
    'name': 'coordinates',
    'type': 'PairedStoreDataset',
    'phase': 'train',
    'scale': 4,
    'dataroot_gt': 'gt',
    'dataroot_lq': 'lq',
    'gt_size': 32,
}
VAL = {key: value for key, value in TRAIN.items() if key != 'gt_size'} | {'phase': 'val'}


def sample_id(index, epoch=0, position=None, iteration=1, seed=5):
    return SampleId(index, epoch, index if position is None else position, iteration, seed)


def same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]) if torch.is_tensor(value) else value == second[key], key


@pytest.fixture
def stores(use_stores):
    return use_stores(coordinate_stores(SIZES, scale=4, surplus=(3, 1)))


def test_crop_and_flips_agree_and_geometry_tells_them(stores):
    dataset = PairedStoreDataset(TRAIN | {'output': 'uint8', 'geometry': True})
    seen = set()
    for position in range(200):
        sample = dataset[sample_id(position % 4, position=position)]
        lq, gt = sample['lq'].numpy(), sample['gt'].numpy()
        assert lq.shape == (3, 8, 8)
        assert gt.shape == (3, 32, 32)
        np.testing.assert_array_equal(gt[:2] // 4, lq[:2].repeat(4, axis=1).repeat(4, axis=2))
        geometry = Geometry(*sample['geometry'].tolist())
        gt_key, lq_key = dataset.pairs[geometry.image]
        assert (sample['gt_path'], sample['lq_path']) == (gt_key, lq_key)
        image = stores['gt'].images[gt_key]
        window = image[geometry.top : geometry.top + geometry.height, geometry.left : geometry.left + geometry.width]
        np.testing.assert_array_equal(gt, augment(window, geometry).transpose(2, 0, 1))
        seen.add(geometry[5:])
    assert len(seen) == 8


def test_an_epoch_on_a_grid_shows_every_crop(use_stores):
    """Each index is one crop; flips move the grid to the other corner, so that nothing is read twice."""
    use_stores(coordinate_stores({'a': (20, 31), 'b': (8, 17)}, scale=4))
    dataset = PairedStoreDataset(TRAIN | {'geometry': True, 'grid': True})
    assert len(dataset) == 2 * 3 + 2
    plain = PairedStoreDataset(TRAIN | {'geometry': True, 'grid': True, 'use_hflip': False, 'use_rot': False})
    found = [tuple(plain[sample_id(index)]['geometry'].tolist()) for index in range(8)]
    cells = {(0, top, left) for top in (0, 32) for left in (0, 32, 64)} | {(1, 0, 0), (1, 0, 32)}
    assert {where[:3] for where in found} == cells
    batch = plain.__getitems__([sample_id(index) for index in range(8)])[0]
    assert [tuple(row) for row in batch['geometry'].tolist()] == found
    flipped = {
        tuple(dataset[sample_id(2, position=p)]['geometry'].tolist()[i] for i in (1, 2, 5, 6)) for p in range(60)
    }
    assert flipped == {
        (top, left, hflip, vflip) for hflip, left in ((0, 64), (1, 28)) for vflip, top in ((0, 0), (1, 48))
    }
    with pytest.raises(IndexError, match='8 is out of range for 8 samples'):
        dataset[sample_id(8)]


def test_images_may_be_drawn_alike(use_stores):
    use_stores(coordinate_stores({'large': (90, 90), 'small': (8, 8)}, scale=4))
    drawn = {
        sampling: [
            PairedStoreDataset(TRAIN | {'sampling': sampling})[sample_id(p % 2, position=p)]['gt_path']
            for p in range(60)
        ]
        for sampling in ('area', 'image')
    }
    assert drawn['image'].count('small') == 30 and drawn['area'].count('small') <= 2


def test_validation_has_no_grid(stores):
    assert len(PairedStoreDataset(VAL | {'grid': True})) == 4


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_luminance_of_colour_images(use_stores, dtype):
    white = np.iinfo(dtype).max if np.dtype(dtype).kind == 'u' else 1
    random = np.random.default_rng(0)
    sizes = {'gt': (24, 32), 'lq': (6, 8)}
    colours = {name: (random.random((*size, 3)) * white).astype(dtype) for name, size in sizes.items()}
    use_stores({name: MemoryStore(name, {'a': image}) for name, image in colours.items()})
    dataset = PairedStoreDataset(VAL | {'color': 'y'})
    sample = dataset[0]
    for name, image in colours.items():
        unit = image.astype(np.float64) / white
        expected = (16 + unit @ (65.481, 128.553, 24.966)) / 255
        assert sample[name].dtype == torch.float32
        np.testing.assert_allclose(sample[name][0], expected, rtol=0, atol=1e-7)
    assert dataset.lq_store.channels == dataset.gt_store.channels == 1
    cropped = PairedStoreDataset(TRAIN | {'color': 'y', 'gt_size': 16, 'geometry': True})
    batch = cropped.__getitems__([sample_id(0, position=p) for p in range(5)])[0]
    for image, row in zip(batch['gt'], batch['geometry'].tolist(), strict=True):
        _, top, left, height, width, *_ = geometry = Geometry(*row)
        window = sample['gt'][:, top : top + height, left : left + width].numpy().transpose(1, 2, 0)
        np.testing.assert_array_equal(image, augment(window, geometry).transpose(2, 0, 1))


def test_luminance_of_grey_images_is_refused(use_stores):
    grey = {name: MemoryStore(name, {'a': np.zeros((8, 8, 1), np.uint8)}) for name in ('gt', 'lq')}
    use_stores(grey)
    with pytest.raises(UserError, match='dataroot_lq: lq: expected RGB images, whose luminance is to be taken'):
        PairedStoreDataset(VAL | {'scale': 1, 'color': 'y'})


def test_geometry_is_int64(stores):
    geometry = PairedStoreDataset(TRAIN | {'geometry': True})[0]['geometry']
    assert geometry.dtype == torch.int64
    assert geometry.shape == (8,)


def test_only_the_crop_is_read(stores):
    dataset = PairedStoreDataset(TRAIN)
    dataset[sample_id(3)]
    ((key, top, left, *lq_size),) = stores['lq'].asked
    assert stores['gt'].asked == [(key, 4 * top, 4 * left, 32, 32)]
    assert lq_size == [8, 8]


@pytest.mark.parametrize('phase', [TRAIN, VAL])
def test_uint8_and_float32_agree(stores, phase):
    as_float, as_uint8 = PairedStoreDataset(phase), PairedStoreDataset(phase | {'output': 'uint8'})
    for index in range(4):
        one, other = as_float[sample_id(index)], as_uint8[sample_id(index)]
        for name in ('lq', 'gt'):
            assert one[name].dtype == torch.float32
            assert other[name].dtype == torch.uint8
            np.testing.assert_array_equal(one[name], other[name].numpy().astype(np.float32) / np.float32(255))


def test_uint16_images_are_divided_by_their_white(use_stores):
    stores = use_stores(coordinate_stores(SIZES, scale=4, dtype=np.uint16))
    sample = PairedStoreDataset(VAL)[0]
    expected = stores['gt'].images['a'].astype(np.float32) / np.float32(65535)
    np.testing.assert_array_equal(sample['gt'].permute(1, 2, 0), expected)


def test_tensors_are_contiguous_and_of_their_own(stores):
    before = {key: image.copy() for key, image in stores['gt'].images.items()}
    for options in (TRAIN, TRAIN | {'output': 'uint8'}, VAL | {'output': 'uint8'}):
        sample = PairedStoreDataset(options)[sample_id(1)]
        for name in ('lq', 'gt'):
            assert sample[name].is_contiguous()
            sample[name].zero_()
    assert all(np.array_equal(before[key], image) for key, image in stores['gt'].images.items())


def test_crops_are_in_proportion_to_area(use_stores):
    sizes = {f'{number:03}': (16 + 3 * number, 90 - number) for number in range(60)}
    use_stores(coordinate_stores(sizes, scale=2))
    dataset = PairedStoreDataset(TRAIN | {'scale': 2, 'geometry': True, 'gt_size': 8})
    areas = np.prod(list(sizes.values()), axis=1)
    for epoch in range(3):
        images = [dataset[sample_id(index, epoch)]['geometry'][0].item() for index in range(60)]
        assert np.abs(np.bincount(images, minlength=60) - 60 * areas / areas.sum()).max() < 2
    ratio = 50
    images = [dataset[sample_id(index % 60, position=index)]['geometry'][0].item() for index in range(60 * ratio)]
    expected = 60 * ratio * areas / areas.sum()
    # Each pass is off by two partly covered strata at most, with standard deviation of at most 0.5 each.
    assert np.abs(np.bincount(images, minlength=60) - expected).max() < 5 * math.sqrt(ratio / 2)


def test_positions_reach_the_borders(use_stores):
    use_stores(coordinate_stores({'a': (10, 11)}, scale=2))
    dataset = PairedStoreDataset(TRAIN | {'scale': 2, 'gt_size': 16, 'geometry': True})
    corners = {tuple(dataset[sample_id(0, position=position)]['geometry'][1:3].tolist()) for position in range(200)}
    assert corners == {(top, left) for top in (0, 2, 4) for left in (0, 2, 4, 6)}


def test_flips_can_be_switched_off(stores):
    def flags(**options):
        dataset = PairedStoreDataset(TRAIN | {'geometry': True} | options)
        return {tuple(dataset[sample_id(0, position=position)]['geometry'][5:].tolist()) for position in range(64)}

    assert flags(use_hflip=False, use_rot=False) == {(0, 0, 0)}
    assert flags(use_rot=False) == {(0, 0, 0), (1, 0, 0)}
    assert flags(use_hflip=False) == {(0, v, t) for v in (0, 1) for t in (0, 1)}


def test_samples_never_change(stores):
    # A run that is resumed with a later version must see the samples it would have seen.
    dataset = PairedStoreDataset(TRAIN | {'geometry': True})
    assert dataset[SampleId(1, 2, 33, 9, 7)]['geometry'].tolist() == [3, 124, 152, 32, 32, 1, 1, 1]
    assert dataset[SampleId(3, 0, 0, 1, 0)]['geometry'].tolist() == [3, 48, 16, 32, 32, 0, 0, 1]


def test_sample_depends_on_its_id_only(stores):
    dataset = PairedStoreDataset(TRAIN | {'geometry': True})
    assert dataset.takes_sample_id
    ids = [sample_id(position % 4, epoch=1, position=position) for position in range(12)]
    forward = [dataset[sample] for sample in ids]
    random.seed(0)
    np.random.seed(0)
    for sample, expected in zip(reversed(ids), reversed(forward), strict=True):
        same(dataset[sample], expected)
    geometries = {tuple(sample['geometry'].tolist()) for sample in forward}
    assert len(geometries) == 12
    same(dataset[ids[0]._replace(iteration=99)], forward[0])
    for change in ({'epoch': 2}, {'position': 50}, {'seed': 6}):
        assert dataset[ids[3]._replace(**change)]['geometry'].tolist() != forward[3]['geometry'].tolist()


@pytest.mark.parametrize(('workers', 'batch'), [(0, 6), (2, 4), (2, 3)])
def test_loader_gives_the_same_samples_whatever_its_workers(stores, workers, batch):
    dataset = PairedStoreDataset(TRAIN | {'geometry': True})
    ids = [sample_id(position % 4, position=position) for position in range(12)]
    loader = DataLoader(dataset, batch_size=batch, sampler=ids, num_workers=workers)
    batches = list(loader)
    assert len(batches) == 12 // batch
    for key in ('lq', 'gt', 'geometry'):
        expected = torch.stack([dataset[sample][key] for sample in ids])
        assert torch.equal(torch.cat([found[key] for found in batches]), expected)
    assert [key for found in batches for key in found['lq_path']] == [dataset[sample]['lq_path'] for sample in ids]


@pytest.mark.parametrize('workers', [0, 2])
def test_works_with_basicsr_own_sampler_and_loader(stores, workers):
    from basicsr.data import build_dataloader, build_dataset
    from basicsr.data.data_sampler import EnlargedSampler

    options = TRAIN | {'geometry': True, 'num_worker_per_gpu': workers, 'batch_size_per_gpu': 2}
    dataset = build_dataset(options)
    assert type(dataset) is PairedStoreDataset
    sampler = EnlargedSampler(dataset, num_replicas=1, rank=0, ratio=4)
    loader = build_dataloader(dataset, options, num_gpu=0, sampler=sampler, seed=3)

    def geometries():
        random.seed(1)
        batches = list(loader)
        assert [found['gt'].shape for found in batches] == [(2, 3, 32, 32)] * 8
        return torch.cat([found['geometry'] for found in batches])

    first = geometries()
    assert len({tuple(geometry.tolist()) for geometry in first}) == 16
    assert torch.equal(first, geometries())


def test_validation_with_basicsr_own_loader(stores):
    from basicsr.data import build_dataloader, build_dataset

    dataset = build_dataset(VAL | {'name': 'Set', 'geometry': True})
    loader = build_dataloader(dataset, VAL)
    assert dataset.opt['name'] == 'Set'
    found = list(loader)
    assert [sample['lq_path'] for sample in found] == [['a'], ['b'], ['c'], ['d']]
    for index, (sample, (height, width)) in enumerate(zip(found, SIZES.values(), strict=True)):
        assert sample['lq'].shape == (1, 3, height, width)
        assert sample['gt'].shape == (1, 3, 4 * height, 4 * width)
        assert sample['geometry'].tolist() == [[index, 0, 0, 4 * height, 4 * width, 0, 0, 0]]


def test_validation_leaves_random_numbers_alone(stores):
    dataset = PairedStoreDataset(VAL)
    random.seed(3)
    state = random.getstate()
    same(dataset[1], dataset[sample_id(1)])
    assert random.getstate() == state


@pytest.mark.parametrize('phase', ['val', 'test'])
def test_samples_without_gt(stores, phase):
    options = {key: value for key, value in VAL.items() if key != 'dataroot_gt'} | {'phase': phase}
    dataset = PairedStoreDataset(options)
    assert dataset.gt_store is None
    assert dataset.pairs[1] == (None, 'b')
    assert set(dataset[1]) == {'lq', 'lq_path'}
    np.testing.assert_array_equal(dataset[1]['lq'].shape, (3, 40, 17))


def test_template_gives_the_lq_names(use_stores):
    stores = coordinate_stores(SIZES, scale=4)
    stores['lq'] = MemoryStore('lq', {f'{key}x4': image.copy() for key, image in stores['lq'].images.items()})
    use_stores(stores)
    dataset = PairedStoreDataset(VAL | {'filename_tmpl': '{}x4'})
    assert dataset.pairs == [(key, f'{key}x4') for key in SIZES]
    assert (dataset[2]['gt_path'], dataset[2]['lq_path']) == ('c', 'cx4')


def test_one_gt_store_serves_several_scales(use_stores):
    for scale in (2, 3, 4):
        stores = coordinate_stores({'a': (50 // scale, 43 // scale)}, scale=scale, surplus=(50 % scale, 43 % scale))
        assert stores['gt'].images['a'].shape == (50, 43, 3)
        use_stores(stores)
        sample = PairedStoreDataset(VAL | {'scale': scale})[0]
        assert sample['gt'].shape == (3, 50 // scale * scale, 43 // scale * scale)


def test_sources_of_other_scales_get_the_same_window(use_stores):
    # What a dataset with further images per sample relies on.
    class WithHalf(PairedStoreDataset):
        def open_sources(self):
            half = MemoryStore('half', {key: gt[::2, ::2].copy() for key, gt in self.stores['gt'].images.items()})
            keys = list(SIZES)
            return super().open_sources() | {'half': self.source('dataroot_half', half, keys, scale=2)}

    WithHalf.stores = use_stores(coordinate_stores(SIZES, scale=4))
    sample = WithHalf(TRAIN | {'output': 'uint8', 'use_hflip': False, 'use_rot': False})[sample_id(2)]
    assert torch.equal(sample['half'], sample['gt'][:, ::2, ::2])


def test_survives_pickling(stores):
    dataset = PairedStoreDataset(TRAIN | {'geometry': True})
    copy = pickle.loads(pickle.dumps(dataset))
    same(copy[sample_id(2)], dataset[sample_id(2)])


def test_index_out_of_range(stores):
    dataset = PairedStoreDataset(VAL)
    assert len(list(dataset)) == len(dataset) == 4
    with pytest.raises(IndexError, match='4 is out of range for 4 samples'):
        dataset[4]


@pytest.mark.parametrize('flags', [(h, v, t) for h in (0, 1) for v in (0, 1) for t in (0, 1)])
def test_equals_basicsr_paired_image_dataset(use_stores, tmp_path, monkeypatch, flags):
    from basicsr.data import transforms
    from basicsr.data.paired_image_dataset import PairedImageDataset

    generator = np.random.default_rng(0)
    images = {
        'gt': generator.integers(0, 256, (60, 72, 3), np.uint8),
        'lq': generator.integers(0, 256, (15, 18, 3), np.uint8),
    }
    for name, image in images.items():
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / 'a.png'), image[..., ::-1])
    use_stores({name: MemoryStore(name, {'a': image.copy()}) for name, image in images.items()})

    top, left = 3, 5
    integers, fractions = iter([top, left]), iter([0.0 if flag else 0.9 for flag in flags])
    fixed = SimpleNamespace(randint=lambda low, high: next(integers), random=lambda: next(fractions))
    monkeypatch.setattr(transforms, 'random', fixed)
    roots = {'dataroot_gt': str(tmp_path / 'gt'), 'dataroot_lq': str(tmp_path / 'lq')}
    stock = {'io_backend': {'type': 'disk'}, 'use_hflip': True, 'use_rot': True}
    expected = PairedImageDataset(TRAIN | roots | stock)[0]

    dataset = PairedStoreDataset(TRAIN)
    found = dataset.read(Geometry(0, 4 * top, 4 * left, 32, 32, *flags), dataset.sources)
    for name in ('lq', 'gt'):
        assert found[name].dtype == expected[name].dtype
        assert torch.equal(found[name], expected[name])


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'gt_size': 30}, r'^datasets\.train\.gt_size: expected a multiple of scale \(4\), found 30\.$'),
        (
            {'gt_size': None},
            r'^datasets\.train\.gt_size: training needs the size of the crops in HR pixels, found None',
        ),
        (
            {'phase': 'val'},
            r'^datasets\.val\.gt_size: expected nothing, since phase val gives whole images; .* found 32',
        ),
        ({'dataroot_gt': None}, r'^datasets\.train\.dataroot_gt: training needs GT images.* found None\.$'),
        ({'filename_tmpl': 'x4'}, r'^datasets\.train\.filename_tmpl: expected \{\} once.* found \'x4\'\.$'),
        ({'filename_tmpl': '{}{0.x}'}, r'filename_tmpl: expected \{\} once'),
        ({'channels': 2}, r'^datasets\.train\.channels: input should be 1 or 3, found 2\.$'),
        ({'output': 'float16'}, r"^datasets\.train\.output: input should be 'float32' or 'uint8', found 'float16'\.$"),
        (
            {'dataset_enlarge_ratio': 0},
            r'^datasets\.train\.dataset_enlarge_ratio: .*greater than or equal to 1, found 0',
        ),
        ({'gt_sise': 32}, r'^datasets\.train\.gt_sise: unknown option; did you mean "gt_size"\?$'),
        ({'phase': 'training'}, r"^datasets\.training\.phase: .*'train', 'val' or 'test', found 'training'\.$"),
    ],
)
def test_wrong_options_are_named(stores, change, message):
    with pytest.raises(UserError, match=message):
        PairedStoreDataset(TRAIN | change)


@pytest.mark.parametrize('key', ['name', 'phase', 'scale', 'dataroot_lq'])
def test_missing_options_are_named(stores, key):
    with pytest.raises(UserError, match=rf'\.{key}: this option is required, and is missing'):
        PairedStoreDataset({name: value for name, value in TRAIN.items() if name != key})


def test_loader_options_are_known(stores):
    loader = {
        'num_worker_per_gpu': 2,
        'batch_size_per_gpu': 16,
        'dataset_enlarge_ratio': 100,
        'prefetch_mode': 'cuda',
        'num_prefetch_queue': 2,
        'pin_memory': True,
        'persistent_workers': True,
    }
    options = PairedStoreDataset(TRAIN | loader).options
    assert {key: getattr(options, key) for key in loader} == loader


def test_stores_that_cannot_be_opened_are_named_by_their_option(stores):
    with pytest.raises(UserError, match=r'^datasets\.train\.dataroot_lq: nowhere is not an image store\.$'):
        PairedStoreDataset(TRAIN | {'dataroot_lq': 'nowhere'})


def test_empty_store(use_stores):
    use_stores(coordinate_stores(SIZES, 4) | {'gt': MemoryStore('gt', {})})
    with pytest.raises(UserError, match=r'^datasets\.train\.dataroot_gt: gt holds no images\.$'):
        PairedStoreDataset(TRAIN)


def test_unpaired_images_are_named(use_stores):
    use_stores(coordinate_stores(SIZES, 4) | {'lq': coordinate_stores({'a': (20, 31), 'x': (9, 9)}, 4)['lq']})
    message = (
        r'^datasets\.train\.dataroot_lq \(lq\) does not hold the images of dataroot_gt \(gt\) under filename_tmpl '
        r'"\{\}": 3 of 4 GT images have no LQ image; not found: "b", "c", "d"\. 1 of 2 LQ images .*: "x"\. Make'
    )
    with pytest.raises(UserError, match=message):
        PairedStoreDataset(TRAIN)


@pytest.mark.parametrize('surplus', [(4, 0), (0, 4), (-1, 0), (0, -1)])
def test_sizes_that_do_not_match_are_named(use_stores, surplus):
    use_stores(coordinate_stores(SIZES, 4, surplus))
    found = f'{80 + surplus[0]}x{124 + surplus[1]}'
    message = rf'^datasets\.train\.dataroot_gt \(gt\): 4 of 4 images .*"a" is {found}, expected 80x124, .* and 1 more'
    with pytest.raises(UserError, match=message):
        PairedStoreDataset(TRAIN)


def test_images_smaller_than_the_crop_are_named(stores):
    message = (
        r'^datasets\.train\.gt_size: 64 needs .* 16x16 .* 1 of 4 in datasets\.train\.dataroot_lq \(lq\).*"c" is 12x12'
    )
    with pytest.raises(UserError, match=message):
        PairedStoreDataset(TRAIN | {'gt_size': 64})


def test_channels_of_both_stores_must_agree(use_stores):
    stores = coordinate_stores(SIZES, 4)
    stores['gt'] = MemoryStore('gt', {key: image[..., :1].copy() for key, image in stores['gt'].images.items()})
    use_stores(stores)
    message = (
        r'^datasets\.train\.dataroot_gt \(gt\) has images of 1 channels, but datasets\.train\.dataroot_lq \(lq\) of 3'
    )
    with pytest.raises(UserError, match=message):
        PairedStoreDataset(TRAIN)


def test_uint8_output_needs_uint8_stores(use_stores):
    use_stores(coordinate_stores(SIZES, 4) | {'gt': coordinate_stores(SIZES, 4, dtype=np.uint16)['gt']})
    PairedStoreDataset(TRAIN)
    with pytest.raises(UserError, match=r'^datasets\.train\.dataroot_gt \(gt\) holds uint16 images, but output: uint8'):
        PairedStoreDataset(TRAIN | {'output': 'uint8'})


def test_checking_options_needs_no_torch():
    check = (
        'import sys; import basicsr_ext.data.store_options, basicsr_ext.data.sample_id, basicsr_ext.data.pairing;'
        'sys.exit("torch" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', check], timeout=LIMIT).returncode == 0
