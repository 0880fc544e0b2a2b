"""`basicsr check`: what it finds out, and that it makes nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import basicsr_ext

basicsr_ext.register()

import cv2
import pytest
import torch
from run_helpers import (
    eco_options,
    gan_options,
    sr_options,
    write_centroids,
    write_images,
    write_options,
    write_pairs,
    write_weights,
)

from basicsr_ext.checking.check import check
from basicsr_ext.cli.main import main


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos) -> Path:
    """A folder with tiny images and their centroids."""
    root = tmp_path_factory.mktemp('check')
    write_pairs(root, photos)
    write_centroids(root)
    return root


@pytest.fixture
def root(images, tmp_path, monkeypatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(root: Path, options: dict, capsys, *arguments: str) -> tuple[int, str, str]:
    write_options(root / 'o.yml', options)
    status = main(['check', '-opt', 'o.yml', *arguments])
    assert sorted(path.name for path in root.rglob('*')) == ['o.yml']
    return status, *capsys.readouterr()


def row(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(f'{name} '))


def test_a_training(images, root, capsys):
    status, text, error = run(root, sr_options(images), capsys)
    assert status == 0 and error == ''
    assert text.splitlines()[0] == 'o.yml: training with SRModel'
    # conv_first 3->4, a residual block and a convolution of 4->4, two of 4->16 and 4->3 around the pixel shuffle; 3x3 each
    parameters = (3 * 4 + 3 * 4 * 4 + 4 * 16 + 4 * 3) * 9 + 4 + 3 * 4 + 16 + 3
    multiply_adds = (
        (3 * 4 + 3 * 4 * 4 + 4 * 16) * 64 + 4 * 3 * 256
    ) * 9  # 8x8 pixels before the shuffle, 16x16 after it
    assert (
        f'EDSR: {parameters:,} parameters; {multiply_adds / 1e3:.1f} K multiply-adds for an LQ image of 8x8 pixels'
        in text
    )
    scaled = multiply_adds * 1280 * 720 / 256
    assert f'{scaled / 1e6:.1f} M scaled to an output of 1280x720' in row(text, 'network_g')
    assert row(text, 'datasets.train').split(None, 1)[1] == (
        'PairedImageDataset: 5 samples, 5 iterations an epoch with one rank, 0.8 epochs; the first: lq 3x8x8 float32, '
        'gt 3x16x16 float32'
    )
    assert 'PairedImageDataset: 5 samples; the first: lq 3x24x30 float32, gt 3x48x60 float32' in row(
        text, 'datasets.val'
    )
    psnr = float(re.search(r'psnr ([\d.]+)', row(text, 'val.metrics'))[1])
    assert 20 < psnr < 50
    # Adam keeps two numbers for each parameter; two checkpoints
    assert row(text, 'checkpoints').split()[1:5] == ['2', 'of', f'{4 * 3 * parameters / 1e3:.1f}', 'KB:']


def test_disk_space_counts_averages_discriminators_and_what_is_kept(images, root, capsys):
    options = gan_options(images)
    options['logger']['keep_last'] = 1
    _, text, _ = run(root, options, capsys)
    networks = {
        key: int(re.search(r'([\d,]+) parameters', row(text, key))[1].replace(',', ''))
        for key in ('network_g', 'network_d')
    }
    size = 4 * (networks['network_g'] * 4 + networks['network_d'] * 3)  # weights, average, and Adam's two
    assert row(text, 'checkpoints').split()[1:5] == ['1', 'of', f'{size / 1e3:.1f}', 'KB:']


def test_our_datasets_and_models(images, root, capsys):
    status, text, _ = run(root, eco_options(images), capsys)
    assert status == 0
    assert 'centroid 3x16x16 uint8, centroid_lq 3x8x8 uint8' in row(text, 'datasets.train')


def test_a_test_run(images, root, capsys):
    options = sr_options(images)
    options['datasets'] = {'test': options['datasets']['val']}
    options['path'] = {'pretrain_network_g': write_weights(images / 'a.pth')}
    options['val'] = {'save_img': True, 'suffix': None, 'metrics': options['val']['metrics']}
    del options['train'], options['logger']
    status, text, _ = run(root, options, capsys)
    assert status == 0 and text.startswith('o.yml: test with SRModel')
    assert 'LQ image of 24x30 pixels' in row(text, 'network_g') and 'checkpoints' not in text


def test_options_for_other_machines_are_checked_too(images, root, capsys):
    assert run(root, sr_options(images, num_gpu=8), capsys)[0] == 0


def test_problems_of_options_end_it_with_status_2(images, root, capsys):
    status, text, error = run(root, sr_options(images), capsys, '--force_yml', 'train:total_itre=5')
    assert status == 2 and text == ''
    assert error.startswith(
        'basicsr check: error: --force_yml train:total_itre=5: train.total_itre: unknown option of SRModel'
    )


def test_what_only_running_tells(images, root, capsys, photos):
    """A damaged image, metrics that cannot be computed: all of them at once."""
    write_images(images / 'broken_lr', {name: photo[:24, :30] for name, photo in photos.items()})
    first = sorted(path.name for path in (images / 'broken_lr').iterdir())
    for name in first:
        content = (images / 'broken_lr' / name).read_bytes()
        (images / 'broken_lr' / name).write_bytes(content[:200])
    options = sr_options(images)
    options['datasets']['val_2'] = dict(options['datasets']['val'], dataroot_lq=f'{images}/broken_lr', name='val_2')
    options['val']['metrics']['niqe'] = {'type': 'calculate_niqe', 'crop_border': 4, 'better': 'lower'}
    status, _, error = run(root, options, capsys)
    assert status == 2 and '2 problems in the options' in error and 'Traceback' not in error
    assert 'datasets.val_2: the first sample cannot be read (' in error
    assert 'val.metrics.niqe: calculate_niqe fails on the first image of validation (' in error


def test_fitting_weights_are_counted(images, root, capsys):
    from basicsr.archs import build_network

    options = sr_options(images)
    torch.save({'params': build_network(options['network_g']).state_dict()}, images / 'fitting.pth')
    options['path']['pretrain_network_g'] = f'{images}/fitting.pth'
    status, text, _ = run(root, options, capsys)
    assert status == 0 and '12 of 12 tensors matched (100%)' in row(text, 'network_g')


def test_weights_of_another_scale(images, root, capsys):
    from basicsr.archs import build_network

    options = sr_options(images)
    torch.save({'params': build_network({**options['network_g'], 'upscale': 4}).state_dict()}, images / 'x4.pth')
    options['path'].update(pretrain_network_g=f'{images}/x4.pth', pretrain_network_g_leave_out=['upsample'])
    status, text, _ = run(root, options, capsys)
    assert status == 0 and '10 of 12 tensors matched (83%)' in row(text, 'network_g')


def test_large_folders_are_read_whole(images, root, capsys, monkeypatch):
    monkeypatch.setattr('basicsr_ext.checking.dataset_contents._MANY', 2)
    options = sr_options(images)
    options['datasets']['train'].update(gt_size=64, batch_size_per_gpu=11)
    status, _, error = run(root, options, capsys)
    assert status == 2 and 'gt_size: 64 is more than the smallest GT image has' in error
    assert '11 samples on each of 1 ranks are more than an epoch of 5 x 2' in error


def test_networks_that_make_no_image(images, root, capsys):
    from basicsr.utils.registry import ARCH_REGISTRY

    class MakesFeatures(torch.nn.Conv2d):
        def forward(self, x):
            return {'conv': super().forward(x)}

    MakesFeatures.__module__ = 'somebody.elses'
    if 'MakesFeatures' not in ARCH_REGISTRY:
        ARCH_REGISTRY.register(MakesFeatures)
    network = {'type': 'MakesFeatures', 'in_channels': 3, 'out_channels': 3, 'kernel_size': 3}
    status, _, error = run(root, sr_options(images, network_g=network), capsys)
    assert status == 2 and 'network_g: expected a network that makes images, found MakesFeatures' in error


def test_a_disk_that_is_too_small_warns(images, root, monkeypatch):
    import shutil

    usage = shutil.disk_usage('/')
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=1000))
    text = check(sr_options(images))
    assert 'Warning: logger.save_checkpoint_freq: checkpoints will take about' in text


def test_metrics_run_on_the_middle_of_large_images(tmp_path, photos):
    large = cv2.resize(photos['coffee'], (1400, 1200))
    write_images(tmp_path / 'hr', {'a': large})
    write_images(tmp_path / 'lr', {'a': cv2.resize(large, (700, 600), interpolation=cv2.INTER_AREA)})
    text = check(sr_options(tmp_path), root=tmp_path)
    assert 'its middle of at most 512x512 pixels' in text
    assert float(re.search(r'psnr ([\d.]+)', text)[1]) > 25  # GT and LQ were cut at the same place


def test_help_names_the_command():
    environment = {**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, '-m', 'basicsr_ext', '--help'], capture_output=True, text=True, env=environment, timeout=100
    )
    assert 'check' in result.stdout and result.returncode == 0
