"""Cria-CL's option files, run as they are but for small networks, on data that the recipes would make."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from run_helpers import forked

from basicsr_ext.data.mixed_store_dataset import MixedStoreDataset
from basicsr_ext.data.sample_id import SampleId
from basicsr_ext.functional.resize import downsample
from basicsr_ext.options.complete import load_yaml
from basicsr_ext.storage import RawLmdbWriter
from basicsr_ext.trainer.metrics_log import read_metrics

sys.path.insert(0, str(Path(__file__).parent / 'losses'))
from vgg_files import write_vgg

OPTIONS = Path(__file__).parents[1] / 'options'
TRAININGS = sorted(path.name for path in OPTIONS.glob('train_CriaCL_*.yml'))
TESTS = sorted(path.name for path in OPTIONS.glob('test_CriaCL*.yml'))
COMPARED = {'l_align', 'l_unif'}
SMALL = [
    'num_gpu=0', 'network_g:num_feat=4', 'network_g:num_grow_ch=2', 'network_g:num_block=1',
    'logger:use_tb_logger=false', 'logger:print_freq=1',
]  # fmt: skip


def command(root: Path, *arguments: str) -> int:
    from basicsr_ext.cli.main import main

    os.chdir(root)
    return main(list(arguments))


@pytest.fixture(scope='module')
def world(tmp_path_factory, photos):
    """A folder with everything that the option files name, of two photographs."""
    root = tmp_path_factory.mktemp('criacl')
    crops = [image[60 : 60 + 160, 60 : 60 + 160] for image in list(photos.values())[:2]]
    stores: dict[str, dict[str, np.ndarray]] = {}
    folders = {
        'RealSR/train': ['RealSR/a', 'DIV2K/b'], 'RealSR/test': ['a', 'b'],
        'NTIRE2020/train': ['source/a', 'DIV2K/b'], 'NTIRE2020/valid': ['a', 'b'],
        'CameraSR/train': ['City100/a', 'DIV2K/b'], 'CameraSR/test': ['a', 'b'],
        'DF2K/train': ['DIV2K/a', 'Flickr2K/b'], 'DIV2K/valid': ['a', 'b'], 'RealSR-Zero/test': ['a', 'b'],
    }  # fmt: skip
    for folder, names in folders.items():
        lq = {'CameraSR': 'LQ', 'RealSR-Zero': 'LR'}.get(folder.split('/')[0], 'LR_x4')
        for name, crop in zip(names, crops, strict=True):
            small = downsample(crop, 4) if lq == 'LR_x4' else crop
            for kind, image in (('HR', crop), (lq, small)):
                stores.setdefault(f'{folder}_{kind}', {})[name] = image
    noise = np.random.default_rng(0).integers(100, 120, (32, 32, 3)).astype(np.uint8)
    stores['NTIRE2020/noise'] = {'a': noise}
    for path, images in stores.items():
        (root / f'datasets/{path}.lmdb').parent.mkdir(parents=True, exist_ok=True)
        with RawLmdbWriter(root / f'datasets/{path}.lmdb', channels=3, dtype=np.dtype(np.uint8)) as writer:
            for key, image in sorted(images.items()):
                writer.put(key, np.ascontiguousarray(image))
    return root


@pytest.mark.parametrize('name', TRAININGS)
def test_trainings(world, tmp_path, name):
    """One iteration, on the data of the recipes; what is computed is the row's."""
    options = load_yaml(OPTIONS / name)
    vgg = tmp_path / 'vgg19.pth'
    forced = [*SMALL, 'train:total_iter=1', 'datasets:train:batch_size_per_gpu=1', 'datasets:train:num_worker_per_gpu=0',
              'datasets:train:pin_memory=false', 'val:val_freq=1', 'logger:save_checkpoint_freq=1']  # fmt: skip
    if options.get('network_d'):
        forced.append('network_d:num_feat=4')
    for key in ('perceptual_opt', 'cria_opt'):
        if options['train'].get(key):
            forced.append(f'train:{key}:vgg_weights={vgg}')
    if options['train'].get('cria_opt'):
        forced += ['train:cria_opt:bottom_layers=[relu1_1]', 'train:cria_opt:top_layers=[relu2_1]']
    if options['train'].get('perceptual_opt'):
        forced.append('train:perceptual_opt:layer_weights={conv2_1: 1}')
    write_vgg(vgg)
    link = tmp_path / 'datasets'
    link.symlink_to(world / 'datasets')
    assert forked(command, tmp_path, 'train', '-opt', str(OPTIONS / name), '--force_yml', *forced) == 0
    lines = read_metrics(tmp_path / 'experiments' / options['name'] / 'metrics.jsonl')
    (logged,) = [line for line in lines if line['event'] == 'train']
    stem = name.removesuffix('.yml').removeprefix('train_CriaCL_NTIRE2020_x4').strip('_')
    without = {'plain', 'sum', 'projector'}
    expected = set() if stem in without else {'align': {'l_align'}, 'unif': {'l_unif'}}.get(stem, COMPARED)
    assert COMPARED & logged.keys() == expected
    assert ('l_g_gan' in logged) == ('l_percep' in logged) == (stem != 'plain')
    has_projector = stem not in ('plain', 'sum', 'align', 'unif', 'both')
    assert (logged['mask'] != 0.5) == has_projector
    measured = ('pix', 'ssim') if stem == 'plain' else ('pix', 'ssim', 'perc_b', 'perc_t', 'adv')
    assert {key for key in logged if key.startswith('c_')} == {
        f'c_{c}_{v}' for c in measured for v in ('align', 'unif')
    }


