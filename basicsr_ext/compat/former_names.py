"""Names under the modules in which BasicSR 1.4.2 looks for them."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any


def offer(module_name: str, names: Mapping[str, Callable[[], Any]], gone: str | None = None) -> None:
    """Imports names from a module, and offers a stand-in for each that is gone; for the module too, where all of it is gone.

    Args:
        module_name: Full name of the module.
        names: Name -> function that makes or imports its stand-in, called only where the name is gone.
        gone: Package that may be gone as a whole; default: none but the module itself.

    Raises:
        ImportError: Something else is missing or broken: nothing that a stand-in would mend.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', DeprecationWarning)  # the modules say that they will go
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name not in (module_name, gone):
                raise
            stand_ins = {name: make() for name, make in names.items()}
            module = _put_module(module_name)
        else:
            stand_ins = {name: make() for name, make in names.items() if not hasattr(module, name)}
    vars(module).update(stand_ins)


def _put_module(name: str) -> ModuleType:
    """Makes an empty module importable, and the packages that it is in, where they are gone."""
    module = sys.modules[name] = ModuleType(name, 'What BasicSR uses of a module that is gone.')
    package_name, _, last = name.rpartition('.')
    if package_name:
        package = sys.modules.get(package_name) or _put_module(package_name)
        package.__path__ = getattr(package, '__path__', [])
        setattr(package, last, module)
    return module
