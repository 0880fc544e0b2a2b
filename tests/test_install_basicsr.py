"""BasicSR is built where its setup.py fails by itself; here a source package stands in that fails in the same way."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path

import pytest

import basicsr_ext
from basicsr_ext import install_basicsr

ROOT = Path(basicsr_ext.__file__).parents[1]
TOOLS = ('pip', 'setuptools', '_distutils_hack', 'pkg_resources', 'wheel', 'packaging')
SETUP = """
from setuptools import setup

def version():
    exec(compile(open('version.txt').read(), 'version.txt', 'exec'))
    return locals()['number']

setup(name='basicsr', version=version(), py_modules=['basicsr'])
"""


@pytest.fixture
def environment(tmp_path) -> Path:
    """A Python with pip, setuptools and wheel, and a torch that nothing imports."""
    venv.create(tmp_path / 'env', with_pip=False, symlinks=True)
    (packages,) = (tmp_path / 'env').glob('lib/python*/site-packages')
    for name in TOOLS:
        spec = importlib.util.find_spec(name)
        if spec is not None:
            (packages / name).symlink_to(Path(spec.origin).parent)
            for info in Path(spec.origin).parents[1].glob(f'{name}-*.dist-info'):
                (packages / info.name).symlink_to(info)
    (packages / 'torch').mkdir()
    (packages / 'torch/__init__.py').touch()
    return tmp_path / 'env/bin/python'


@pytest.fixture
def sdist(tmp_path) -> Path:
    """Folder with a source package of the name and version of BasicSR."""
    folder = tmp_path / 'source/basicsr-1.4.2'
    folder.mkdir(parents=True)
    texts = {'setup.py': SETUP, 'version.txt': "number = '1.4.2'", 'basicsr.py': 'built = True'}
    texts['PKG-INFO'] = 'Metadata-Version: 2.1\nName: basicsr\nVersion: 1.4.2\n'
    for name, text in texts.items():
        (folder / name).write_text(text)
    (tmp_path / 'index').mkdir()
    with tarfile.open(tmp_path / 'index/basicsr-1.4.2.tar.gz', 'w:gz') as archive:
        archive.add(folder, folder.name)
    return tmp_path / 'index'


def run(python: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {name: value for name, value in os.environ.items() if not name.startswith('PIP_')}
    environment.update(
        PYTHONPATH=str(ROOT), PIP_NO_INDEX='1', PIP_NO_CACHE_DIR='1', PIP_CONFIG_FILE=os.devnull, **variables
    )
    command = [str(python), '-m', 'basicsr_ext.install_basicsr', *arguments]
    return subprocess.run(command, env=environment, cwd='/', capture_output=True, text=True, timeout=240)


def test_it_builds_installs_and_says_what_it_does(environment, sdist):
    result = run(environment, PIP_FIND_LINKS=str(sdist))
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 2
    assert 'Building BasicSR 1.4.2' in result.stdout
    built = 'from importlib.metadata import version; import basicsr; assert basicsr.built; print(version("basicsr"))'
    out = subprocess.run([environment, '-c', built], capture_output=True, text=True, check=True, cwd='/').stdout
    assert out.strip() == '1.4.2'
    assert run(environment).stdout == 'BasicSR 1.4.2 is installed.\n'  # nothing is looked for


def test_what_the_build_needs_is_named(environment, sdist):
    (packages,) = environment.parents[1].glob('lib/python*/site-packages')
    (packages / 'torch/__init__.py').unlink()
    (packages / 'torch').rmdir()
    result = run(environment, PIP_FIND_LINKS=str(sdist))
    assert result.returncode == 2
    assert 'needs torch in this environment. First run: python -m pip install torch torchvision' in result.stderr


def test_a_failure_of_pip_is_told_after_its_own_output(environment, tmp_path):
    result = run(environment, PIP_FIND_LINKS=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith('install_basicsr: error: pip wheel failed for BasicSR 1.4.2')
    assert 'No matching distribution found for basicsr==1.4.2' in result.stderr


def test_locals_holds_what_was_executed_and_other_calls_of_exec_are_as_ever(tmp_path):
    """On every Python: before 3.13 locals() held it anyway."""
    (tmp_path / 'sitecustomize.py').write_text(install_basicsr._SITECUSTOMIZE)
    code = (
        'def within():\n    own = 1\n    exec("answer = own + 41")\n    return locals()["answer"]\n'
        'def given():\n    names = {}\n    exec("x = 1", names)\n    exec("y = x", names, mine := {})\n'
        '    return names["x"], mine, "x" in locals()\n'
        'exec("top = 7")\n'
        'assert within() == 42 and given() == (1, {"y": 1}, False) and top == 7 and globals()["top"] == 7'
    )
    environment = {**os.environ, 'PYTHONPATH': str(tmp_path)}
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, timeout=60)
