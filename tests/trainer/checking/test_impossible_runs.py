"""Runs that cannot work although every option is right by itself are refused before anything is made."""

from __future__ import annotations

import shutil
from pathlib import Path

import basicsr_ext

basicsr_ext.register()

import numpy as np
import pytest
import torch
from fuzz.option_bases import real_esrgan_options
from option_checks import changed, problems
from run_helpers import eco_options, gan_options, sr_options, write_centroids, write_images, write_options, write_pairs

from basicsr_ext.cli import main
from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter, open_store


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
        (
            {
                'datasets.train.persistent_workers': True,
                'datasets.train.num_worker_per_gpu': 1,
                'datasets.train.prefetch_mode': 'cpu',
            },
            'datasets.train.prefetch_mode: expected cuda or ~',
        ),
        ({'datasets.train.prefetch_mode': 'cuda', 'num_gpu': 'auto'}, 'datasets.train.pin_memory: expected true'),
        (
            {'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [1, 1]}},
            'train.scheduler: Scheduler CosineAnnealingRestartLR: periods and restart_weights should have the same length.',
        ),
        (
            {'train.scheduler': {'type': 'OneCycleLR', 'max_lr': 1e-3, 'total_steps': 3}},
            'train.scheduler.total_steps: expected train.total_iter (4) at least, found 3.',
        ),
        (
            {'train.scheduler': {'type': 'CosineAnnealingRestartLR', 'periods': [2]}},
            'train.scheduler.periods: expected periods that cover the 4 iterations of train.total_iter, found 2.',
        ),
    ],
)
def test_options_that_contradict_each_other(images, changes, expected):
    options = sr_options(images)
    for path, value in changes.items():
        options = changed(options, path, value)
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith(expected), found


def test_a_discriminator_of_another_size(images):
    options = gan_options(images)
    options['network_d'] = {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4, 'input_size': 128}
    found = problems(options, images)
    assert len(found) == 1 and found[0].startswith('network_d: VGGStyleDiscriminator does not take images of 3x16x16 (')
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 1}
    assert 'a convolution expects 1 channels, and gets 3' in problems(options, images)[0]


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
        'network_g: MSRResNet does not take images of 1x48x48 (a convolution expects 3 channels, and gets 1).'
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
    assert 'path.pretrain_network_g: expected a file of weights' in problems(options, tmp_path, auto_resume=True)[0]
    (tmp_path / 'experiments/run/training_states/4.state').write_bytes(b'')
    assert problems(options, tmp_path, auto_resume=True) == []


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
    assert problems(options, images)[0].startswith('num_gpu: 2 asks for a GPU, and torch finds none')
    assert problems(options, images, launcher=None) == []
