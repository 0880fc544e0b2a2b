"""Short ways to change options and to check them."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from basicsr_ext.checking import check_options
from basicsr_ext.checking.report import Report
from basicsr_ext.options.source import read_source


def report_on(options: dict, root: Path, is_train: bool = True, **arguments: Any) -> Report:
    """Checks options; what they are based on is left unchanged."""
    return check_options(read_source(deepcopy(options)), is_train=is_train, root=root, **arguments)


def problems(options: dict, root: Path, is_train: bool = True, **arguments: Any) -> list[str]:
    """Checks options; returns what is wrong with them."""
    return [str(problem) for problem in report_on(options, root, is_train, **arguments).problems]


def changed(options: dict, path: str, value: Any) -> dict:
    """Options with one of them set; a value of ``...`` removes it."""
    *above, key = path.split('.')
    block = options
    for part in above:
        block = block.setdefault(part, {})
    if value is ...:
        del block[key]
    else:
        block[key] = value
    return options