@pytest.mark.parametrize('data', ['RealSR', 'NTIRE2020'])
@pytest.mark.parametrize('network', ['EDSR', 'ESRGAN'])
def test_what_is_compared_with_trains_on_the_same_data(world, tmp_path, network, data):
    """One iteration of small networks, and their test; without the perceptual loss, whose weights tests cannot fetch."""
    name = f'{network}_{data}_x4'
    ours = load_yaml(OPTIONS / f'train_CriaCL_{data}_x4.yml')
    options = load_yaml(OPTIONS / f'train_{name}.yml')
    assert options['datasets']['train']['sources'] == ours['datasets']['train']['sources']
    assert options['datasets']['val'] == ours['datasets']['val'] and options['val'] == ours['val']
    small = ['num_gpu=0', 'network_g:num_feat=4', 'network_g:num_block=1', 'logger:use_tb_logger=false']
    few = ['train:total_iter=1', 'datasets:train:batch_size_per_gpu=2', 'datasets:train:num_worker_per_gpu=0']
    few += ['datasets:train:gt_size=128', 'datasets:train:pin_memory=false', 'val:val_freq=1']
    few += ['logger:save_checkpoint_freq=1']
    if network == 'ESRGAN':
        small.append('network_g:num_grow_ch=2')
        few += ['network_d:num_feat=4', 'train:perceptual_opt=~']
    (tmp_path / 'datasets').symlink_to(world / 'datasets')
    train = ('train', '-opt', str(OPTIONS / f'train_{name}.yml'), '--force_yml', *small, *few)
    assert forked(command, tmp_path, *train) == 0
    small.remove('logger:use_tb_logger=false')
    tested = load_yaml(OPTIONS / f'test_{name}.yml')
    assert tested['val']['metrics'].pop('lpips')
    (tmp_path / 'test.yml').write_text(yaml.safe_dump(tested))
    assert forked(command, tmp_path, 'test', '-opt', str(tmp_path / 'test.yml'), '--force_yml', *small) == 0


def test_every_row_of_the_tables_has_a_file():
    rows = {name.removesuffix('.yml').rpartition('_')[2] for name in TRAININGS if 'NTIRE' in name}
    assert rows == {'x4', 'plain', 'sum', 'align', 'unif', 'both', 'projector', 'anchor-adv', 'anchor-per'}


