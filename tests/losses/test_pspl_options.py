"""The option files of PSPL and their plain twins: right in every key, alike but for the loss, and they train."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from run_helpers import run, write_pairs

from basicsr_ext.checking import check_options
from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.losses.pspl_loss import PSPLLoss
from basicsr_ext.options.source import read_source
from basicsr_ext.prepare.lr import make_lr
from basicsr_ext.trainer.metrics_log import read_metrics
from basicsr_ext.trainer.run import test as run_test

OPTIONS = Path(__file__).parents[2] / 'options'
NAMES = ('SRCNN_x4', 'VDSR_x4', 'DRRN_x4', 'LapSRN_x4', 'EDSR_x4', 'EDSR-baseline_x2')
# What pspl.md states of the published training, whatever the network: key path -> value.
SETTINGS = {
    'train.optim_g.type': 'Adam',
    'train.optim_g.lr': 1e-4,
    'train.optim_g.weight_decay': 0,
    'train.optim_g.betas': [0.9, 0.999],
    'train.scheduler.type': 'MultiStepLR',
    'train.scheduler.milestones': [200_000],  # epoch 200 of 300, of 1000 iterations
    'train.scheduler.gamma': 0.5,
    'train.total_iter': 300_000,
    'train.warmup_iter': -1,
    'train.ema_decay': 0,
    'train.pixel_opt.type': 'PSPLLoss',
    'train.pixel_opt.gamma': 2,
    'train.pixel_opt.mu': -1,
    'train.pixel_opt.alpha': 1,
    'train.pixel_opt.beta': 0,
    'train.pixel_opt.step_iters': 1000,
    'train.pixel_opt.reduction': 'mean',
    'datasets.train.batch_size_per_gpu': 16,
    'datasets.train.use_hflip': True,
    'datasets.train.use_rot': True,
    'datasets.train.sampling': 'image',
    'model_type': 'SRModel',
    'path.pretrain_network_g': None,
}
RANGE = {'img_range': 255, 'rgb_mean': [0.4488, 0.4371, 0.4040]}
# By the published templates; without biases the range of the images does not matter.
NETWORKS = {
    'SRCNN_x4': {'type': 'SRCNN', 'in_channels': 3, 'upscale': 1, 'init': 'default', **RANGE},
    'VDSR_x4': {
        'type': 'VDSR', 'in_channels': 3, 'num_feat': 64, 'num_conv': 20, 'upscale': 1, 'bias': True, 'init': 'default',
        **RANGE,
    },
    'DRRN_x4': {
        'type': 'DRRN', 'in_channels': 1, 'num_feat': 128, 'num_block': 1, 'num_unit': 25, 'upscale': 1, 'init': 'default',
        'rectify_start': True,
    },
    'LapSRN_x4': {'type': 'LapSRN', 'in_channels': 1, 'upscale': 4, 'init': 'default'},
    'EDSR_x4': {
        'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 256, 'num_block': 32, 'upscale': 4, 'res_scale': 0.1,
        'img_range': 255, 'rgb_mean': [0.4488, 0.4371, 0.4040],
    },
    'EDSR-baseline_x2': {
        'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16, 'upscale': 2, 'res_scale': 1,
        'img_range': 255, 'rgb_mean': [0.4488, 0.4371, 0.4040],
    },
}  # fmt: skip
NUM_DIV2K = 800
ENLARGED = ('SRCNN_x4', 'VDSR_x4', 'DRRN_x4')  # they take images that are enlarged before, and trained at scale 1
LUMINANCE = ('DRRN_x4', 'LapSRN_x4')
PATCHES = {'SRCNN_x4': 128, 'VDSR_x4': 41, 'DRRN_x4': 192, 'LapSRN_x4': 128, 'EDSR_x4': 192, 'EDSR-baseline_x2': 96}
CRITERIA = {'SRCNN_x4': ('l2', 'MSELoss', 65025), 'LapSRN_x4': ('l2', 'MSELoss', 65025)}
SMALL = {
    'SRCNN_x4': ['num_feat=4', 'num_mapping_feat=4'], 'VDSR_x4': ['num_feat=4', 'num_conv=3'],
    'DRRN_x4': ['num_feat=4', 'num_unit=2'], 'LapSRN_x4': ['num_feat=4', 'num_conv=1'],
    'EDSR_x4': ['num_feat=4', 'num_block=1'], 'EDSR-baseline_x2': ['num_feat=4', 'num_block=1'],
}  # fmt: skip


def path_of(method: str, name: str) -> Path:
    return OPTIONS / f'train_{method}_{name}.yml'


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = tmp_path_factory.mktemp('images')
    for scale in (2, 4):
        write_pairs(root / f'x{scale}', photos, scale, size=192)
    make_lr(root / 'x4/hr', root / 'x4/enlarged', 4, enlarge=True, num_workers=1)
    return root


def scale_of(name: str) -> int:
    """Of the stores."""
    return 1 if name in ENLARGED else int(name[-1])


def on_images(images: Path, name: str) -> list[str]:
    """Assignments that put small images in the place of DIV2K."""
    folder = images / f'x{name[-1]}'
    folders = {'gt': folder / 'hr', 'lq': folder / ('enlarged' if name in ENLARGED else 'lr')}
    return [f'datasets:{d}:dataroot_{key}={folder}' for d in ('train', 'val') for key, folder in folders.items()]


@pytest.mark.parametrize('name', NAMES)
def test_a_file_and_its_twin_differ_in_the_loss_alone(images, tmp_path, name):
    sources = {method: read_source(path_of(method, name), on_images(images, name)) for method in ('PSPL', 'plain')}
    for source in sources.values():
        report = check_options(source, is_train=True, root=tmp_path)
        assert [str(problem) for problem in report.problems] == []
    values = {method: dict(source.values) for method, source in sources.items()}
    losses = {}
    for method, options in values.items():
        assert options.pop('name') == f'train_{method}_{name}'
        losses[method] = options['train'].pop('pixel_opt')
    assert values['PSPL'] == values['plain']
    criterion, plain, weight = CRITERIA.get(name, ('l1', 'L1Loss', 255))
    assert losses['plain'] == {'type': plain, 'loss_weight': weight, 'reduction': 'mean'}
    assert losses['PSPL']['criterion'] == criterion and losses['PSPL']['loss_weight'] == weight
    assert losses['PSPL']['data_range'] * 255 == 1
    assert values['plain']['scale'] == values['plain']['network_g']['upscale'] == scale_of(name)


def at(options: dict, path: str):
    for key in path.split('.'):
        options = options[key]
    return options


@pytest.mark.parametrize('name', NAMES)
def test_settings_are_the_published_ones(name):
    options = dict(read_source(path_of('PSPL', name), []).values)
    assert {path: at(options, path) for path in SETTINGS} == SETTINGS
    assert options['network_g'] == NETWORKS[name]

    scale, train = int(name[-1]), options['datasets']['train']
    assert train['gt_size'] == PATCHES[name]
    assert NUM_DIV2K * train['dataset_enlarge_ratio'] / train['batch_size_per_gpu'] == 1000  # iterations of an epoch
    for block, folder in (('train', 'train'), ('val', 'valid')):
        stores = options['datasets'][block]
        assert stores['dataroot_gt'] == f'datasets/DIV2K/{folder}_HR.lmdb'
        enlarged = '_enlarged' if name in ENLARGED else ''
        assert stores['dataroot_lq'] == f'datasets/DIV2K/{folder}_LR_x{scale}{enlarged}.lmdb'
        assert stores.get('color') == ('y' if name in LUMINANCE else None)

    loss = PSPLLoss(**{key: value for key, value in options['train']['pixel_opt'].items() if key != 'type'})
    published = SSIMSettings(data_range=1 / 255, k1=0.01, k2=0.03, window_size=11, sigma=1.5)
    assert loss.settings == published and published.c1 * 255**2 == pytest.approx(0.01**2)
    assert published.c2 * 255**2 == pytest.approx(0.03**2)
    assert loss.iteration == 0 and loss.criterion == CRITERIA.get(name, ('l1',))[0]

    border, luminance = (scale + 6, False) if name == 'EDSR-baseline_x2' else (scale, True)  # Fig. 4: on RGB
    for metric in options['val']['metrics'].values():
        assert (metric['crop_border'], metric['test_y_channel']) == (border, luminance)


@pytest.mark.parametrize('name', NAMES)
def test_a_small_network_trains(images, tmp_path, name):
    small = [f'network_g:{assignment}' for assignment in SMALL[name]]
    few = ['train:total_iter=2', 'datasets:train:gt_size=32', 'datasets:train:batch_size_per_gpu=2', 'val:val_freq=2']
    few += ['logger:print_freq=2', 'datasets:train:num_worker_per_gpu=0', 'num_gpu=0', 'logger:use_tb_logger=false']
    few += ['datasets:train:pin_memory=false']
    assert run(tmp_path, path_of('PSPL', name), '--force_yml', *on_images(images, name), *small, *few) == 0
    lines = read_metrics(tmp_path / f'experiments/train_PSPL_{name}/metrics.jsonl')
    (line,) = [line for line in lines if line['event'] == 'train']
    assert line['pspl_delta'] == pytest.approx(0.002) and 0 <= line['pspl_attention'] <= 2
    assert (tmp_path / f'experiments/train_PSPL_{name}/models/net_g_2.pth').exists()


TESTS = ('SRCNN_x4', 'VDSR_x4', 'DRRN_x4', 'LapSRN_x4', 'EDSR_x4')


@pytest.mark.parametrize('name', TESTS)
def test_published_evaluation(images, tmp_path, name):
    """HR and LR images by Pillow, SSIM by the published code's own routine, each network as it was trained."""
    path = OPTIONS / f'test_PSPL-published_{name}.yml'
    options = read_source(path).values
    trained = read_source(path_of('PSPL', name)).values
    for key in ('scale', 'network_g'):
        assert options[key] == trained[key]
    assert options['path']['pretrain_network_g'] == f'experiments/train_PSPL_{name}/models/net_g_latest.pth'
    enlarged = '_enlarged' if name in ENLARGED else ''
    for number, folder in enumerate(('Set5', 'Set14', 'BSD100', 'Urban100'), 1):
        block = options['datasets'][f'test_{number}']
        assert block['dataroot_gt'] == f'datasets/benchmark/{folder}_HR_x4_pillow.lmdb'
        assert block['dataroot_lq'] == f'datasets/benchmark/{folder}_LR_x4_pillow{enlarged}.lmdb'
        assert block.get('color') == ('y' if name in LUMINANCE else None)
    metrics = options['val']['metrics']
    assert metrics['psnr'] == {'type': 'PSNR', 'crop_border': 4, 'test_y_channel': True}
    assert metrics['ssim'] == {'type': 'SSIM', 'protocol': 'pspl', 'crop_border': 0, 'test_y_channel': True}

    few = [
        assignment.replace(':train:', ':test_1:') for assignment in on_images(images, name) if ':train:' in assignment
    ]
    few += [f'datasets:test_{number}=~' for number in (2, 3, 4)]
    few += [f'network_g:{assignment}' for assignment in SMALL[name]] + ['num_gpu=0']
    few.append(f'path:pretrain_network_g={tmp_path / "weights.pth"}')
    network = build_network(dict(read_source(path, few).values['network_g']))
    torch.save({'params': network.state_dict()}, tmp_path / 'weights.pth')
    result = run_test(read_source(path, few).values, root=tmp_path)
    assert all(0 < score['ssim'] <= 1 and score['psnr'] > 0 for score in result.scores['Set5'].values())
