"""Imports go down the floors of the house, and not in circles."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'basicsr_ext'

# From the top to the ground. A module may import from its own floor and from those below.
FLOORS = (
    ('', '__main__', 'install_basicsr', 'cli'),  # '': the package itself, which is light and imports when it is asked
    ('report', 'evaluation', 'prepare', 'trainer'),
    ('checking',),
    ('models',),
    ('archs', 'losses', 'data', 'metrics'),
    ('networks', 'storage'),
    ('options', 'distributed', 'processes', 'shipped_files', 'registration'),
    ('functional', 'files', 'memory', 'errors', 'protocols', 'lazy', 'compat'),
)
WITHOUT_BASICSR = ('functional', 'storage', 'options')
WITHOUT_TORCH = ('options',)

# Arrows that go up today: (who, what it imports). To be mended; an entry that is no longer needed has to go.
TO_BE_MENDED: set[tuple[str, str]] = {
    ('options.resolve', 'checking.report'),
    ('prepare.luma', 'cli.prepare_luma'),
}
# Modules that import one another in a circle today. To be mended as well.
CIRCLES: set[frozenset[str]] = {
    frozenset(['cli.prepare_luma', 'prepare.luma']),
}


def modules() -> dict[str, Path]:
    """Name of each module within the package -> file; a package is called as its folder, the whole package ''."""
    names = {}
    for path in PACKAGE.rglob('*.py'):
        parts = path.relative_to(PACKAGE).with_suffix('').parts
        names['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return names


def imported(path: Path) -> Iterator[str]:
    """Absolute names that a file imports, at its top or in a function; ``from a import b`` gives a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: imports are absolute'
            yield from (f'{node.module}.{alias.name}' for alias in node.names)


def arrows() -> set[tuple[str, str]]:
    """Who imports whom within the package; the package itself (its version, ``register``) is no aim."""
    known = modules()
    found = set()
    for name, path in known.items():
        for target in imported(path):
            package, _, inner = target.partition('.')
            if package != 'basicsr_ext':
                continue
            if inner not in known:  # a name in a module
                inner = inner.rpartition('.')[0]
            assert inner in known, f'{path}: {target}'
            if inner not in ('', name):
                found.add((name, inner))
    return found


def floor(module: str) -> int:
    """Number of a module's floor; 0 is the highest."""
    top = module.partition('.')[0]
    return next(number for number, names in enumerate(FLOORS) if top in names)


def arrows_up() -> set[tuple[str, str]]:
    """Imports from a floor above."""
    return {(who, what) for who, what in arrows() if floor(what) < floor(who)}


def circles() -> set[frozenset[str]]:
    """Sets of modules each of which reaches all others of its set by imports."""
    below: dict[str, set[str]] = {name: set() for name in modules()}
    for who, what in arrows():
        below[who].add(what)

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        waiting = [*below[name]]
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += below[module]
        return seen

    reach = {name: reached(name) for name in below}
    return {frozenset(other for other in reach[name] if name in reach[other]) for name in below if name in reach[name]}


def test_every_module_has_a_floor():
    homes = {home for names in FLOORS for home in names}
    assert {name.partition('.')[0] for name in modules()} <= homes


def test_imports_go_down():
    assert sorted(arrows_up() - TO_BE_MENDED) == []
    assert sorted(TO_BE_MENDED - arrows_up()) == [], 'mended: take it out of the list'


def test_imports_go_in_no_circle():
    assert sorted(map(sorted, circles() - CIRCLES)) == []
    assert sorted(map(sorted, CIRCLES - circles())) == [], 'mended: take it out of the list'


@pytest.mark.parametrize(
    ('folder', 'library'),
    [*((folder, 'basicsr') for folder in WITHOUT_BASICSR), *((folder, 'torch') for folder in WITHOUT_TORCH)],
)
def test_folders_keep_away_from_libraries(folder, library):
    users = {
        f'{path.name}: {name}'
        for path in (PACKAGE / folder).rglob('*.py')
        for name in imported(path)
        if name.partition('.')[0] == library
    }
    assert not users
