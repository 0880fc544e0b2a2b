"""Every recipe of datasets_prep/, run as a user would on tiny folders that look like the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_server import command_server
from run_helpers import write_images

from basicsr_ext.functional.resize import downsample, imresize
from basicsr_ext.storage import open_store

ROOT = Path(__file__).parents[1]
RECIPES = sorted(path.name for path in (ROOT / 'datasets_prep').glob('*.sh') if path.name != 'common.sh')


@pytest.fixture(scope='module', autouse=True)
def quick_command(tmp_path_factory) -> Iterator[None]:
    """Recipes call a command that starts at once; where it is the command that matters, BASICSR names it."""
    with pytest.MonkeyPatch.context() as patch, command_server(tmp_path_factory.mktemp('command')) as program:
        patch.setenv('BASICSR', str(program))
        yield


def recipe(name: str, folder: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess:
    environment = {
        **os.environ,
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
        **variables,
    }
    command = ['bash', str(ROOT / 'datasets_prep' / name), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def succeeds(*arguments: object, **variables: str) -> str:
    result = recipe(*arguments, **variables)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def keys(path: Path) -> list[str]:
    return list(open_store(path).keys())


@pytest.fixture
def hr(photos) -> dict[str, np.ndarray]:
    """Crops of photographs."""
    return {f'{number:04d}': photo[100:148, 120:180] for number, photo in enumerate(photos.values(), 1)}


def test_df2k(tmp_path, hr):
    write_images(tmp_path / 'DIV2K_train_HR', {'0001': hr['0001']})
    write_images(tmp_path / 'flickr', {'0001': hr['0002'], '0002': hr['0003']})
    arguments = ('df2k.sh', tmp_path, 'DIV2K_train_HR', 'flickr')
    succeeds(*arguments, SCALES='2')
    made = {path.name: open_store(path) for path in (tmp_path / 'datasets/DF2K').iterdir()}
    assert made.keys() == {'train_HR.lmdb', 'train_LR_x2.lmdb'}
    assert list(made['train_HR.lmdb'].keys()) == ['DIV2K/0001', 'Flickr2K/0001', 'Flickr2K/0002']
    np.testing.assert_array_equal(made['train_LR_x2.lmdb'].read('Flickr2K/0002'), downsample(hr['0003'], 2))
    assert succeeds(*arguments, SCALES='2 3').count('is there') == 2  # what is made stays
    assert keys(tmp_path / 'datasets/DF2K/train_LR_x3.lmdb') == list(made['train_HR.lmdb'].keys())


def test_291(tmp_path, bench_dir):
    """A few real images; the one that BSD shares with Set5 is not among them, but its test image is."""
    for name, source in {'T91': 'train/T91', 'BSD200': 'train/BSDS500_train'}.items():
        (tmp_path / name).mkdir()
        for file in sorted((bench_dir / source).iterdir())[:2]:
            (tmp_path / name / file.name).symlink_to(file)
    (tmp_path / 'T91/woman.png').symlink_to(bench_dir / 'Set5/HR/woman.png')
    output = succeeds('291.sh', tmp_path, 'T91', 'BSD200', bench_dir / 'Set5/HR')
    assert 'GT T91/woman' in output and '\n1 problem\n' in output
    root = tmp_path / 'datasets/291'
    names = {f'luma_x{scales}{kind}.lmdb' for scales in ('2', '3', '4', '234') for kind in ('', '_LQ', '_small')}
    assert {path.name for path in root.iterdir()} == names
    for scales in ('2', '3', '4', '234'):
        gt, lq, small = (open_store(root / f'luma_x{scales}{kind}.lmdb') for kind in ('', '_LQ', '_small'))
        assert gt.keys() == lq.keys() == small.keys()
        assert {key.rsplit('_x', 1)[1] for key in gt.keys()} == set(scales)
        assert {key.rsplit('_', 2)[1] for key in gt.keys()} == {'1', '0.7', '0.5'}
        assert {key.split('/')[0] for key in gt.keys()} == {'T91', 'BSD200'}
    succeeds('291.sh', tmp_path, 'T91', 'BSD200', ROUND='1')  # as published
    assert {path.name for path in root.iterdir()} == names | {
        f'luma_x{scales}_8bit{kind}.lmdb' for scales in ('2', '3', '4', '234') for kind in ('', '_LQ', '_small')
    }
    assert open_store(root / 'luma_x3_8bit.lmdb').meta['round_luma']


def test_benchmark(tmp_path, bench_dir):
    output = succeeds('benchmark.sh', tmp_path, 'Set5', bench_dir / 'Set5/HR', SCALES='3')
    assert 'Set5_LR_x3.lmdb: 5 LR images' in output
    made = open_store(tmp_path / 'datasets/benchmark/Set5_LR_x3.lmdb')
    published = open_store(bench_dir / 'Set5/LR_bicubic/X3')
    for key in made.keys():
        np.testing.assert_array_equal(made.read(key), published.read(f'{key}x3'))
    assert keys(tmp_path / 'datasets/benchmark/Set5_HR.lmdb') == list(made.keys())
    assert not list(tmp_path.glob('datasets/benchmark/*luma*'))
    succeeds('benchmark.sh', tmp_path, 'Set5', bench_dir / 'Set5/HR', SCALES='3', LUMA='1')
    stores = [open_store(tmp_path / f'datasets/benchmark/Set5_luma_x3{kind}.lmdb') for kind in ('', '_LQ', '_small')]
    specs = [store.spec('HR/woman_1_x3') for store in stores]
    assert [spec[:3] for spec in specs] == [(342, 228, 1), (342, 228, 1), (114, 76, 1)]


def test_realsr(tmp_path, hr):
    names = {'Train': ['Canon_001', 'Canon_002'], 'Test': ['Canon_003']}
    images = iter(hr.values())
    for part, pairs in names.items():
        for name in pairs:
            image = next(images)
            folder = tmp_path / f'V3/Canon/{part}/4'
            write_images(folder, {f'{name}_HR': image, f'{name}_LR4': downsample(image, 4)})
    write_images(tmp_path / 'DIV2K', {'0004': hr['0004']})
    succeeds('realsr.sh', tmp_path, 'V3', 'DIV2K')
    root = tmp_path / 'datasets/RealSR'
    train = ['DIV2K/0004', 'RealSR/Canon_001', 'RealSR/Canon_002']
    assert keys(root / 'train_HR.lmdb') == keys(root / 'train_LR_x4.lmdb') == train
    assert keys(root / 'test_HR.lmdb') == keys(root / 'test_LR_x4.lmdb') == ['RealSR/Canon_003']
    lr = open_store(root / 'train_LR_x4.lmdb')
    for key, image in {'DIV2K/0004': hr['0004'], 'RealSR/Canon_002': hr['0002']}.items():
        np.testing.assert_array_equal(lr.read(key), downsample(image, 4))
    # versions 1 and 2 have LR images as large as HR images
    cv2.imwrite(str(tmp_path / 'V3/Canon/Train/4/Canon_001_LR4.png'), hr['0001'])
    result = recipe('realsr.sh', tmp_path, 'V3', 'DIV2K', ROOT='other')
    assert result.returncode == 1
    assert 'GT RealSR/Canon_001' in result.stdout and 'scale' in result.stdout
    assert not list((tmp_path / 'other').glob('*.lmdb'))


def test_ntire2020(tmp_path, hr):
    noise = np.random.default_rng(0).normal(120, 5, (32, 32, 3)).round().astype(np.uint8)
    hr['0001'] = hr['0001'].copy()
    hr['0001'][:32, :32] = noise
    write_images(tmp_path / 'source', {'a': hr['0001']})
    write_images(tmp_path / 'DIV2K', {'0002': hr['0002']})
    write_images(tmp_path / 'valid_gt', {'0801': hr['0003']})
    write_images(tmp_path / 'valid_in', {'0801': downsample(hr['0003'], 4) ^ 3})
    succeeds('ntire2020.sh', tmp_path, 'source', 'DIV2K', 'valid_in', 'valid_gt')
    root = tmp_path / 'datasets/NTIRE2020'
    assert keys(root / 'train_HR.lmdb') == keys(root / 'train_LR_x4.lmdb') == ['DIV2K/0002', 'source/a']
    np.testing.assert_array_equal(open_store(root / 'valid_LR_x4.lmdb').read('0801'), downsample(hr['0003'], 4) ^ 3)
    assert keys(root / 'valid_HR.lmdb') == ['0801']
    np.testing.assert_array_equal(open_store(root / 'noise.lmdb').read('a_0_0'), noise)


def test_camerasr(tmp_path, hr):
    (tmp_path / 'City100').mkdir()
    for name in ('019', '020', '021', '100'):
        for kind, image in {'H': hr['0001'], 'L': hr['0001'] // 2}.items():
            cv2.imwrite(str(tmp_path / 'a.png'), image)
            (tmp_path / 'a.png').rename(tmp_path / f'City100/{name}{kind}.PNG')
    write_images(tmp_path / 'DIV2K', {'0002': hr['0002']})
    succeeds('camerasr.sh', tmp_path, 'City100', 'DIV2K')
    root = tmp_path / 'datasets/CameraSR'
    train = ['City100/021', 'City100/100', 'DIV2K/0002']
    assert keys(root / 'train_HR.lmdb') == keys(root / 'train_LQ.lmdb') == train
    assert keys(root / 'test_HR.lmdb') == keys(root / 'test_LQ.lmdb') == ['City100/019', 'City100/020']
    enlarged = open_store(root / 'train_LQ.lmdb').read('DIV2K/0002')
    np.testing.assert_array_equal(enlarged, imresize(downsample(hr['0002'], 4), 4))


def test_realsr_zero(tmp_path, hr):
    write_images(tmp_path / 'photos', {'1': hr['0001']})
    succeeds('realsr_zero.sh', tmp_path, 'photos')
    assert keys(tmp_path / 'datasets/RealSR-Zero/test_LR.lmdb') == ['1']


def test_a_stopped_recipe_goes_on(tmp_path, hr):
    """A kill in the second store: the first stays, the second is finished."""
    write_images(tmp_path / 'photos', hr)
    command = tmp_path / 'command'
    command.write_text(
        '#!/usr/bin/env bash\nif [ "$2" = lr ]; then mkdir -p "$6.parts"; kill -9 $$; fi\n'
        f'{sys.executable} -m basicsr_ext "$@"\n'
    )
    command.chmod(0o755)
    arguments = ('benchmark.sh', tmp_path, 'Set5', 'photos')
    assert recipe(*arguments, BASICSR=str(command), SCALES='2').returncode != 0
    root = tmp_path / 'datasets/benchmark'
    assert {path.name for path in root.iterdir()} == {'Set5_HR.lmdb', 'Set5_LR_x2.lmdb.parts'}
    before = (root / 'Set5_HR.lmdb/data.mdb').stat().st_mtime_ns
    assert 'Set5_HR.lmdb: is there' in succeeds(*arguments, SCALES='2')
    assert {path.name for path in root.iterdir()} == {'Set5_HR.lmdb', 'Set5_LR_x2.lmdb'}
    assert (root / 'Set5_HR.lmdb/data.mdb').stat().st_mtime_ns == before


@pytest.mark.parametrize('name', RECIPES)
def test_wrong_calls_explain_the_recipe(tmp_path, name):
    result = recipe(name, tmp_path)
    assert result.returncode == 2
    assert f'datasets_prep/{name} ' in result.stderr
    for word in ('Where to get it:', 'Licence:', 'ROOT'):
        assert word in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', ['df2k.sh', 'realsr.sh', 'camerasr.sh'])
def test_missing_folders_are_named(tmp_path, name):
    result = recipe(name, tmp_path, 'nowhere', 'neither')
    assert result.returncode == 2
    assert 'nowhere' in result.stderr and 'Traceback' not in result.stderr
