"""From options that were checked to those that a run uses and writes down."""

from __future__ import annotations

import os
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from basicsr_ext.files import expand_home, follow_links
from basicsr_ext.options.source import OptionSource

if TYPE_CHECKING:
    from basicsr_ext.checking.report import Report


def find_root(values: Mapping[str, Any]) -> Path:
    """Returns the folder in which a run makes its folders: the option ``path.root``, or the working directory."""
    paths = values.get('path')
    root = paths.get('root') if isinstance(paths, Mapping) else None
    # A text with a null character would not even be a path; the check names it later.
    return follow_links(expand_home(root if isinstance(root, str) and '\0' not in root else '.'))


def resolved(report: Report, root: Path) -> OptionSource:
    """Returns the options with absolute paths and the root, so that they mean the same from any working directory."""
    values = deepcopy(report.values)
    for path, value in report.paths.items():
        block: Any = values
        for key in path[:-1]:
            block = block[key]
        block[path[-1]] = os.path.abspath(os.path.expanduser(value))
    values['path'] = {**(values['path'] or {}), 'root': str(root)}
    return OptionSource(values, report.source.places, report.source.file)


def print_warnings(report: Report) -> None:
    """Prints what the check warns of, once for all ranks."""
    if os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0':
        for warning in report.warnings:
            print(f'Warning: {warning}', flush=True)
