"""Public names of a package, imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def export(
    package: str, modules: Mapping[str, Sequence[str]], needs_basicsr: bool = False
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Makes what a package needs for its names to be imported on demand.

    Args:
        package: Its ``__name__``.
        modules: Module of the package -> the names that are public in it.
        needs_basicsr: Whether the modules import BasicSR, which has to be made importable before.

    Returns:
        ``__getattr__``, ``__dir__`` and ``__all__`` of the package.
    """
    homes = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        if needs_basicsr:
            from basicsr_ext import compat

            compat.apply()
        return getattr(importlib.import_module(f'{package}.{homes[name]}'), name)

    return get, lambda: sorted(homes), sorted(homes)
