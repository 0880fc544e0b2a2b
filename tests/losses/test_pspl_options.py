"""The option files of PSPL and their plain twins: right in every key, alike but for the loss, and they train."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from pathlib import Path

import pytest
from run_helpers import run, write_pairs

from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.losses.pspl_loss import PSPLLoss
from basicsr_ext.trainer.checking import check_options
from basicsr_ext.trainer.checking.source import read_source

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
    'model_type': 'SRModel',
    'path.pretrain_network_g': None,
}
NETWORKS = {
    'SRCNN_x4': {'type': 'SRCNN', 'in_channels': 3, 'upscale': 4},
    'VDSR_x4': {'type': 'VDSR', 'in_channels': 3, 'upscale': 4},
    'DRRN_x4': {'type': 'DRRN', 'in_channels': 3, 'num_feat': 128, 'num_block': 1, 'num_unit': 25, 'upscale': 4},
    'LapSRN_x4': {'type': 'LapSRN', 'in_channels': 3, 'upscale': 4},
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
    return root


def on_images(images: Path, scale: int) -> list[str]:
    """Assignments that put small images in the place of DIV2K."""
    folders = {'gt': images / f'x{scale}/hr', 'lq': images / f'x{scale}/lr'}
    return [f'datasets:{d}:dataroot_{key}={folder}' for d in ('train', 'val') for key, folder in folders.items()]


@pytest.mark.parametrize('name', NAMES)
def test_a_file_and_its_twin_differ_in_the_loss_alone(images, tmp_path, name):
    sources = {
        method: read_source(path_of(method, name), on_images(images, int(name[-1]))) for method in ('PSPL', 'plain')
    }
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
    assert values['plain']['scale'] == values['plain']['network_g']['upscale'] == int(name[-1])


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
    assert train['gt_size'] == 48 * scale
    assert NUM_DIV2K * train['dataset_enlarge_ratio'] / train['batch_size_per_gpu'] == 1000  # iterations of an epoch
    for block, folder in (('train', 'train'), ('val', 'valid')):
        stores = options['datasets'][block]
        assert stores['dataroot_gt'] == f'datasets/DIV2K/{folder}_HR.lmdb'
        assert stores['dataroot_lq'] == f'datasets/DIV2K/{folder}_LR_x{scale}.lmdb'

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
    few += ['datasets:train:num_worker_per_gpu=0', 'num_gpu=0', 'logger:use_tb_logger=false']
    few += ['datasets:train:pin_memory=false']
    assert run(tmp_path, path_of('PSPL', name), '--force_yml', *on_images(images, int(name[-1])), *small, *few) == 0
    assert (tmp_path / f'experiments/train_PSPL_{name}/models/net_g_2.pth').exists()
