"""The wheel is enough: installed elsewhere it has all that a user needs, option files and recipes included."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import cv2
import pytest
from installed_package import use_package

ROOT = Path(__file__).parents[1]
SOURCES = (
    'basicsr_ext',
    'options',
    'datasets_prep',
    'pyproject.toml',
    'setup.py',
    'README.md',
    'LICENSE',
    'CITATION.cff',
)


def pip(*arguments: str | Path) -> None:
    environment = {**os.environ, 'PIP_NO_INDEX': '1', 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
    command = [sys.executable, '-m', 'pip', *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """Built from a copy: a build leaves folders behind, from which the next one would take what is no longer there."""
    source, target = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy(ROOT / name, source)
    pip('wheel', '--no-deps', '--no-build-isolation', '--wheel-dir', target, source)
    (path,) = target.glob('*.whl')
    return path


def test_it_holds_every_module_option_file_and_recipe(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if '.dist-info/' not in name}
        texts = {name.partition('.dist-info/')[2]: name for name in archive.namelist() if '.dist-info/' in name}
        metadata = archive.read(texts['METADATA']).decode()
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / 'basicsr_ext').rglob('*.py')}
    expected |= {f'basicsr_ext/shipped/options/{path.name}' for path in (ROOT / 'options').iterdir()}
    expected |= {f'basicsr_ext/shipped/datasets_prep/{path.name}' for path in (ROOT / 'datasets_prep').iterdir()}
    assert names == expected
    assert {'licenses/LICENSE', 'licenses/CITATION.cff'} <= texts.keys()
    assert 'Project-URL: BasicSR, https://github.com/' in metadata and 'https://arxiv.org/abs/2312.17526' in metadata
    assert 'Requires-Dist: basicsr==1.4.2; python_version < "3.13"\n' in metadata
    assert 'Requires-Python: >=3.11\n' in metadata


def test_from_photographs_to_an_enlarged_image_with_nothing_else(wheel, tmp_path):
    """In an environment that sees the packages of this one, but for the clone."""
    environment, folder = tmp_path / 'environment', tmp_path / 'anywhere'
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / 'bin/python'
    (packages,) = environment.glob('lib/python*/site-packages')
    (packages / 'packages.pth').write_text('\n'.join(path for path in sys.path if path.endswith('-packages')))
    pip('--python', python, 'install', '--no-deps', '--no-index', wheel)
    folder.mkdir()
    enlarged = use_package(python, folder, with_eco=False)
    assert cv2.imread(str(enlarged)).shape == (1024, 1024, 3)