def test_noise_of_ntire2020(world):
    """LR crops of each source get it while the source has its block; HR crops do not."""

    def crops(*noisy: str) -> dict[str, list[torch.Tensor]]:
        block = load_yaml(OPTIONS / 'train_CriaCL_NTIRE2020_x4.yml')['datasets']['train']
        assert all(source['noise']['probability'] == 1 for source in block['sources'].values())
        for name, source in block['sources'].items():
            source.update({key: str(world / source[key]) for key in ('dataroot_gt', 'dataroot_lq')})
            noise = source.pop('noise')
            if name in noisy:
                source['noise'] = {**noise, 'dataroot': str(world / noise['dataroot'])}
        found: dict[str, list[torch.Tensor]] = {'gt': []}
        dataset = MixedStoreDataset({**block, 'phase': 'train', 'scale': 4})
        for position in range(16):
            sample = dataset[SampleId(position % 2, position // 2, position, 1, 0)]
            found.setdefault(sample['lq_path'].partition('/')[0], []).append(sample['lq'].float())
            found['gt'].append(sample['gt'].float())
        return {name: torch.stack(images) for name, images in found.items()}

    clean, one, both = crops(), crops('DIV2K'), crops('DIV2K', 'Flickr2K')
    assert all(torch.equal(clean['gt'], noisy['gt']) for noisy in (one, both))
    assert torch.equal(clean['Flickr2K'], one['Flickr2K']) and torch.equal(one['DIV2K'], both['DIV2K'])
    for name in ('DIV2K', 'Flickr2K'):
        assert (both[name] - clean[name]).std((1, 2, 3)).min() > 3


@pytest.mark.parametrize('name', TESTS)
def test_tests(world, tmp_path, name):
    """Without LPIPS, whose weights tests cannot fetch; NIQE is only checked: untrained networks give it nothing to judge."""
    from basicsr.archs import build_network

    options = load_yaml(OPTIONS / name)
    small = {'num_feat': 4, 'num_grow_ch': 2, 'num_block': 1}
    file = options['path']['pretrain_network_g'] = options['path']['pretrain_network_g'] or 'w/released.pth'
    weights = tmp_path / file
    weights.parent.mkdir(parents=True)
    torch.save({'params': build_network({**options['network_g'], **small}).state_dict()}, weights)
    (tmp_path / 'datasets').symlink_to(world / 'datasets')
    metrics = options['val']['metrics']
    assert all(block['crop_border'] == 4 for key, block in metrics.items() if key != 'lpips')
    assert metrics.get('lpips', {}).get('crop_border', 0) == 0
    metrics.pop('lpips', None)
    path = tmp_path / name
    path.write_text(yaml.safe_dump(options))
    assert forked(command, tmp_path, 'check', '-opt', str(path), '--force_yml', *SMALL[:4]) == 0
    assert ('niqe' in metrics) == ('Zero' in name)
    metrics.pop('niqe', None)
    path.write_text(yaml.safe_dump(options))
    assert forked(command, tmp_path, 'test', '-opt', str(path), '--force_yml', *SMALL[:4]) == 0
    images = list((tmp_path / 'results' / options['name']).rglob('*.png'))
    assert len(images) == 2


def test_the_published_variant():
    from basicsr.archs import build_network

    options = load_yaml(OPTIONS / 'test_CriaCL-release_NTIRE2020_x4.yml')
    with torch.device('meta'):
        network = build_network(options['network_g'])
    assert sum(parameter.numel() for parameter in network.parameters()) == 17_286_473
    assert options['path']['pretrain_network_g'] is None  # the authors' file is named on the command line


def test_the_papers_weights_of_both_terms():
    block = load_yaml(OPTIONS / 'train_CriaCL_RealSR_x4.yml')['train']['cria_opt']
    assert (block['align_weight'], block['unif_weight'], block['eta'], block['t']) == (0.01, 0.01, 2, 2)
    assert block['unif_scale'] == 1
