"""The option files and dataset recipes that come with the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from basicsr_ext.errors import UserError, writing_failed
from basicsr_ext.options.closest import closest_name

PREFIX = 'basicsr_ext:'  # before the name of an option file: it is a shipped one


def shipped_folder(name: str) -> Path:
    """Finds a folder of files that come with the package: in the installed package, or in the clone that it runs from.

    Args:
        name: ``options`` or ``datasets_prep``.

    Raises:
        UserError: The installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / 'shipped' / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise UserError(f'{package}: expected the folder shipped/{name}, found none: install basicsr-ext again.')


def shipped_options() -> dict[str, Path]:
    """Returns the option files, name without ``.yml`` -> path, by name."""
    return {path.stem: path for path in sorted(shipped_folder('options').glob('*.yml'))}


def shipped_recipes() -> dict[str, Path]:
    """Returns the dataset recipes, name without ``.sh`` -> path, by name."""
    recipes = sorted(shipped_folder('datasets_prep').glob('*.sh'))
    return {path.stem: path for path in recipes if path.stem != 'common'}


def find_shipped_options(name: str) -> Path:
    """Finds an option file by its name, with or without ``.yml``.

    Raises:
        UserError: There is none of that name; the closest ones are named.
    """
    return _find(name, '.yml', shipped_options(), 'option file', 'basicsr options list')


def describe(path: Path) -> str:
    """The first line of the comment at the head of an option file or recipe."""
    for line in path.read_text(encoding='utf-8').splitlines():
        if line.startswith('#') and not line.startswith('#!'):
            return line.removeprefix('#').strip()
    return ''


def copy_options(names: Sequence[str], folder: str | os.PathLike) -> list[Path]:
    """Copies option files, with those that they are based on, into a folder.

    A file that is there already with the same content stays.

    Args:
        names: With or without ``.yml``.
        folder: Made where it is missing.

    Returns:
        The copies.

    Raises:
        UserError: A name is unknown, or a file that is there would be replaced by another; nothing is copied then.
    """
    sources = {}
    waiting = [find_shipped_options(name) for name in names]
    while waiting:
        source = waiting.pop()
        if source.name not in sources:
            sources[source.name] = content = source.read_bytes()
            waiting += [source.parent / base for base in _bases(content)]
    copies = {Path(folder, name): sources[name] for name in sorted(sources)}
    try:
        for path, content in copies.items():
            if path.exists() and (not path.is_file() or path.read_bytes() != content):
                raise UserError(f'{path} is there already, and differs. Choose another folder, or rename that file.')
        for path, content in copies.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise writing_failed(folder, error) from error
    return list(copies)


def run_recipe(name: str, arguments: Sequence[str]) -> int:
    """Runs a dataset recipe in the working directory.

    The environment's ``BASICSR`` says how it calls the command; default: the command of this Python.

    Args:
        name: With or without ``.sh``.
        arguments: The recipe's own.

    Returns:
        Its exit status.

    Raises:
        UserError: There is none of that name, or no bash.
    """
    recipe = _find(name, '.sh', shipped_recipes(), 'recipe', 'basicsr recipe')
    bash = shutil.which('bash')
    if bash is None:
        raise UserError('Recipes are bash scripts: expected the program bash, found none. Install it.')
    environment = dict(os.environ)
    scripts = sysconfig.get_path('scripts')
    if Path(scripts, 'basicsr').exists():
        environment['PATH'] = os.pathsep.join(filter(None, [scripts, environment.get('PATH')]))
    else:
        environment.setdefault('BASICSR', f'{sys.executable} -m basicsr_ext')
    return subprocess.run([bash, str(recipe), *arguments], env=environment, check=False).returncode


def _find(name: str, suffix: str, known: dict[str, Path], kind: str, command: str) -> Path:
    path = known.get(name.removesuffix(suffix))
    if path is None:
        close = closest_name(name.removesuffix(suffix), known)
        hint = f'did you mean "{close}"?' if close else f'"{command}" names them.'
        raise UserError(f'No {kind} that comes with basicsr_ext is called "{name}"; {hint}')
    return path


def _bases(content: bytes) -> list[str]:
    import yaml

    names = yaml.safe_load(content).get('_base_', [])
    return [names] if isinstance(names, str) else names
