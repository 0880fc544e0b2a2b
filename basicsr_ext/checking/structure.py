"""First pass: types of values, and blocks that must be there. Imports neither torch nor BasicSR."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

from basicsr_ext.checking import stock_frame
from basicsr_ext.checking.report import Report
from basicsr_ext.options.kinds import BLOCK, CLASS, NAME
from basicsr_ext.options.problems import KeyPath, found
from basicsr_ext.options.tables import Table

PHASES = {True: ('train', 'val'), False: ('test', 'val')}


def network_keys(report: Report) -> list[str]:
    """Keys of the file that describe a network, and are not null."""
    return [key for key, block in report.values.items() if str(key).startswith('network_') and block is not None]


def datasets(report: Report) -> dict[str, Mapping[str, Any]]:
    """Blocks of the datasets by name; those that are null, and those that are no blocks, are left out."""
    return {name: block for name, block in report.block('datasets').items() if isinstance(block, Mapping)}


def phase_of(name: Any) -> str:
    """BasicSR's phase of a dataset: the name of its block up to the first underscore."""
    return str(name).split('_')[0]


def check_structure(report: Report) -> None:
    """Checks everything about values that can be known without the classes that read them."""
    report.check_values((), stock_frame.TOP)
    report.check_needed((), stock_frame.TOP)
    for key in network_keys(report):
        _check_typed(report, (key,))
    _check_datasets(report)
    _check_path(report)
    if report.is_train:
        _check_train(report)
        _check_block(report, ('logger',), stock_frame.LOGGER)
        _check_block(report, ('logger', 'wandb'), stock_frame.WANDB)
        if report.get('logger', 'wandb', 'project') is not None and report.get('logger', 'use_tb_logger') is False:
            report.error(('logger', 'use_tb_logger'), 'expected true, since logger.wandb takes its values from there.')
        _check_installed(report, ('logger', 'wandb', 'project'), 'wandb')
        if report.get('logger', 'use_tb_logger') is True:
            _check_installed(report, ('logger', 'use_tb_logger'), 'tensorboard')
    _check_val(report)
    _check_block(report, ('dist_params',), stock_frame.DIST_PARAMS)


def _check_installed(report: Report, path: KeyPath, package: str) -> None:
    """Checks that the package that an option asks for is installed, without importing it."""
    if report.get(*path) is None or not report.has_no_problems(*path):
        return
    found_at = importlib.util.find_spec(package)
    if found_at is None or found_at.origin is None:  # a folder of that name in the working directory has no origin
        report.error(path, f'this needs the package {package}, which is not installed: pip install {package}.')


def _check_block(report: Report, path: KeyPath, table: Table) -> None:
    """Checks a block about which everything is known, if it is there."""
    if isinstance(report.get(*path), Mapping):
        report.check_values(path, table)
        report.check_needed(path, table)
        report.check_unknown(path, table, 'this block')


def _check_typed(report: Report, path: KeyPath) -> None:
    """Checks that a block is one, and names a type."""
    if not report.check_value(path, report.get(*path), BLOCK):
        return
    if 'type' not in report.block(*path):
        report.missing((*path, 'type'), CLASS)
    else:
        report.check_value((*path, 'type'), report.get(*path, 'type'), CLASS)


def _check_datasets(report: Report) -> None:
    if not report.has_no_problems('datasets'):
        return
    blocks = {name: block for name, block in report.block('datasets').items() if block is not None}
    if report.is_train and 'train' not in blocks:
        report.error(('datasets', 'train'), 'training needs this block, and there is none.')
    if not report.is_train and not blocks:
        report.error(('datasets',), 'expected a block for each test set, such as datasets.test, found none.')
    for name in blocks:
        _check_dataset(report, name)


def _check_dataset(report: Report, name: Any) -> None:
    path = ('datasets', name)
    phase = phase_of(name)
    if report.check_value(path, report.get(*path), BLOCK):
        report.check_values(path, stock_frame.DATASET)
        report.check_needed(path, stock_frame.DATASET, is_train=phase == 'train')
        if not report.is_train and report.has_no_problems(*path, 'name') and report.get('val', 'save_img') is True:
            report.check_value(
                (*path, 'name'), report.get(*path, 'name'), NAME
            )  # a folder of that name takes its images
        if report.get(*path, 'io_backend') is not None:
            _check_typed(report, (*path, 'io_backend'))
    if phase not in PHASES[report.is_train] or (phase == 'train' and name != 'train'):
        expected = 'train, val or val_2' if report.is_train else 'test, test_2 or val'
        report.error(path, f'expected a name such as {expected} for a dataset in this run, found {found(name)}.')


def _check_path(report: Report) -> None:
    letters = [key.removeprefix('network_') for key in map(str, report.values) if key.startswith('network_')]
    table = dict(stock_frame.PATHS)
    for letter in letters or ['g']:
        table.update({key.format(letter): known for key, known in stock_frame.PATHS_OF_NETWORK.items()})
    report.check_values(('path',), table)
    report.check_unknown(('path',), table, 'this block')


def _check_train(report: Report) -> None:
    if not isinstance(report.get('train'), Mapping):
        return
    report.check_values(('train',), stock_frame.TRAIN)
    report.check_needed(('train',), stock_frame.TRAIN)
    for key, value in report.block('train').items():
        is_typed = str(key).endswith('_opt') or str(key).startswith(('optim_', 'scheduler'))
        if is_typed and value:  # BasicSR takes an empty block for none
            _check_typed(report, ('train', key))


def _check_val(report: Report) -> None:
    if not report.is_train and 'val' in report.values:
        report.check_value(('val',), report.get('val'), BLOCK)  # BasicSR's test reads it in any case
    if not isinstance(report.get('val'), Mapping):
        return
    report.check_values(('val',), stock_frame.VAL)
    report.check_needed(('val',), stock_frame.VAL)
    for name in report.block('val', 'metrics'):
        _check_typed(report, ('val', 'metrics', name))
