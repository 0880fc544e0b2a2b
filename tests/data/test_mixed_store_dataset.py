"""Pairs of several sources: their shares, their keys, noise, and what is refused."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from memory_store import MemoryStore, coordinates
from torch.utils.data import DataLoader

from basicsr_ext import UserError
from basicsr_ext.data.crop_geometry import Geometry
from basicsr_ext.data.mixed_store_dataset import MixedStoreDataset, weighted_shares
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.sample_id import SampleId

SIZES = {'real': {'a': (20, 31), 'b': (40, 17)}, 'clean': {'a': (60, 50), 'c': (12, 12), 'd': (30, 30)}}
TRAIN = {
    'name': 'mixed',
    'type': 'MixedStoreDataset',
    'phase': 'train',
    'scale': 2,
    'gt_size': 16,
    'output': 'uint8',
    'geometry': True,
    'sources': {
        'Real': {'dataroot_gt': 'real_gt', 'dataroot_lq': 'real_lq', 'weight': 3},
        'Clean': {'dataroot_gt': 'clean_gt', 'dataroot_lq': 'clean_lq', 'weight': 1},
    },
}


def changed(**changes: dict) -> dict:
    """Options in which keys of sources are replaced; None removes one."""
    sources = {name: {**source, **changes.get(name, {})} for name, source in TRAIN['sources'].items()}
    return TRAIN | {
        'sources': {name: {k: v for k, v in source.items() if v is not None} for name, source in sources.items()}
    }


def samples(dataset, count, seed=5):
    return [dataset[SampleId(i % len(dataset), i // len(dataset), i, 1, seed)] for i in range(count)]


@pytest.fixture
def stores(use_stores):
    made = {}
    for offset, (name, sizes) in enumerate(SIZES.items()):
        for kind, scale in (('gt', 2), ('lq', 1)):
            images = {
                k: coordinates(h * scale, w * scale, 100 * offset + i) for i, (k, (h, w)) in enumerate(sizes.items())
            }
            made[f'{name}_{kind}'] = MemoryStore(f'{name}_{kind}', images)
    return use_stores(made)


def test_sources_give_their_shares_and_images_theirs_by_area(stores):
    dataset = MixedStoreDataset(TRAIN)
    assert len(dataset) == 5
    counts = Counter(sample['lq_path'] for sample in samples(dataset, 4000))
    assert sum(n for key, n in counts.items() if key.startswith('Real/')) == pytest.approx(3000, abs=10)
    areas = {key: height * width for key, (height, width) in SIZES['clean'].items()}
    for key, area in areas.items():
        assert counts[f'Clean/{key}'] == pytest.approx(1000 * area / sum(areas.values()), abs=60)


def test_weighted_shares_by_hand():
    sizes = np.array([[1, 1], [1, 3], [2, 2]])
    np.testing.assert_allclose(weighted_shares(sizes, [2, 1], [1, 3]), [1 / 16, 1 / 4, 1])


def test_without_weights_it_is_one_set(stores):
    """As a dataset whose stores hold all images: area counts."""
    dataset = MixedStoreDataset(changed(Real={'weight': None}, Clean={'weight': None}))
    counts = Counter(sample['lq_path'] for sample in samples(dataset, 2000))
    total = sum(height * width for sizes in SIZES.values() for height, width in sizes.values())
    assert counts['Clean/a'] == pytest.approx(2000 * 3000 / total, abs=60)


def test_pixels_come_from_where_the_sample_says(stores):
    dataset = MixedStoreDataset(TRAIN | {'use_hflip': False, 'use_rot': False})
    for sample in samples(dataset, 40):
        geometry = Geometry(*sample['geometry'].tolist())
        name, _, key = sample['lq_path'].partition('/')
        image = stores[f'{name.lower()}_gt'].images[key]
        window = image[geometry.top : geometry.top + 16, geometry.left : geometry.left + 16]
        np.testing.assert_array_equal(sample['gt'].numpy(), window.transpose(2, 0, 1))
        assert dataset.pairs[geometry.image] == (sample['gt_path'], sample['lq_path'])
        half = stores[f'{name.lower()}_lq'].images[key][geometry.top // 2 :, geometry.left // 2 :][:8, :8]
        np.testing.assert_array_equal(sample['lq'].numpy(), half.transpose(2, 0, 1))


@pytest.mark.parametrize('noise', [False, True])
def test_samples_hang_on_their_ids_alone(stores, noise):
    """Read singly, as batches, and by workers."""
    stores['noise'] = MemoryStore('noise', {str(i): speckle(i, 9 + i) for i in range(3)})
    dataset = MixedStoreDataset(changed(Clean={'noise': {'dataroot': 'noise'}}) if noise else TRAIN)
    ids = [SampleId(i % 5, 0, i, 1 + i // 4, 9) for i in range(16)]
    single = [dataset[i] for i in ids]
    for workers in (0, 2):
        loader = DataLoader(dataset, batch_sampler=[ids[i : i + 4] for i in range(0, 16, 4)], num_workers=workers)
        for number, batch in enumerate(loader):
            for place in range(4):
                sample = single[4 * number + place]
                assert torch.equal(batch['lq'][place], sample['lq']) and torch.equal(batch['gt'][place], sample['gt'])
                assert batch['lq_path'][place] == sample['lq_path']


def test_a_folder_of_a_store_is_a_source(use_stores):
    names = ['City/1', 'City/2', 'DIV2K/1', 'Cityscape/1']
    use_stores(
        {kind: MemoryStore(kind, {n: coordinates(20, 20, i) for i, n in enumerate(names)}) for kind in ('gt', 'lq')}
    )
    source = {'dataroot_gt': 'gt', 'dataroot_lq': 'lq'}
    options = TRAIN | {'scale': 1, 'sources': {'A': source | {'folder': 'City'}, 'B': source | {'folder': 'DIV2K/'}}}
    dataset = MixedStoreDataset(options)
    assert [lq for _, lq in dataset.pairs] == ['A/City/1', 'A/City/2', 'B/DIV2K/1']
    assert dataset[0]['lq'].shape == (3, 16, 16)
    options['sources']['A']['folder'] = 'Town'
    with pytest.raises(UserError, match=r'datasets\.train\.sources\.A\.folder: expected a folder of gt, found "Town"'):
        MixedStoreDataset(options)


# ---- noise -----------------------------------------------------------------------------------------------------------


def speckle(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(90, 110, (size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize('output', ['uint8', 'float32'])
def test_noise_is_that_of_the_windows(use_stores, output):
    flat = np.full((20, 20, 3), 100, np.uint8)
    use_stores(
        {'gt': MemoryStore('gt', {'a': flat.repeat(2, 0).repeat(2, 1)}), 'lq': MemoryStore('lq', {'a': flat}),
         'noise': MemoryStore('noise', {'0': speckle(0, 8), '1': speckle(1, 8)})}
    )  # fmt: skip
    source = {'dataroot_gt': 'gt', 'dataroot_lq': 'lq', 'noise': {'dataroot': 'noise'}}
    options = TRAIN | {'output': output, 'sources': {'A': source}}
    expected = []
    for seed in (0, 1):
        window = speckle(seed, 8).astype(np.float64)
        expected.append((100 + window - window.mean((0, 1))).transpose(2, 0, 1))
    seen = set()
    for sample in samples(MixedStoreDataset(options), 30):
        lq = sample['lq'].double().numpy() * (255 if output == 'float32' else 1)
        distances = [np.abs(lq - e).max() for e in expected]
        assert min(distances) <= (0.5001 if output == 'uint8' else 1e-3)
        seen.add(int(np.argmin(distances)))
        assert (sample['gt'] * (255 if output == 'float32' else 1)).round().eq(100).all()
    assert seen == {0, 1}
    source['noise']['probability'] = 0.25
    noisy = [sample['lq'].float().std() > 0 for sample in samples(MixedStoreDataset(options), 400)]
    assert 60 < sum(noisy) < 140


def test_each_source_has_its_own_noise(use_stores):
    """One source gets that of its windows, another that of others, a third none."""
    flat = MemoryStore('flat', {'a': np.full((20, 20, 3), 100, np.uint8)})
    waves = {'weak': 2, 'strong': 20}
    windows = {
        name: MemoryStore(name, {'0': np.tile(np.array([100 - a, 100 + a], np.uint8)[None, :, None], (16, 8, 3))})
        for name, a in waves.items()
    }
    use_stores({'gt': flat, 'lq': flat, **windows})
    pair = {'dataroot_gt': 'gt', 'dataroot_lq': 'lq'}
    sources = {name: pair | {'noise': {'dataroot': name}} for name in waves} | {'clean': pair}
    dataset = MixedStoreDataset(TRAIN | {'scale': 1, 'sources': sources})
    found = {'weak': set(), 'strong': set(), 'clean': set()}
    for sample in samples(dataset, 30):
        found[sample['lq_path'].partition('/')[0]].add((sample['lq'].int() - 100).abs().unique().tolist()[-1])
        assert (sample['gt'] == 100).all()
    assert found == {'weak': {2}, 'strong': {20}, 'clean': {0}}


def test_noise_keeps_to_the_range(use_stores):
    white, black = np.full((20, 20, 3), 255, np.uint8), np.zeros((20, 20, 3), np.uint8)
    images = {'b': black, 'w': white}
    use_stores(
        {name: MemoryStore(name, images) for name in ('gt', 'lq')} | {'n': MemoryStore('n', {'0': speckle(0, 16)})}
    )
    options = TRAIN | {
        'scale': 1, 'sources': {'A': {'dataroot_gt': 'gt', 'dataroot_lq': 'lq', 'noise': {'dataroot': 'n'}}}
    }  # fmt: skip
    for sample in samples(MixedStoreDataset(options), 8):
        lq = sample['lq'].int()
        assert (lq >= 245).all() if sample['lq_path'] == 'A/w' else (lq <= 10).all()


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (TRAIN | {'sources': {}}, r'datasets\.train\.sources: '),
        (TRAIN | {'phase': 'val'}, "expected 'train'|input should be 'train'"),
        (changed(Real={'weight': None}), 'weight for every source or for none, and Real has none'),
        (changed(Real={'weight': 0}), r'datasets\.train\.sources\.Real\.weight: '),
        (changed(Real={'weight': -1}), r'sources\.Real\.weight: input should be greater than 0, found -1'),
        (changed(Real={'weight': float('nan')}), r'sources\.Real\.weight: '),
        (changed(Real={'weight': float('inf')}), r'sources\.Real\.weight: input should be a finite number'),
        (TRAIN | {'sources': {'a/b': TRAIN['sources']['Real']}}, r"datasets\.train\.sources: .*without a slash.*'a/b'"),
        (TRAIN | {'sources': {'': TRAIN['sources']['Real']}}, r"datasets\.train\.sources: .*without a slash"),
        (changed(Real={'dataroot_lq': 'half'}), r'Real\.dataroot_gt \(real_gt\): 2 of 2 images are .* expected 20x30'),
        (changed(Real={'dataroot_gt': None}), r'datasets\.train\.sources\.Real\.dataroot_gt: this option is required'),
        (changed(Real={'dataroot': 'x'}), r'sources\.Real\.dataroot: unknown option; did you mean "dataroot_'),
        (changed(Real={'dataroot_lq': 'nowhere'}), r'datasets\.train\.sources\.Real\.dataroot_lq: nowhere is not'),
        (changed(Real={'dataroot_lq': 'clean_lq'}), r'datasets\.train\.sources\.Real\.dataroot_lq \(clean_lq\) does not hold'),
        (changed(Real={'dataroot_gt': 'real_lq'}), r'sources\.Real\.dataroot_gt \(real_lq\): 2 of 2 images are'),
        (TRAIN | {'gt_size': 64}, r'datasets\.train\.gt_size: 64 needs LQ images of at least 32x32'),
        (changed(Real={'noise': {'dataroot': 'real_lq', 'probability': 2}}), r'noise\.probability'),
        (changed(Real={'noise': {'dataroot': 'nowhere'}}), r'sources\.Real\.noise\.dataroot: nowhere is not'),
        (changed(Real={'noise': {'dataroot': 'tiny'}}), r'sources\.Real\.noise\.dataroot: expected windows of at least 8x8'),
        (changed(Real={'noise': {'dataroot': 'grey'}}), r'noise\.dataroot: expected uint8 images of 3 channels, as the LQ'),
        (changed(Real={'dataroot_gt': 'grey', 'dataroot_lq': 'grey', 'filename_tmpl': '{}'}) | {'scale': 1},
         r'datasets\.train\.sources, dataroot_lq: expected images of one kind, found uint8 images of 1 channel in Real'),
    ],
)  # fmt: skip
def test_refused(stores, options, message):
    halved = {key: coordinates(height // 2, width // 2, 0) for key, (height, width) in SIZES['real'].items()}
    stores['half'] = MemoryStore('half', halved)
    stores['tiny'] = MemoryStore('tiny', {'a': coordinates(7, 40, 0)})
    stores['grey'] = MemoryStore('grey', {'a': coordinates(40, 40, 0)[..., :1].copy()})
    if options['scale'] == 1:
        options['sources']['Clean']['dataroot_gt'] = 'clean_lq'
    with pytest.raises(UserError, match=message):
        MixedStoreDataset(options)


def test_same_size_pairs_need_no_more_than_scale_1(use_stores):
    images = {'a': coordinates(20, 30, 0)}
    use_stores({'gt': MemoryStore('gt', images), 'lq': MemoryStore('lq', images)})
    block = {'name': 'x', 'phase': 'train', 'scale': 1, 'dataroot_gt': 'gt', 'dataroot_lq': 'lq', 'gt_size': 8}
    sample = PairedStoreDataset(block)[SampleId(0, 0, 0, 1, 0)]
    assert sample['lq'].shape == (3, 8, 8) and torch.equal(sample['lq'], sample['gt'])
