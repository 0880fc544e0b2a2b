"""Every store that an option file names is one that the recipes which its head names make."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import basicsr_ext

basicsr_ext.register()

import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from command_server import command_server
from run_helpers import TINY_EDSR, write_images, write_options

from basicsr_ext.checking import check_options
from basicsr_ext.functional.resize import downsample, mod_crop
from basicsr_ext.options.complete import load_yaml
from basicsr_ext.options.source import read_source

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'options').glob('*.yml'))
SETS = ('Set5', 'Set14', 'BSD100', 'Urban100', 'Manga109')
# What README and the recipes' heads tell users to call; of each recipe all forms, with the images that stand in below.
CALLS = {
    '291': ['T91 BSD200', 'ROUND=1 T91 BSD200'],
    'benchmark': ['PILLOW=1 ' + ' '.join(f'{name} T91' for name in SETS)],
    'camerasr': ['City100 HR'],
    'df2k': ['HR HR'],
    'div2k': ['images HR HR', 'first_ten valid', 'enlarged HR HR'],
    'ntire2020': ['noisy HR LR HR'],
    'realsr': ['V3 HR'],
    'realsr_zero': ['HR'],
}


@pytest.fixture(scope='module')
def made(tmp_path_factory, photos) -> Iterator[dict[str, set[str]]]:
    """The stores that each recipe makes, below a folder that stands for the user's; each recipe is run once."""
    folder = tmp_path_factory.mktemp('recipes')
    photo = mod_crop(next(iter(photos.values()))[60:140, 60:140], 8)
    small = {f'{number:04d}': photo[: 32 + 8 * number, :40] for number in (1, 2)}
    write_images(folder / 'HR', small)
    write_images(folder / 'LR', {key: downsample(image, 4) for key, image in small.items()})
    write_images(folder / 'valid', {f'{number:04d}': photo[:32, :32] for number in range(801, 811)})
    for name in ('T91', 'BSD200'):
        write_images(folder / name, {name: photo})
    smooth = np.random.default_rng(0).normal(120, 5, (64, 64, 3)).round().astype(np.uint8)
    write_images(folder / 'noisy', {'a': smooth})
    for part, number in (('Train', 1), ('Test', 2)):
        images = {f'Canon_{number}_HR': photo, f'Canon_{number}_LR4': downsample(photo, 4)}
        write_images(folder / f'V3/Canon/{part}/4', images)
    write_images(folder / 'City100', {f'{number}{kind}': photo for number in ('020', '021') for kind in 'HL'})
    for file in (folder / 'City100').iterdir():
        file.rename(file.with_suffix('.PNG'))
    stores = {}
    with _one_processor(), command_server(tmp_path_factory.mktemp('command')) as program:
        environment = {**os.environ, 'BASICSR': str(program), 'OMP_NUM_THREADS': '1', 'LUMA': '1', 'NOISE': '0.01'}
        for recipe in CALLS:
            before = _stores(folder)
            calls = [_call(call) for call in CALLS[recipe]]
            for arguments, variables in [*calls, *(_centroids(folder) if recipe == 'div2k' else ())]:
                command = ['bash', str(ROOT / f'datasets_prep/{recipe}.sh'), *arguments.split()]
                result = subprocess.run(
                    command, cwd=folder, env=environment | variables, capture_output=True, text=True, timeout=300
                )
                assert result.returncode == 0, result.stdout + result.stderr
            stores[recipe] = _stores(folder) - before
        yield stores


@contextmanager
def _one_processor() -> Iterator[None]:
    """The command starts no workers then, which two images do not need."""
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, processors)


def _call(words: str) -> tuple[str, dict[str, str]]:
    """Arguments of a call, and the variables before them."""
    variables = re.findall(r'\b([A-Z]+)=(\S+)', words)
    return re.sub(r'\b[A-Z]+=\S+ ', '', words), dict(variables)


