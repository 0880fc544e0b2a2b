"""Checks names of classes, and keys of this package's blocks, by reading the files that define them.

So a slip is told before torch and BasicSR are imported, which takes seconds. Nothing is run, and what cannot be known by
reading is left to the checks that import: only what these would refuse as well is refused here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from basicsr_ext.checking.report import Report
from basicsr_ext.checking.structure import datasets, network_keys, phase_of
from basicsr_ext.options.closest import closest_name
from basicsr_ext.options.config import structure_of
from basicsr_ext.options.problems import KeyPath, not_registered

_OURS, _STOCK = 'basicsr_ext', 'basicsr'
# A class or function at the left margin, with its decorators.
_DEFINITION = re.compile(r'^((?:@.*\n)*)(?:class|def) +(\w+)', re.MULTILINE)
_CALL = re.compile(r'^\w+_REGISTRY\.register\((\w+)\)', re.MULTILINE)
_NAMED_CALL = re.compile(r"^\w+_REGISTRY\._do_register\('(\w+)', \w+\)", re.MULTILINE)
_REGISTERS = re.compile(r'^@(?:\w+_REGISTRY\.register|metric)\(', re.MULTILINE)
_FOLDERS = {'network': 'archs', 'loss': 'losses', 'metric': 'metrics', 'dataset': 'data', 'model': 'models'}


class Definitions(NamedTuple):
    """What the files of a folder define, of both packages.

    Attributes:
        registered: Name of a class or function in the registry -> the file that defines it.
        defined: Names of all classes and functions.
    """

    registered: Mapping[str, Path]
    defined: frozenset[str]


def check_names_and_keys(report: Report) -> None:
    """Refuses misspelt names of networks, losses, metrics, datasets and models, and misspelt keys of this package's blocks.

    Args:
        report: Takes the problems.
    """
    if importlib.util.find_spec(_STOCK) is None:
        return
    for path, what in _named(report):
        name = report.get(*path)
        if isinstance(name, str) and report.has_no_problems(*path):
            _check_name(report, path, what, name)
    for name, block in datasets(report).items():
        structure = _attribute('dataset', report.get('datasets', name, 'type'), 'options_type')
        if isinstance(structure, ast.Name):
            added = {'phase': phase_of(name), **{key: report.values[key] for key in ('scale',) if key in report.values}}
            report.check_structure(('datasets', name), _imported('dataset', block['type'], structure.id), block, added)
    if report.is_train:
        _check_train_blocks(report)


def _named(report: Report) -> Iterator[tuple[KeyPath, str]]:
    """Options that hold the name of something registered, and what it is."""
    yield ('model_type',), 'model'
    for key in network_keys(report):
        yield (key, 'type'), 'network'
    for name in datasets(report):
        yield ('datasets', name, 'type'), 'dataset'
    for key in report.block('train') if report.is_train else ():
        if str(key).endswith('_opt'):
            yield ('train', key, 'type'), 'loss'
    for name in report.block('val', 'metrics'):
        yield ('val', 'metrics', name, 'type'), 'metric'


def _check_name(report: Report, path: KeyPath, what: str, name: str) -> None:
    definitions = _definitions(what)
    plain = name.removesuffix('_basicsr')
    if plain in definitions.defined:  # registered, or perhaps in a way that is not seen here
        return
    if closest_name(name, definitions.registered) is not None:  # else it may be somebody else's
        report.error(path, not_registered(what, name, definitions.registered))


def _check_train_blocks(report: Report) -> None:
    """Checks the blocks of ``train`` that a model of this package declares."""
    model = report.get('model_type')
    for cls in dict.fromkeys((model, 'TrainingModel')):
        blocks = _attribute('model', cls, 'train_blocks') if _is_ours('model', model) else None
        for key, value in zip(blocks.keys, blocks.values, strict=True) if isinstance(blocks, ast.Dict) else ():
            names = [node.id for node in ast.walk(value) if isinstance(node, ast.Name)]
            block = report.get('train', key.value) if isinstance(key, ast.Constant) else None
            if len(names) != 1 or not isinstance(block, Mapping):
                continue
            structure, _ = structure_of(_imported('model', cls, names[0]))
            if structure is not None:
                report.check_structure(('train', key.value), structure, block)


def _is_ours(what: str, name: Any) -> bool:
    file = _definitions(what).registered.get(name)
    return file is not None and _folder(_OURS) in file.parents


@cache
def _folder(package: str) -> Path:
    return Path(importlib.util.find_spec(package).origin).parent


@cache
def _definitions(what: str) -> Definitions:
    defined: dict[str, Path] = {}
    registered: set[str] = set()
    for package in (_STOCK, _OURS):
        for file in sorted((_folder(package) / _FOLDERS[what]).rglob('*.py')):
            text = file.read_text(encoding='utf-8')
            registered.update(_CALL.findall(text))
            for name in _NAMED_CALL.findall(text):  # under a name of its own
                defined[name] = file
                registered.add(name)
            for decorators, name in _DEFINITION.findall(text):
                defined[name] = file
                if _REGISTERS.search(decorators):
                    registered.add(name)
    return Definitions({name: defined[name] for name in registered & defined.keys()}, frozenset(defined))


@cache
def _parsed(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding='utf-8'))


def _attribute(what: str, name: Any, attribute: str) -> ast.expr | None:
    """What a class of this package assigns to an attribute, in its own body."""
    if not _is_ours(what, name):
        return None
    for cls in _parsed(_definitions(what).registered[name]).body:
        if isinstance(cls, ast.ClassDef) and cls.name == name:
            for statement in cls.body:
                if isinstance(statement, ast.Assign) and any(
                    isinstance(target, ast.Name) and target.id == attribute for target in statement.targets
                ):
                    return statement.value
    return None


def _imported(what: str, cls: str, name: str) -> Any:
    """What a name of the file of a class is imported from; those that are asked for here need no torch."""
    for statement in _parsed(_definitions(what).registered[cls]).body:
        if isinstance(statement, ast.ImportFrom) and any(alias.name == name for alias in statement.names):
            return getattr(importlib.import_module(statement.module), name)
    raise LookupError(f'{name} of {cls}')
