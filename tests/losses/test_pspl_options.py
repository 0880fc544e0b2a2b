"""The option files of PSPL and their plain twins: right in every key, alike but for the loss, and they train."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from pathlib import Path

import pytest
from run_helpers import run, write_pairs

from basicsr_ext.trainer.checking import check_options
from basicsr_ext.trainer.checking.source import read_source

OPTIONS = Path(__file__).parents[2] / 'options'
NAMES = ('SRCNN_x4', 'VDSR_x4', 'DRRN_x4', 'LapSRN_x4', 'EDSR_x4', 'EDSR-baseline_x2')
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


@pytest.mark.parametrize('name', NAMES)
def test_a_small_network_trains(images, tmp_path, name):
    small = [f'network_g:{assignment}' for assignment in SMALL[name]]
    few = ['train:total_iter=2', 'datasets:train:gt_size=32', 'datasets:train:batch_size_per_gpu=2', 'val:val_freq=2']
    few += ['datasets:train:num_worker_per_gpu=0', 'num_gpu=0', 'logger:use_tb_logger=false']
    few += ['datasets:train:pin_memory=false']
    assert run(tmp_path, path_of('PSPL', name), '--force_yml', *on_images(images, int(name[-1])), *small, *few) == 0
    assert (tmp_path / f'experiments/train_PSPL_{name}/models/net_g_2.pth').exists()
