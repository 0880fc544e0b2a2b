"""The recipe for DIV2K makes exactly the stores that the option files name, and these train from them.

Photographs stand in for DIV2K; the option files are those of options/, with small networks and few iterations forced.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import basicsr_ext

basicsr_ext.register()

import pytest
from command_server import command_server
from run_helpers import log_text, write_images

from basicsr_ext.cli.main import main
from basicsr_ext.functional.resize import downsample, mod_crop
from basicsr_ext.options.complete import load_yaml
from basicsr_ext.storage import open_store

ROOT = Path(__file__).parents[1]
KINDS = ('HR', 'LR_x2', 'LR_x3', 'LR_x4', 'LR_x8')
FORCED = {
    'EDSR_x2': ['network_g:num_feat=4', 'network_g:num_block=1', 'datasets:train:gt_size=48'],
    'RCAN_x4': ['network_g:num_feat=16', 'network_g:num_group=1', 'network_g:num_block=1', 'datasets:train:gt_size=64'],
}
SHORT = ['train:total_iter=3', 'val:val_freq=3', 'logger:print_freq=1', 'logger:save_checkpoint_freq=3', 'num_gpu=0']
SHORT += ['datasets:train:num_worker_per_gpu=0', 'datasets:train:batch_size_per_gpu=2', 'logger:use_tb_logger=false']
SHORT += ['datasets:train:dataset_enlarge_ratio=4']


@pytest.fixture(scope='module', autouse=True)
def quick_command(tmp_path_factory) -> Iterator[None]:
    """Recipes call a command that starts at once."""
    with pytest.MonkeyPatch.context() as patch, command_server(tmp_path_factory.mktemp('command')) as program:
        patch.setenv('BASICSR', str(program))
        yield


def recipe(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        'OMP_NUM_THREADS': '1',
    }
    command = ['bash', str(ROOT / 'datasets_prep/div2k.sh'), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def train(name: str, case: str) -> None:
    path = ROOT / f'options/train_{name}_{case}.yml'
    anew = ['path:pretrain_network_g=~', 'path:pretrain_network_g_leave_out=~']
    assert main(['train', '-opt', str(path), '--force_yml', *SHORT, *FORCED[case], *anew]) == 0


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """A folder in which the recipe's first stage was run; sizes are no multiples of 2, 3 and 4."""
    folder = tmp_path_factory.mktemp('div2k')
    crops = {f'{i:04d}': photo[100:195, 120:221] for i, photo in enumerate(photos.values(), 1)}
    write_images(folder / 'DIV2K_train_HR', {key: crop for key, crop in crops.items() if key <= '0003'})
    write_images(folder / 'DIV2K_valid_HR', {key: crop for key, crop in crops.items() if key > '0003'})
    result = recipe(folder, 'images', 'DIV2K_train_HR', 'DIV2K_valid_HR')
    assert result.returncode == 0, result.stderr
    return folder


def named_stores(path: Path) -> set[str]:
    blocks = load_yaml(path)['datasets'].values()
    return {value for block in blocks for key, value in block.items() if key.startswith('dataroot')}


def test_images(images):
    again = recipe(images, 'images', 'DIV2K_train_HR', 'DIV2K_valid_HR')
    assert again.returncode == 0 and again.stdout.count('is there') == 10
    made = {p.name for p in (images / 'datasets/DIV2K').iterdir()}
    assert made == {f'{part}_{kind}.lmdb' for part in ('train', 'valid') for kind in KINDS}
    for part in ('train', 'valid'):
        hr = open_store(images / f'datasets/DIV2K/{part}_HR.lmdb')
        for scale in (2, 3, 4, 8):
            lr = open_store(images / f'datasets/DIV2K/{part}_LR_x{scale}.lmdb')
            assert lr.keys() == hr.keys()
            for key in hr.keys():
                assert (lr.read(key) == downsample(mod_crop(hr.read(key), scale), scale)).all()


@pytest.mark.parametrize('case', ['EDSR_x2', 'RCAN_x4'])
def test_option_files_train_from_what_the_recipe_made(images, monkeypatch, case):
    monkeypatch.chdir(images)
    train('vanilla', case)
    result = recipe(images, 'centroids', case, '--batch_size', '2')
    assert result.returncode == 0, result.stderr
    train('ECO', case)
    assert 'alpha: 3.3333e-01' in log_text(images / f'experiments/train_ECO_{case}')  # iteration 2 of 3
    for name in ('vanilla', 'ECO'):
        for store in named_stores(ROOT / f'options/train_{name}_{case}.yml'):
            assert open_store(images / store).keys()


def test_wrong_calls_explain_the_recipe(tmp_path):
    for arguments in ([], ['images', 'one'], ['centroids', 'x4'], ['other']):
        result = recipe(tmp_path, *arguments)
        assert result.returncode == 2 and 'div2k.sh images DIV2K_train_HR DIV2K_valid_HR' in result.stderr
    result = recipe(tmp_path, 'images', 'nowhere', 'nowhere')
    assert result.returncode == 2 and 'nowhere' in result.stderr and 'Traceback' not in result.stderr
