"""Checks the blocks of datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils.registry import DATASET_REGISTRY

from basicsr_ext.checking import stock_frame
from basicsr_ext.checking.blocks import check_block
from basicsr_ext.checking.registries import find_registered, origin
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.stock_datasets import DATASETS, NAMED_VIDEO_TESTS, VIDEO_TEST_NAMES
from basicsr_ext.checking.structure import datasets, phase_of
from basicsr_ext.options.problems import KeyPath, found, known_names


def check_datasets(report: Report) -> dict[str, type]:
    """Checks every dataset's block against its class.

    Returns:
        Name of the block -> class, for those whose class is known.
    """
    classes = {}
    for name, block in datasets(report).items():
        path = ('datasets', name)
        dataset = find_registered(report, (*path, 'type'), DATASET_REGISTRY, 'dataset')
        if dataset is None:
            continue
        classes[name] = dataset
        if origin(dataset) == 'stock':
            _check_stock(report, path, dataset.__name__, in_training=phase_of(name) == 'train')
        elif hasattr(dataset, 'options_type'):
            added = {'phase': phase_of(name), **{key: report.values[key] for key in ('scale',) if key in report.values}}
            check_block(report, path, dataset.options_type, block, added)
        else:
            report.check_unknown(path, stock_frame.DATASET, dataset.__name__, harmless=True)
    return classes


def _check_stock(report: Report, path: KeyPath, name: str, in_training: bool) -> None:
    table = DATASETS[name]
    report.check_values(path, table)
    report.check_needed(path, table, in_training, by=name)
    report.check_unknown(path, {**stock_frame.DATASET, **table}, name)
    block = report.block(*path)
    if 'mean' in table and (block.get('mean') is None) != (block.get('std') is None):
        report.error((*path, 'std' if 'std' in block else 'mean'), 'expected both mean and std, or neither.')
    if name in NAMED_VIDEO_TESTS and report.has_no_problems(*path, 'name'):
        report.check_value((*path, 'name'), str(report.get(*path, 'name')).lower(), VIDEO_TEST_NAMES)
    _check_io_backend(report, (*path, 'io_backend'), name)


def _check_io_backend(report: Report, path: KeyPath, dataset: str) -> None:
    if not isinstance(report.get(*path), Mapping) or not report.has_no_problems(*path):
        return
    kind: Any = report.get(*path, 'type')
    table = stock_frame.IO_BACKENDS.get(kind)
    if table is None:
        report.error(
            (*path, 'type'),
            f'expected the name of a backend, found {found(kind)}; {known_names(kind, stock_frame.IO_BACKENDS)}',
        )
    elif kind == 'lmdb' and dataset.startswith('Video'):
        report.error((*path, 'type'), f'expected disk, found lmdb, which {dataset} does not read.')
    else:
        report.check_values(path, table)
        report.check_needed(path, table)
        report.check_unknown(path, [*table, 'type'], f'the backend {kind}')
