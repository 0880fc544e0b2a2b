"""Runs that cannot work although every option is right by itself are refused before anything is made."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import basicsr_ext

basicsr_ext.register()

import numpy as np
import pytest
import torch
from fuzz.option_bases import real_esrgan_options
from option_checks import changed, problems, report_on
from run_helpers import (
    TINY_EDSR,
    eco_options,
    gan_options,
    sr_options,
    write_centroids,
    write_images,
    write_options,
    write_pairs,
    write_weights,
)

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter, open_store
from basicsr_ext.trainer import run
from basicsr_ext.trainer.checkpoints import check_same_run, newest_state


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos) -> Path:
    """A folder with tiny images and their centroids; read only."""
    root = tmp_path_factory.mktemp('impossible')
    write_pairs(root, photos)
    write_centroids(root)
    return root


# ---- the data --------------------------------------------------------------------------------------------------------


def test_a_batch_larger_than_an_epoch(images, monkeypatch):
    for make in (sr_options, eco_options):
        options = changed(make(images), 'datasets.train.batch_size_per_gpu', 11)
        expected = (
            'datasets.train.batch_size_per_gpu: 11 samples on each of 1 ranks are more than an epoch of 5 x 2. Lower it, or '
            'raise dataset_enlarge_ratio.'
        )
        assert problems(options, images) == [expected]
        assert problems(changed(options, 'datasets.train.batch_size_per_gpu', 10), images) == []
    monkeypatch.setenv('WORLD_SIZE', '3')
    options = changed(sr_options(images), 'datasets.train.batch_size_per_gpu', 4)
    assert '4 samples on each of 3 ranks' in problems(options, images, launcher='pytorch')[0]


def test_an_epoch_that_no_memory_holds(images):
    options = changed(sr_options(images), 'datasets.train.dataset_enlarge_ratio', 1e10)
    assert 'dataset_enlarge_ratio: expected an epoch of at most' in problems(options, images)[0]


def test_a_crop_larger_than_the_smallest_image(images):
    options = changed(sr_options(images), 'datasets.train.gt_size', 64)
    assert problems(options, images) == [
        'datasets.train.gt_size: 64 is more than the smallest GT image has: astronaut.png is 48x60.'
    ]
    options = changed(eco_options(images), 'datasets.train.gt_size', 64)
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith(
        'datasets.train.gt_size: 64 needs LQ images of at least 32x32 pixels'
    )


def test_a_crop_that_is_no_multiple_of_the_scale(images):
    options = changed(sr_options(images), 'datasets.train.gt_size', 15)
    assert 'datasets.train.gt_size: expected a multiple of scale (2), found 15.' in problems(options, images)


def test_images_that_do_not_fit_together(images, tmp_path):
    shutil.copytree(images / 'hr', tmp_path / 'hr')
    shutil.copytree(images / 'lr', tmp_path / 'lr')
    (tmp_path / 'lr/chelsea.png').unlink()
    found = problems(sr_options(tmp_path), tmp_path)
    assert found[0].startswith('datasets.train: PairedImageDataset cannot be made from these files (')
    write_images(tmp_path / 'lr', {'chelsea': np.zeros((20, 30, 3), np.uint8)})
    found = problems(sr_options(tmp_path), tmp_path)
    assert len(found) == 1 and found[0].startswith(
        'datasets.train.dataroot_lq: expected LQ images 2 times smaller than the GT'
    )
    assert 'of chelsea.png GT is 48x60 and LQ 20x30' in found[0]


def test_lmdbs_of_basicsr(images, tmp_path):
    for part in ('hr', 'lr'):
        store = open_store(images / part)
        with BasicSRLmdbWriter(tmp_path / f'{part}.lmdb') as writer:
            for key in store.keys():
                writer.put(key, store.read(key))
    options = sr_options(images)
    options['datasets']['train'].update(
        dataroot_gt=f'{tmp_path}/hr.lmdb', dataroot_lq=f'{tmp_path}/lr.lmdb', io_backend={'type': 'lmdb'}
    )
    assert problems(options, tmp_path) == []
    assert (
        'is more than the smallest GT image has'
        in problems(changed(options, 'datasets.train.gt_size', 64), tmp_path)[0]
    )
    options['datasets']['train']['gt_size'] = 16
    options['datasets']['train']['io_backend'] = {'type': 'disk'}
    assert problems(options, tmp_path)[0].startswith('datasets.train.io_backend.type: expected lmdb, since ')
    options['datasets']['train'].update(io_backend={'type': 'lmdb'}, dataroot_gt=f'{images}/hr')
    assert 'which lacks data.mdb and meta_info.txt' in problems(options, tmp_path)[0]


def test_small_images_far_back_in_a_folder(tmp_path, photos):
    """Every header is read, however many there are below the limit; `thorough` knows no limit."""
    write_pairs(tmp_path, {'image': photos['chelsea']})
    for part, side in (('hr', 12), ('lr', 6)):
        file = tmp_path / part / 'image.png'
        for number in range(300):
            (tmp_path / part / f'{number:03}.png').hardlink_to(file)
        write_images(tmp_path / part, {'zzz': np.zeros((side, side, 3), np.uint8)})
    expected = ['datasets.train.gt_size: 16 is more than the smallest GT image has: zzz.png is 12x12.']
    options = changed(sr_options(tmp_path), 'datasets.val', None)
    options['val'] = None
    assert problems(options, tmp_path) == expected
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('basicsr_ext.checking.dataset_contents._MANY', 100)
        assert problems(options, tmp_path) == []
        assert problems(options, tmp_path, thorough=True) == expected


def test_a_folder_that_is_too_large_for_a_look_before_the_run(images, tmp_path, monkeypatch):
    """BasicSR asserts that there are as many LQ as GT images, when the run makes the dataset."""
    shutil.copytree(images / 'hr', tmp_path / 'hr')
    shutil.copytree(images / 'lr', tmp_path / 'lr')
    (tmp_path / 'lr/chelsea.png').unlink()
    monkeypatch.setattr('basicsr_ext.checking.dataset_contents._MANY', 1)
    options = sr_options(tmp_path)
    assert problems(options, tmp_path) == []
    expected = 'Dataset train: PairedImageDataset cannot be made from these files .*different number of images: 4, 5'
    with pytest.raises(UserError, match=expected):
        run.train(options, root=tmp_path)
    options['datasets'] = {
        'test': options['datasets']['val'] | {'dataroot_gt': f'{tmp_path}/hr', 'dataroot_lq': f'{tmp_path}/lr'}
    }
    options['path'] = {'pretrain_network_g': write_weights(tmp_path / 'a.pth')}
    with pytest.raises(UserError, match=expected.replace('train', 'val')):
        run.test({**options, 'val': {'save_img': False}}, root=tmp_path)


def test_folders_in_a_folder_are_counted_only_where_they_are_read(images, tmp_path, monkeypatch):
    shutil.copytree(images, tmp_path, dirs_exist_ok=True)
    shutil.copytree(images / 'hr', tmp_path / 'hr/more')
    monkeypatch.setattr('basicsr_ext.checking.dataset_contents._MANY', 6)
    options = changed(sr_options(tmp_path), 'datasets.train.gt_size', 64)
    assert any('more than the smallest GT image' in found for found in problems(options, tmp_path))


def test_an_empty_folder(images, tmp_path):
    for part in ('hr', 'lr'):
        (tmp_path / part).mkdir()
    assert problems(sr_options(tmp_path), tmp_path)[0] == 'datasets.train: expected images, found none.'


# ---- validation ------------------------------------------------------------------------------------------------------


def test_metrics_without_gt(images):
    options = sr_options(images)
    options['datasets']['val'] = {
        'name': 'val', 'type': 'SingleImageDataset', 'dataroot_lq': f'{images}/lr', 'io_backend': {'type': 'disk'},
    }  # fmt: skip
    assert problems(options, images) == [
        'datasets.val: expected GT images, which psnr in val.metrics compare with, but SingleImageDataset gives none.'
    ]
    options['val']['metrics'] = {'niqe': {'type': 'calculate_niqe', 'crop_border': 0, 'better': 'lower'}}
    assert problems(options, images) == []
    options['val']['metrics'] = None
    assert problems(options, images) == []
    options['datasets']['val'] = {'name': 'val', 'type': 'PairedStoreDataset', 'dataroot_lq': f'{images}/lr'}
    options['val']['metrics'] = {'p': {'type': 'calculate_psnr', 'crop_border': 0}}
    assert problems(options, images) == [
        'datasets.val: expected GT images, which p in val.metrics compare with, but dataroot_gt is not set.'
    ]


def test_metrics_that_are_not_ready(images):
    from basicsr.utils.registry import METRIC_REGISTRY

    def calculate_needy(img, **kwargs):
        return 0.0

    def check_ready(weights=None):
        raise basicsr_ext.UserError(f'expected its weights at {weights}, found none.')

    calculate_needy.check_ready = check_ready
    METRIC_REGISTRY.register(calculate_needy)
    options = sr_options(images)
    options['val']['metrics'] = {'needy': {'type': 'calculate_needy', 'weights': '/w.pth', 'better': 'lower'}}
    assert problems(options, images) == ['val.metrics.needy: expected its weights at /w.pth, found none.']


# ---- loaders, schedules, networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({'datasets.train.persistent_workers': True}, 'datasets.train.persistent_workers: expected false'),
        (
            {'datasets.val.persistent_workers': True, 'datasets.val.num_worker_per_gpu': 2},
            'datasets.val.persistent_workers',
        ),
        ({'datasets.train.prefetch_mode': 'cuda', 'num_gpu': 'auto'}, 'datasets.train.pin_memory: expected true'),
        (
            {'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [1, 1]}},
            'train.scheduler: Scheduler CosineAnnealingRestartLR: periods and restart_weights should have the same length.',
        ),
        (
            {'train.scheduler': {'type': 'OneCycleLR', 'max_lr': 1e-3, 'total_steps': 2}},
            'train.scheduler: OneCycleLR has no learning rate for iteration 4, and train.total_iter is 4 (Tried to step 3 ',
        ),
        (
            {'train.scheduler': {'type': 'OneCycleLR', 'max_lr': 1e-3, 'epochs': 1, 'steps_per_epoch': 2}},
            'train.scheduler: OneCycleLR has no learning rate for iteration 4',
        ),
        (
            {'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [2]}},
            'train.scheduler: CosineAnnealingRestartLR has no learning rate for iteration 4, and train.total_iter is 4 '
            '(periods last 2 iterations).',
        ),
        (
            {
                'train.scheduler': {
                    'type': 'CosineAnnealingRestartLR',
                    'periods': [200_000, 299_998],
                    'restart_weights': [1, 1],
                },
                'train.total_iter': 500_000,
            },
            'train.scheduler: CosineAnnealingRestartLR has no learning rate for iteration 500,000',
        ),
        (
            {
                'train.optim_g': {'type': 'Adagrad', 'lr': 1e-3},
                'train.scheduler': {'type': 'CyclicLR', 'base_lr': 1e-4, 'max_lr': 1e-3},
            },
            'train.scheduler: Scheduler CyclicLR: optimizer must support momentum',
        ),
        (
            {'train.optim_g': {'type': 'SparseAdam', 'lr': 1e-3}},
            'train.optim_g: SparseAdam does not work with these options (',
        ),
        (
            {'train.optim_g': {'type': 'AdaHessian', 'lr': 1e-3}},
            'train.optim_g: AdaHessian does not work with these options (',
        ),
        pytest.param(
            {'train.optim_g': {'type': 'SophiaH', 'lr': 1e-3}},
            'train.optim_g: SophiaH does not work with these options (',
            marks=pytest.mark.skipif(int(version('pytorch_optimizer').split('.')[0]) < 4, reason='it works there'),
        ),
        (
            {'train.optim_g': {'type': 'Adam', 'lr': 1e-3, 'differentiable': True}},
            'train.optim_g: Adam does not work with these options (RuntimeError: ',
        ),
        (
            {'train.optim_g': {'type': 'Adam', 'lr': 1e-3, 'capturable': True}},
            'train.optim_g.capturable: expected false, since this run uses no GPU.',
        ),
        (
            {'datasets.val': None, 'logger.keep_best': 'psnr'},
            'logger.keep_best: expected a dataset such as datasets.val',
        ),
        (
            {'val.metrics': None, 'logger.keep_best': 'psnr'},
            'logger.keep_best: expected the name of a score of val.metrics',
        ),
        (
            {'network_g': {'type': 'VGGFeatureExtractor', 'layer_name_list': ['conv1_1']}},
            'network_g.type: expected a network that makes images, found VGGFeatureExtractor',
        ),
    ],
)
def test_options_that_contradict_each_other(images, changes, expected):
    options = sr_options(images)
    for path, value in changes.items():
        options = changed(options, path, value)
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith(expected), found


def test_periods_that_outlast_the_training_are_a_warning(images):
    options = changed(sr_options(images), 'train.scheduler', {'type': 'CosineAnnealingRestartLR', 'periods': [4]})
    assert report_on(options, images).warnings == []
    report = report_on(changed(options, 'train.scheduler.periods', [1200]), images)
    assert report.problems == []
    assert [str(warning) for warning in report.warnings] == [
        'train.scheduler.periods: they last 1,200 iterations and train.total_iter is 4: the learning rate will not come to '
        'its end.'
    ]


@pytest.mark.parametrize(
    'changes',
    [
        {
            'train.scheduler': {'type': 'OneCycleLR', 'max_lr': 1e-3, 'total_steps': 3}
        },  # three steps for four iterations
        {
            'train.scheduler': {
                'type': 'CosineAnnealingRestartLR',
                'periods': [200_000, 300_000],
                'restart_weights': [1, 1],
            },
            'train.total_iter': 500_000,
        },
        {'train.optim_g': {'type': 'Adam', 'lr': 1e-3, 'capturable': True}, 'num_gpu': 1},
        {
            'datasets.train.persistent_workers': True,
            'datasets.train.num_worker_per_gpu': 1,
            'datasets.train.prefetch_mode': 'cpu',
        },
    ],
)
def test_options_that_only_seem_to_contradict_each_other(images, changes):
    options = sr_options(images)
    for path, value in changes.items():
        options = changed(options, path, value)
    assert problems(options, images, launcher=None) == []


def test_optimizers_of_both_players_meet_the_scheduler(images):
    options = gan_options(images)
    options['train']['optim_d'] = {'type': 'Adagrad', 'lr': 1e-3}
    options['train']['scheduler'] = {'type': 'CyclicLR', 'base_lr': 1e-4, 'max_lr': 1e-3}
    assert problems(options, images) == [
        'train.scheduler: Scheduler CyclicLR: optimizer must support momentum or beta1 with `cycle_momentum` option enabled'
    ]


def test_a_discriminator_of_another_size(images):
    options = gan_options(images)
    options['network_d'] = {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4, 'input_size': 128}
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith('network_d: VGGStyleDiscriminator does not take images of 3x16x16 (')
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 1}
    assert 'a convolution expects 1 channels, and gets 3' in problems(options, images)[0]


@pytest.mark.parametrize(
    'network',
    [
        {'type': 'HAN', 'num_feat': 16, 'num_group': 1, 'num_block': 1},
        {'type': 'VDSR', 'in_channels': 3, 'num_feat': 8, 'num_conv': 3},
        {'type': 'DRRN', 'in_channels': 3, 'num_feat': 8, 'num_unit': 2},
        {'type': 'SRCNN', 'in_channels': 3},
    ],
    ids=lambda block: block['type'],
)
def test_networks_that_keep_their_precision_are_tried_too(images, tmp_path, network):
    options = changed(sr_options(images), 'network_g', {**network, 'upscale': 2})
    assert problems(options, images) == []
    options['network_g']['upscale'] = 4
    name = network['type']
    assert problems(options, images)[0].startswith(
        f'network_g: {name} makes images of 3x32x32 out of LQ images of 3x8x8 as datasets.train has, expected 3x16x16'
    )
    grey = 'num_in_ch' if name == 'HAN' else 'in_channels'
    options['network_g'].update(
        {'upscale': 2, grey: 1, 'rgb_mean': [0.5]} if name == 'HAN' else {'upscale': 2, grey: 1}
    )
    assert 'a convolution expects 1 channels, and gets 3' in problems(options, images)[0]
    teacher = {'network': {**network, 'upscale': 4}, 'weights': write_weights(tmp_path / 'w.pth')}
    found = problems(eco_options(images, teacher=teacher), images)
    assert any(text.startswith(f'train.eco.teacher.network: {name} makes images of 3x32x32') for text in found)


def test_networks_that_compute_with_their_values_are_tried_on_the_cpu(images, monkeypatch):
    """Whatever fails without pixels is no pass."""
    from basicsr.archs.edsr_arch import EDSR

    build, forward = EDSR.__init__, EDSR.forward

    def build_by_values(self, *arguments, **named):
        build(self, *arguments, **named)
        self.range = float(self.conv_first.weight.abs().max())

    def forward_by_values(self, x):
        return forward(self, x if float(x.max()) < 2 else x / x.max())

    monkeypatch.setattr(EDSR, 'forward', forward_by_values)
    assert problems(sr_options(images), images) == []
    wrong = 'network_g: EDSR makes images of 3x32x32 out of LQ images of 3x8x8 as datasets.train has'
    assert problems(changed(sr_options(images), 'network_g.upscale', 4), images)[0].startswith(wrong)
    large = changed(sr_options(images), 'datasets.train.gt_size', 48)
    wrong = (
        'network_g: EDSR makes images of 3x64x64 out of LQ images of 3x16x16 as datasets.train has, expected 3x32x32'
    )
    assert problems(changed(large, 'network_g.upscale', 4), images)[0].startswith(wrong)
    monkeypatch.setattr(EDSR, '__init__', build_by_values)
    assert problems(large, images)[0].startswith(wrong)
    assert problems(sr_options(images), images) == []
    monkeypatch.setattr(EDSR, 'forward', lambda self, x, level: x)
    assert 'network_g: EDSR does not take images of 3x8x8 (TypeError: ' in problems(sr_options(images), images)[0]
    monkeypatch.setattr(EDSR, 'forward', lambda self, x: compiled_for_a_gpu(x))  # noqa: F821
    assert "(NameError: name 'compiled_for_a_gpu' is not defined)." in problems(sr_options(images), images)[0]
    report = report_on(sr_options(images, num_gpu=1), images, launcher=None)
    assert report.problems == []
    assert 'network_g: EDSR was not tried on images: it does not run on the CPU' in str(report.warnings[-1])


def test_grey_images_for_a_colour_network(images, tmp_path):
    rng = np.random.default_rng(0)
    for part, side in (('hr', 32), ('lr', 16)):
        with RawLmdbWriter(tmp_path / f'{part}.lmdb', channels=1, dtype=np.uint8) as writer:
            for key in ('a', 'b'):
                writer.put(key, rng.integers(0, 256, (side, side, 1), np.uint8))
    options = sr_options(images)
    options['datasets']['val'] = {
        'name': 'v', 'type': 'PairedStoreDataset', 'dataroot_gt': f'{tmp_path}/hr.lmdb', 'dataroot_lq': f'{tmp_path}/lr.lmdb'
    }  # fmt: skip
    options['network_g'] = {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 2}
    assert problems(options, images) == [
        'network_g: MSRResNet does not take images of 1x48x48 (a convolution expects 3 channels, and gets 1). The images are '
        'grey. For a network in colour make their store with basicsr prepare lmdb --channels 3, and the LR images from that '
        'store; of folders, set channels: 3 in the block of the dataset.'
    ]


def test_real_esrgan_pool_and_kernels(images):
    (images / 'meta.txt').write_text(''.join(f'{path.name}\n' for path in (images / 'hr').iterdir()))
    options = real_esrgan_options(images)
    assert problems(options, images) == []
    assert 'queue_size: expected a multiple of batch_size_per_gpu (2), found 5.' in problems(
        changed(options, 'queue_size', 5), images
    )
    options['queue_size'] = 4
    options['train'].update(ldl_opt={'type': 'L1Loss'}, ema_decay=0)
    assert problems(options, images) == [
        'train.ldl_opt: expected train.ema_decay too: this loss compares with the averaged network.'
    ]
    del options['train']['ldl_opt']
    options['datasets']['train']['kernel_prob'] = [1.0]
    assert 'datasets.train.kernel_prob: expected a share for each of the kernels, not all 0.' in problems(
        options, images
    )
    options['datasets']['train'] = sr_options(images)['datasets']['train']
    assert 'datasets.train.type: expected RealESRGANDataset' in problems(options, images)[0]
    options['high_order_degradation'] = False
    del options['resize_prob'], options['gt_size']
    assert problems(options, images) == []


def test_models_check_options_together(images):
    options = eco_options(images)
    options['datasets']['train'] = sr_options(images)['datasets']['train']
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith(
        'datasets.train.type: objective eco needs centroids: expected PairedCentroidDataset'
    )
    assert problems(changed(options, 'train.eco.objective', 'vanilla'), images) == []
    options['train']['accumulate'] = 3
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith('train.accumulate: 3 does not divide')


def test_a_stock_model_takes_no_stored_integers(images):
    """It would train on images in [0, 255], or fail in the first iteration."""
    options = sr_options(images)
    data = options['datasets']['train']
    data.update(type='PairedStoreDataset', output='uint8')
    data.pop('io_backend')
    assert problems(options, images) == [
        'datasets.train.output: expected float32, since SRModel takes images in [0, 1], found uint8. TrainingModel takes both.'
    ]
    assert problems(changed(options, 'datasets.train.output', 'float32'), images) == []
    assert problems(changed({**options, 'model_type': 'TrainingModel'}, 'datasets.train.output', 'uint8'), images) == []


def test_metrics_are_tried_on_an_image_before_a_run(images, tmp_path, capsys, monkeypatch):
    from basicsr.utils.registry import METRIC_REGISTRY

    def calculate_lost(img, img2, **kwargs):
        raise FileNotFoundError('weights.pth')

    METRIC_REGISTRY.register(calculate_lost)
    options = sr_options(images)
    options['val']['metrics'].update(lost={'type': 'calculate_lost'}, cut={'type': 'calculate_psnr', 'crop_border': 50})
    assert problems(options, images) == []
    assert problems(options, images, rehearse=True) == [
        'val.metrics.lost: calculate_lost fails on the first image of validation (FileNotFoundError: weights.pth).',
        'val.metrics.cut: calculate_psnr fails on the first image of validation (ValueError: the result is not a number; '
        'crop_border may leave no pixels).',
    ]
    monkeypatch.chdir(tmp_path)
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 2
    assert 'calculate_lost fails' in capsys.readouterr().err and not (tmp_path / 'experiments').exists()


def test_metrics_are_tried_on_a_made_up_image_where_validation_is_not_opened(images, tmp_path):
    from basicsr.utils.registry import METRIC_REGISTRY

    seen = []

    def calculate_gone(img, img2, **kwargs):
        seen.append((img, img2))
        raise FileNotFoundError('weights.pth')

    METRIC_REGISTRY.register(calculate_gone)
    options = sr_options(images, model_type='VideoBaseModel')
    for part in ('gt', 'lq'):
        (tmp_path / part).mkdir()
    options['datasets']['val'] = {
        'name': 'REDS4', 'type': 'VideoTestDataset', 'dataroot_gt': f'{tmp_path}/gt', 'dataroot_lq': f'{tmp_path}/lq',
        'cache_data': False, 'io_backend': {'type': 'disk'}, 'num_frame': 3, 'padding': 'reflection',
    }  # fmt: skip
    quick = {name: {'type': f'calculate_{name}', 'crop_border': 2} for name in ('psnr', 'ssim', 'niqe')}
    quick['niqe']['better'] = 'lower'
    options['val']['metrics'] = {**quick, 'gone': {'type': 'calculate_gone'}}
    (on_cpu,) = problems(options, images)
    assert on_cpu == 'num_gpu: expected GPUs, since VideoBaseModel gathers val.metrics there, found 0.'
    options['num_gpu'] = 1
    assert problems(options, images, rehearse=True, launcher=None) == [
        'val.metrics.gone: calculate_gone fails on a made-up image (FileNotFoundError: weights.pth).'
    ]
    assert (
        seen[0][0].shape == seen[0][1].shape == (520, 520, 3)
    )  # 512, and crop_border twice on either side, in LQ pixels


# ---- weights ---------------------------------------------------------------------------------------------------------


def test_weights_that_cannot_start_a_network(images, tmp_path):
    from basicsr.archs import build_network

    options = changed(sr_options(images), 'path.pretrain_network_g', f'{tmp_path}/w.pth')
    options['network_g']['num_block'] = 5
    torch.save({'params': build_network(options['network_g']).state_dict()}, tmp_path / 'w.pth')
    assert problems(options, tmp_path) == []
    wider = build_network({**options['network_g'], 'num_feat': 6})
    torch.save({'params': wider.state_dict()}, tmp_path / 'w.pth')
    found = problems(options, tmp_path)
    assert len(found) == 1 and ' of another shape (' in found[0]
    assert found[0].startswith(f'path.pretrain_network_g: Weights {tmp_path}/w.pth do not fit EDSR: of 28 tensors ')
    assert problems(changed(options, 'path.strict_load_g', False), tmp_path) == []
    options['path']['strict_load_g'] = True
    assert problems(changed(options, 'path.pretrain_network_g_leave_out', ['conv', 'body', 'upsample']), tmp_path) == []
    del options['path']['pretrain_network_g_leave_out']
    for content, kind in (
        (b'', 'an empty file'),
        (b'text', 'a text file ("text")'),
        (b'\x07\xff' * 50, 'unknown bytes'),
    ):
        (tmp_path / 'w.pth').write_bytes(content)
        found = problems(options, tmp_path)
        assert len(found) == 1 and found[0] == (
            f'path.pretrain_network_g: Weights {tmp_path}/w.pth: expected a file that torch.save wrote, or one of '
            f'safetensors, found {kind}.'
        )
    torch.save(wider, tmp_path / 'w.pth')  # a whole module
    assert ' of another shape (' in problems(options, tmp_path)[0]
    torch.save(build_network({**options['network_g'], 'upscale': 4}), tmp_path / 'w.pth')
    assert 'pretrain_network_g_leave_out: [upsample], or path.strict_load_g: false' in problems(options, tmp_path)[0]
    torch.save({1: torch.zeros(2)}, tmp_path / 'w.pth')
    assert 'expected tensors by name, found 1' in problems(options, tmp_path)[0]
    state = tmp_path / 'experiments/run/training_states/4.state'
    state.parent.mkdir(parents=True)
    state.write_bytes(b'')
    assert problems(options, tmp_path, auto_resume=True) == []


def test_weights_of_a_teacher(images, tmp_path):
    teacher = {'network': sr_options(images)['network_g'], 'weights': f'{tmp_path}/t.pth'}
    options = eco_options(images, objective='eco', teacher=teacher)
    shutil.copyfile(images / 'teacher.pth', tmp_path / 't.pth')
    assert problems(options, tmp_path) == []
    options['train']['eco']['teacher']['param_key'] = 'params_ema'
    assert 'train.eco.teacher.weights: Weights' in problems(options, tmp_path)[0]
    del options['train']['eco']['teacher']['param_key']
    options['train']['eco']['teacher']['network']['num_block'] = 3
    assert f'train.eco.teacher.weights: Weights {tmp_path}/t.pth do not fit EDSR' in problems(options, tmp_path)[0]


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_states_of_other_experiments(images, tmp_path):
    state = tmp_path / 'experiments/run/training_states/4.state'
    options = changed(sr_options(images), 'path.resume_state', str(state))
    assert problems(options, tmp_path) == [f'path.resume_state: expected a training state, found nothing at {state}.']
    state.parent.mkdir(parents=True)
    torch.save({'iter': 4}, state)
    network = tmp_path / 'experiments/run/models/net_g_4.pth'
    assert problems(options, tmp_path) == [
        f'path.resume_state: expected the network that belongs to 4.state, found nothing at {network}.'
    ]
    network.parent.mkdir()
    network.write_bytes(b'')
    assert problems(options, tmp_path) == []
    found = problems(changed(options, 'name', 'other'), tmp_path)
    assert len(found) == 1 and found[0].startswith(
        'path.resume_state: expected a training state of this experiment, such as '
    )
    assert f'{tmp_path}/experiments/other/training_states/4.state, found {state}' in found[0]
    assert problems(options, tmp_path, auto_resume=True) == []


def test_weights_that_a_resumed_run_does_not_need(images, tmp_path):
    options = changed(sr_options(images), 'path.pretrain_network_g', '/lost.pth')
    (tmp_path / 'experiments/run/training_states').mkdir(parents=True)
    for stray in ('foo', '²', 'best_4'):
        (tmp_path / f'experiments/run/training_states/{stray}.state').write_bytes(b'')
    assert newest_state(tmp_path / 'experiments/run/training_states') == (None, [])
    assert 'path.pretrain_network_g: expected a file of weights' in problems(options, tmp_path, auto_resume=True)[0]
    (tmp_path / 'experiments/run/training_states/4.state').write_bytes(b'')
    assert problems(options, tmp_path, auto_resume=True) == []


def test_paths_may_have_moved_when_a_run_goes_on(tmp_path):
    here, there = tmp_path / 'here.pth', tmp_path / 'there.pth'
    there.write_bytes(b'teacher')

    def options(weights: Path, **more: str) -> dict:
        return {'train': {'eco': {'teacher': {'weights': str(weights)}}, **more}}

    check_same_run(options(here), options(there))
    here.write_bytes(b'teacher')
    check_same_run(options(here), options(there))
    here.write_bytes(b'another')
    with pytest.raises(basicsr_ext.UserError, match=r'train\.eco\.teacher\.weights'):
        check_same_run(options(here), options(there))
    with pytest.raises(basicsr_ext.UserError, match=r'train\.precision'):
        check_same_run(options(there, precision='fp32'), options(there, precision='bf16'))


def test_what_only_saves_memory_may_change_when_a_run_goes_on():
    for method, before, after in (
        ('ail', {'update_tile': None}, {'update_tile': 256, 'update_overlap': 32, 'pictures': ['a']}),
        ('lfcsr', {'forwards': 'shared'}, {'forwards': 'lean'}),
    ):
        check_same_run({'train': {method: before}}, {'train': {method: after}})
    with pytest.raises(basicsr_ext.UserError, match=r'train\.ail\.step'):
        check_same_run({'train': {'ail': {'step': 0.1}}}, {'train': {'ail': {'step': 0.2}}})


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_root_that_is_not_there(images, tmp_path):
    options = changed(sr_options(images), 'path.root', str(tmp_path / 'lost'))
    found = problems(options, tmp_path / 'lost')
    assert found == [
        f'path.root: expected a folder in which to make the folders of the run, found none at {tmp_path}/lost.'
    ]


def test_devices_that_are_not_there(images, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    options = changed(sr_options(images), 'num_gpu', 2)
    refused = 'num_gpu: 2 asks for a GPU, and torch finds none'
    assert problems(options, images)[0].startswith(refused)
    report = report_on(options, images, launcher=None)  # checked here, and run elsewhere
    assert report.problems == []
    assert str(report.warnings[0]).startswith(refused)


@pytest.mark.parametrize('network', [TINY_EDSR, {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2, 'num_feat': 4,
                                                 'num_block': 1, 'num_grow_ch': 4}])  # fmt: skip
def test_grey_images_for_a_network_in_colour(tmp_path, network):
    for part, side in (('hr', 64), ('lr', 32)):
        with RawLmdbWriter(tmp_path / f'{part}.lmdb', channels=1, dtype=np.uint8) as writer:
            for key in 'abcd':
                writer.put(key, np.zeros((side, side, 1), np.uint8))
    options = sr_options(tmp_path)
    options['network_g'] = network
    options['datasets'] = {'train': {**options['datasets']['train'], 'type': 'PairedStoreDataset'}}
    options['datasets']['train'].update(dataroot_gt=f'{tmp_path}/hr.lmdb', dataroot_lq=f'{tmp_path}/lr.lmdb')
    options['datasets']['train'].pop('io_backend', None)
    options.pop('val', None)
    (problem,) = problems(options, tmp_path)
    assert 'network_g' in problem and 'basicsr prepare lmdb --channels 3' in problem
