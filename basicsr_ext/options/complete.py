"""Option files: safe loading, ``--force_yml``, and the fields that BasicSR adds before it trains."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr_ext.errors import UserError
from basicsr_ext.options.source import OptionSource, read_source

_REQUIRED = {
    True: ('name', 'model_type', 'num_gpu', 'datasets', 'path', 'train', 'logger'),
    False: ('name', 'model_type', 'num_gpu', 'datasets', 'path', 'val'),
}


def load_yaml(path: str | os.PathLike) -> dict[str, Any]:
    """Loads an option file, and those it is based on, without running anything in it.

    Raises:
        UserError: The file is missing, is not valid YAML, repeats a key, or does not hold a mapping.
    """
    return read_source(path).values


def read_options(
    options: str | os.PathLike | Mapping[str, Any] | OptionSource, force_yml: Iterable[str] = ()
) -> dict[str, Any]:
    """Returns options from a file or a mapping, with ``--force_yml`` applied; what is given is left unchanged."""
    if isinstance(options, OptionSource):
        return deepcopy(options.values)
    return read_source(options, force_yml).values


def complete_options(options: dict[str, Any], root: Path, is_train: bool, debug: bool) -> dict[str, Any]:
    """Adds what BasicSR's ``parse_options`` adds: dataset phases and scales, and the experiment's folders.

    Datasets that are null are left out.

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
    datasets = options['datasets']
    if isinstance(datasets, dict):
        datasets = options['datasets'] = {phase: block for phase, block in datasets.items() if block is not None}
    if not isinstance(datasets, dict) or not all(isinstance(block, dict) for block in datasets.values()):
        raise UserError(
            'datasets: expected a block of options for every dataset, such as datasets.train and datasets.val.'
        )
    if is_train and 'train' not in datasets:
        raise UserError('datasets: training needs a block datasets.train, and there is none.')
    options['path'] = options['path'] or {}
    options['is_train'] = is_train
    if debug and not options['name'].startswith('debug'):
        options['name'] = 'debug_' + options['name']

    for phase, dataset in datasets.items():
        dataset['phase'] = phase.split('_')[0]
        dataset['block'] = phase  # this package's datasets name it in their messages
        if 'scale' in options:
            dataset['scale'] = options['scale']
        for key, value in dataset.items():
            if key.startswith('dataroot') and isinstance(value, str):
                dataset[key] = os.path.expanduser(value)
    options['path'].pop(
        'root', None
    )  # it is in the folders below; BasicSR makes a folder for every key it does not know
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
