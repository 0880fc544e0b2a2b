"""Option files: safe loading, ``--force_yml``, and the fields that BasicSR adds before it trains."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from basicsr_ext.errors import UserError

_REQUIRED = {
    True: ('name', 'model_type', 'num_gpu', 'datasets', 'path', 'train', 'logger'),
    False: ('name', 'model_type', 'num_gpu', 'datasets', 'path', 'val'),
}


class _Loader(yaml.SafeLoader):
    """Builds plain values only; refuses duplicate keys; reads ``1e-4`` as a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag == 'tag:yaml.org,2002:merge':
                continue
            key, line = self.construct_object(key_node), key_node.start_mark.line + 1
            if key in lines:
                raise yaml.constructor.ConstructorError(
                    problem=f'the key "{key}" appears twice in one block, in lines {lines[key]} and {line}',
                    problem_mark=key_node.start_mark,
                )
            lines[key] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float',
    re.compile(r'^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$'),
    list('-+0123456789.'),
)


def load_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Loads an option file without running anything in it.

    Raises:
        UserError: The file is missing, is not valid YAML, repeats a key, or does not hold a mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except OSError as error:
        raise UserError(f'Option file {path}: cannot be read ({error.strerror or error}).') from None
    except UnicodeDecodeError:
        raise UserError(f'Option file {path}: expected a text file in UTF-8, found other bytes.') from None
    return _parse(text, f'Option file {path}')


def _parse(text: str, what: str) -> Any:
    try:
        options = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f', line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UserError(f'{what}{line}: {error.problem or error.context}.') from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f'{what}: not valid YAML ({str(error).splitlines()[0]}).') from None
    if what.startswith('Option file') and not isinstance(options, dict):
        raise UserError(f'{what}: expected options as "key: value" lines, found {type(options).__name__}.')
    return options


def force_options(options: dict[str, Any], assignments: Iterable[str]) -> None:
    """Sets options in place from ``key:key=value`` strings; values are typed as in a YAML file.

    Args:
        options: Nested options to change.
        assignments: Such as ``train:total_iter=1000`` or ``datasets:train:gt_size=64``.

    Raises:
        UserError: An assignment has no ``=``, or names a key that the options do not have.
    """
    for assignment in assignments:
        path, equals, value = assignment.partition('=')
        keys = [key.strip() for key in path.split(':')]
        if not equals or not all(keys):
            raise UserError(f'--force_yml: expected key:key=value, found "{assignment}".')
        block: Any = options
        for depth, key in enumerate(keys):
            where = ':'.join(keys[: depth + 1])
            if not isinstance(block, dict):
                raise UserError(f'--force_yml {assignment}: "{":".join(keys[:depth])}" is no block of options.')
            if key not in block:
                close = difflib.get_close_matches(key, map(str, block), n=1)
                hint = f'did you mean "{close[0]}"?' if close else f'known there: {", ".join(map(str, block))}.'
                raise UserError(f'--force_yml {assignment}: the options have no key "{where}"; {hint}')
            if depth < len(keys) - 1:
                block = block[key]
        block[keys[-1]] = _parse(value.strip(), f'--force_yml {assignment}')


def read_options(options: str | os.PathLike | Mapping[str, Any], force_yml: Iterable[str] = ()) -> dict[str, Any]:
    """Returns options from a file or a mapping, with ``--force_yml`` applied; the mapping is left unchanged."""
    result = deepcopy(dict(options)) if isinstance(options, Mapping) else load_yaml(options)
    force_options(result, force_yml)
    return result


def complete_options(options: dict[str, Any], root: Path, is_train: bool, debug: bool) -> dict[str, Any]:
    """Adds what BasicSR's ``parse_options`` adds: dataset phases and scales, and the experiment's folders.

    Upstream: ``basicsr/utils/options.py``, ``parse_options``.

    Args:
        options: As :func:`read_options` gives them; changed in place and returned.
        root: Folder in which ``experiments`` or ``results`` are made.
        is_train: Training or testing.
        debug: Short intervals, and the name prefixed with ``debug_``.

    Raises:
        UserError: A section that BasicSR needs is missing.
    """
    missing = [key for key in _REQUIRED[is_train] if key not in options]
    if missing:
        raise UserError(f'The options lack {", ".join(missing)}: add {"it" if len(missing) == 1 else "them"}.')
    if not isinstance(options['datasets'], dict) or not all(isinstance(v, dict) for v in options['datasets'].values()):
        raise UserError(
            'datasets: expected a block of options for every dataset, such as datasets.train and datasets.val.'
        )
    if is_train and 'train' not in options['datasets']:
        raise UserError('datasets: training needs a block datasets.train, and there is none.')
    options['path'] = options['path'] or {}
    options['is_train'] = is_train
    if debug and not options['name'].startswith('debug'):
        options['name'] = 'debug_' + options['name']

    for phase, dataset in options['datasets'].items():
        dataset['phase'] = phase.split('_')[0]
        if 'scale' in options:
            dataset['scale'] = options['scale']
        for key, value in dataset.items():
            if key.startswith('dataroot') and isinstance(value, str):
                dataset[key] = os.path.expanduser(value)
    for key, value in options['path'].items():
        if isinstance(value, str) and ('resume_state' in key or 'pretrain_network' in key):
            options['path'][key] = os.path.expanduser(value)

    if is_train:
        folder = root / 'experiments' / options['name']
        options['path'].update(
            experiments_root=str(folder),
            models=str(folder / 'models'),
            training_states=str(folder / 'training_states'),
            log=str(folder),
            visualization=str(folder / 'visualization'),
        )
        if 'debug' in options['name']:
            if options.get('val'):
                options['val']['val_freq'] = 8
            options['logger'].update(print_freq=1, save_checkpoint_freq=8)
    else:
        folder = root / 'results' / options['name']
        options['path'].update(results_root=str(folder), log=str(folder), visualization=str(folder / 'visualization'))
    return options
