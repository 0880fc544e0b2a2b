"""Puts this package's classes into BasicSR's registries."""

from __future__ import annotations

import importlib
import pkgutil

from basicsr_ext import compat

_SUFFIXES = {'archs': '_arch', 'losses': '_loss', 'metrics': '_metric', 'data': '_dataset', 'models': '_model'}


def register() -> None:
    """Applies the compatibility mends, imports BasicSR, then every module of this package that registers classes.

    Raises:
        UserError: BasicSR is not installed.
    """
    compat.apply()
    importlib.import_module('basicsr')
    for folder, suffix in _SUFFIXES.items():
        package = importlib.import_module(f'basicsr_ext.{folder}')
        for module in pkgutil.walk_packages(package.__path__, f'{package.__name__}.'):
            if module.name.endswith(suffix):
                importlib.import_module(module.name)
