"""The option files of LFC-SR: right in every key, of the published scale, and they train and test."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from run_helpers import forked, run, write_options, write_pairs

from basicsr_ext.checking import check_options
from basicsr_ext.checking.check import check
from basicsr_ext.cli.main import main
from basicsr_ext.metrics.lpips_metric import build_lpips
from basicsr_ext.models.optimizers import build_scheduler
from basicsr_ext.options.complete import load_yaml
from basicsr_ext.options.source import read_source

sys.path.insert(0, str(Path(__file__).parents[1] / 'losses'))
from vgg_files import write_vgg

OPTIONS = Path(__file__).parents[2] / 'options'
NAMES = sorted(path.stem for path in OPTIONS.glob('train_LFCSR_*.yml'))
TINY_HAN = ['num_feat=4', 'num_group=1', 'num_block=1', 'squeeze_factor=2']
TINY_REFINER = ['num_feat=2', 'num_block=1']


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos, 4, size=192)
    write_vgg(root / 'vgg19.pth')
    return root


def on_images(images: Path, *sets: str) -> list[str]:
    """Assignments that put small images in the place of the sets, on the CPU."""
    folders = {'gt': images / 'hr', 'lq': images / 'lr'}
    return [
        'num_gpu=0',
        *(f'datasets:{name}:dataroot_{key}={folder}' for name in sets for key, folder in folders.items()),
    ]


def assignments(name: str, images: Path) -> list[str]:
    given = on_images(images, 'train', 'val')
    if not name.endswith('pretrain'):
        given.append(f'train:contextual_opt:vgg_weights={images}/vgg19.pth')
    if not name.endswith(('pretrain', 'RCAN_x4', 'HAN_x4', 'po')):
        given.append('path:pretrain_network_g=~')
    return given


def test_all_files_are_here():
    ends = ('', '_admm', '_code', '_gaussian', '_none', '_po', '_pretrain', '_regularizer')
    assert [*(f'train_LFCSR_HAN_x4{end}' for end in ends), 'train_LFCSR_RCAN_x4'] == NAMES


@pytest.mark.parametrize('name', NAMES)
def test_a_file_is_right_in_every_key(images, tmp_path, name):
    shallow = [f'network_g:stage_{stage}:num_block=1' for stage in 'op']  # quicker to build
    source = read_source(OPTIONS / f'{name}.yml', [*assignments(name, images), *shallow])
    report = check_options(source, is_train=True, root=tmp_path)
    assert [str(problem) for problem in report.problems] == []
    assert source.values['name'] == name
    train = source.values['train']
    assert train['pixel_opt']['loss_weight'] == 255
    if not name.endswith('pretrain'):
        assert train['lfcsr']['rho'] == pytest.approx(1e-4 * 255**2)
        assert (train['contextual_opt']['loss_weight'], train['down_opt']['loss_weight']) == (0.1, 255)
        assert (train['gan_opt']['loss_weight'], train['optim_o']['eps']) == (0.001, 1e-8)
        # of the stages in turn, in one run too: published code limits neither pretraining nor the discriminator
        assert train['grad_clip'] == {'value': 1e-4, 'players': ['o', 'p']}
    else:
        assert not train.get('grad_clip')


def test_the_published_codes_settings():
    code = load_yaml(OPTIONS / 'train_LFCSR_HAN_x4_code.yml')
    assert code['network_d']['num_conv'] == 6
    assert code['train']['contextual_opt']['input_range'] == 255 and code['train']['total_iter'] == 300_000
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=5e-5)
    scheduler = build_scheduler(optimizer, code['train']['scheduler_d'])
    rates = set()
    for _ in range(5):
        rates.add(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == {5e-5}
    regularizer = load_yaml(OPTIONS / 'train_LFCSR_HAN_x4_regularizer.yml')['train']['lfcsr']
    assert (regularizer['regularizer_norm'], regularizer['regularizer_weight']) == ('l1', 255)
    assert load_yaml(OPTIONS / 'train_LFCSR_HAN_x4_pretrain.yml')['logger']['keep_best'] == 'psnr'


@pytest.mark.parametrize('name', ['train_LFCSR_HAN_x4_pretrain', 'train_LFCSR_HAN_x4'])
def test_small_networks_train_and_are_tested(images, tmp_path, name):
    few = [
        'train:total_iter=2',
        'datasets:train:batch_size_per_gpu=2',
        'val:val_freq=2',
        'train:lfcsr:admm_start_iter=1',
    ]
    few += ['datasets:train:num_worker_per_gpu=0', 'logger:use_tb_logger=false', 'datasets:train:pin_memory=false']
    small = [f'network_g:stage_o:{value}' for value in TINY_HAN] + [
        f'network_g:stage_p:{value}' for value in TINY_REFINER
    ]
    if name.endswith('pretrain'):
        few[3] = 'train:lfcsr:admm_start_iter=2'
    else:
        small += ['network_d:num_feat=2']
    forced = [*assignments(name, images), *small, *few]
    assert forked(run, tmp_path, OPTIONS / f'{name}.yml', '--force_yml', *forced) == 0
    weights = tmp_path / f'experiments/{name}/models/net_g_latest.pth'
    assert weights.exists()
    others = [f'datasets:test_{number}=~' for number in (2, 3, 4, 5)]
    others.append(f'path:pretrain_network_g={weights}')
    tested = [*on_images(images, 'test_1'), *others, *small[:6]]
    options = load_yaml(OPTIONS / 'test_LFCSR_HAN_x4.yml')
    del options['val']['metrics']['lpips']  # tests cannot fetch its weights
    arguments = ['test', '-opt', str(write_options(tmp_path / 'test.yml', options)), '--force_yml', *tested]
    assert forked(lambda: (os.chdir(tmp_path), main(arguments))[1]) == 0
    assert 'psnr_o' in (tmp_path / 'results/test_LFCSR_HAN_x4/metrics.md').read_text()


def test_lpips_is_reported_and_its_extra_is_named_where_it_is_missing(images, tmp_path, monkeypatch):
    """As published: AlexNet's, of whole images."""
    monkeypatch.chdir(tmp_path)
    others = [f'datasets:test_{number}=~' for number in (2, 3, 4, 5)]
    small = [f'network_g:stage_o:{value}' for value in TINY_HAN] + ['network_g:stage_p:num_block=1']
    forced = [*on_images(images, 'test_1'), *others, *small]
    forced.append('path:pretrain_network_g=~')
    source = read_source(OPTIONS / 'test_LFCSR_HAN_x4.yml', forced)
    assert source.values['val']['metrics']['lpips'] == {'type': 'LPIPS', 'net': 'alex', 'better': 'lower'}
    build_lpips.cache_clear()
    for name in [name for name in sys.modules if name.partition('.')[0] == 'lpips']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'lpips', None)  # as if it were not installed
    problems = [str(problem) for problem in check_options(source, is_train=False, root=tmp_path).problems]
    weights, metric = problems
    assert 'path.pretrain_network_g: expected the weights to test, found none' in weights
    assert 'LPIPS needs the package lpips' in metric and '[metrics]' in metric


def test_disk_space_counts_what_every_player_keeps(images, tmp_path):
    """Two numbers a weight: for pretraining's optimizer, for both stages', for the discriminator's."""
    small = [f'network_g:stage_o:{value}' for value in TINY_HAN] + [f'network_g:stage_p:{x}' for x in TINY_REFINER]
    small += ['network_d:num_feat=2', 'network_d:num_dense=4', 'logger:save_checkpoint_freq=600000']
    text = check(
        OPTIONS / 'train_LFCSR_HAN_x4.yml',
        force_yml=[*assignments('train_LFCSR_HAN_x4', images), *small],
        root=tmp_path,
    )
    rows = {line.split()[0]: line for line in text.splitlines()}
    both, d = (int(re.search(r'([\d,]+) parameters', rows[f'network_{letter}'])[1].replace(',', '')) for letter in 'gd')
    numbers = both + d + 2 * both + 2 * both + 2 * d  # weights; g; o and p together; d
    assert f'1 of {4 * numbers / 1e3:.1f} KB' in rows['checkpoints']