def _centroids(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A call for every plain twin in options/, and the variables that put a tiny network in its place."""
    for path in sorted((ROOT / 'options').glob('train_vanilla_*.yml')):
        name, scale = path.stem.removeprefix('train_vanilla_'), load_yaml(path)['scale']
        network = {**TINY_EDSR, 'upscale': scale}
        torch.save(build_network(dict(network)).state_dict(), folder / 'teacher.pth')
        write_options(folder / 'teacher.yml', {'network_g': network, 'scale': scale})
        yield f'centroids {name}', {'WEIGHTS': 'teacher.pth', 'OPT': 'teacher.yml'}


@cache
def _options(path: Path) -> dict[str, Any]:
    return load_yaml(path)


def _stores(folder: Path) -> set[str]:
    return {str(path.parent.relative_to(folder)) for path in folder.glob('datasets/**/data.mdb')}


def _head(path: Path) -> str:
    """The comments of an option file and of those that it is based on."""
    text = path.read_text()
    comments = '\n'.join(line for line in text.splitlines() if line.startswith('#'))
    bases = re.findall(r'^_base_: (\S+)', text, re.M)
    return '\n'.join([comments, *(_head(path.parent / base) for base in bases)])


def _values(block: Any, key: str) -> Iterator[str]:
    """Values of all options whose names begin with ``key``."""
    for name, value in block.items() if isinstance(block, dict) else enumerate(block):
        if isinstance(value, dict | list):
            yield from _values(value, key)
        elif str(name).startswith(key) and isinstance(value, str):
            yield value


def test_every_recipe_is_called():
    assert CALLS.keys() == {path.stem for path in (ROOT / 'datasets_prep').glob('*.sh')} - {'common'}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_stores_are_those_of_the_recipes_that_the_head_names(made, path):
    recipes = re.findall(r'datasets_prep/(\w+)\.sh', _head(path))
    wanted = set(_values(_options(path)['datasets'], 'dataroot'))
    assert wanted and wanted <= set().union(*(made[recipe] for recipe in recipes)), recipes


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_weights_are_those_of_another_file(path):
    """Whatever a file starts from, learns from or tests, another file trains; published weights are named elsewhere."""
    options = _options(path)
    for weights in [*_values(options, 'pretrain_network'), *_values(options, 'weights')]:
        _, folder, models, _ = Path(weights).parts
        assert models == 'models'
        assert folder != path.stem and _options(ROOT / f'options/{folder}.yml')['name'] == folder


def _with_defaults(network: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(ARCH_REGISTRY.get(network['type'])).parameters
    return {name: parameter.default for name, parameter in parameters.items()} | network


TRAININGS = [path for path in FILES if path.stem.startswith('train_')]


@pytest.mark.parametrize('path', TRAININGS, ids=lambda path: path.stem)
def test_every_training_has_a_test_or_is_named_in_one(path):
    """Of the same network, at the same scale; networks that get enlarged images in training enlarge them in tests."""
    named = [
        file for file in FILES if file.stem.startswith('test_') and re.search(rf'{path.stem}\b(?!-)', file.read_text())
    ]
    assert named
    trained = _options(path)
    refines = trained['scale'] == 1 and 'AIL' in _head(path)
    network = _with_defaults(trained['network_g'])
    for tested in map(_options, named):
        scale = tested['scale'] if refines else trained['scale']
        expected = {**network, 'upscale': scale} if refines else network
        if (_with_defaults(tested['network_g']), tested['scale']) == (expected, scale):
            return
    raise AssertionError(named)


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_options_are_sound_but_for_files_that_are_not_here(tmp_path, path):
    is_train = path.stem.startswith('train_')
    report = check_options(read_source(path), is_train=is_train, root=tmp_path, launcher=None, thorough=True)
    # weights that tests do not fetch, extras, and published weights, which are named on the command line
    absent = re.compile('was asked for|needs the package|expected the weights to test')
    problems = [problem for problem in report.problems if problem.path not in report.paths]
    assert [str(problem) for problem in problems if not absent.search(str(problem))] == []
    assert report.values['name'] == path.stem
