"""Builds and installs BasicSR 1.4.2, on Pythons too for which its source package does not build.

    python -m basicsr_ext.install_basicsr [-c CONSTRAINTS]

Upstream: BasicSR's ``setup.py`` executes a file within a function and then reads ``locals()``, which from Python 3.13 on does
not hold what was executed (PEP 667). Delete this file when a release of BasicSR builds there.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from basicsr_ext.errors import UserError

VERSION = '1.4.2'
_NEEDED = ('pip', 'setuptools', 'wheel', 'torch')

# What Python imports when it starts, in pip's processes alone: an exec() without namespaces writes where locals() looks.
_SITECUSTOMIZE = """
import builtins
import sys

_exec = builtins.exec


def _exec_into_locals(source, /, globals=None, locals=None, **closure):
    if globals is None and locals is None:
        caller = sys._getframe(1)
        globals, locals = caller.f_globals, caller.f_locals
    _exec(source, globals, locals, **closure)


builtins.exec = _exec_into_locals
"""


def install(constraints: str | os.PathLike | None = None) -> None:
    """Builds BasicSR's wheel in a temporary folder and installs it, and what it requires, into this environment.

    Does nothing where it is installed. pip's own settings (``PIP_INDEX_URL``, ``PIP_FIND_LINKS`` and so on) count.

    Args:
        constraints: pip's file of constraints.

    Raises:
        UserError: Something that the build needs is missing, or pip failed; pip's own output says why.
    """
    if _installed_version() == VERSION:
        print(f'BasicSR {VERSION} is installed.')
        return
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        names = ' '.join('torch torchvision' if name == 'torch' else name for name in missing if name != 'pip')
        commands = ['python -m ensurepip'] if 'pip' in missing else []
        commands += [f'python -m pip install {names}'] if names else []
        raise UserError(
            f'Building BasicSR needs {", ".join(missing)} in this environment. First run: {" && ".join(commands)}'
        )
    print(f'Building BasicSR {VERSION} with the setuptools of this environment, in a temporary folder that is removed,')
    print('then installing it and what it requires with pip.', flush=True)
    with TemporaryDirectory() as name:
        folder = Path(name)
        environment = dict(os.environ)
        if sys.version_info >= (3, 13):
            (folder / 'sitecustomize.py').write_text(_SITECUSTOMIZE, encoding='utf-8')
            environment['PYTHONPATH'] = os.pathsep.join(filter(None, [name, environment.get('PYTHONPATH')]))
        # not isolated: a build environment of its own would download torch, which setup.py asks for, once more
        _pip('wheel', '--no-build-isolation', '--no-deps', '--wheel-dir', name, f'basicsr=={VERSION}', env=environment)
        (wheel,) = folder.glob('*.whl')
        _pip('install', *(['-c', os.fspath(constraints)] if constraints else []), os.fspath(wheel))


def _installed_version() -> str | None:
    try:
        return metadata.version('basicsr')
    except metadata.PackageNotFoundError:
        return None


def _pip(command: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    if subprocess.run([sys.executable, '-m', 'pip', command, '--quiet', *arguments], env=env, check=False).returncode:
        raise UserError(f'pip {command} failed for BasicSR {VERSION}: its output above says why.')


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog='python -m basicsr_ext.install_basicsr',
        description=f'Builds BasicSR {VERSION} from its source package and installs it into this environment, on Python 3.13 '
        'and later too. Needs torch, setuptools and wheel there.',
    )
    parser.add_argument('-c', '--constraint', metavar='FILE', help="pip's constraints for what BasicSR requires")
    try:
        install(parser.parse_args(arguments).constraint)
    except UserError as error:
        print(f'install_basicsr: error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
