"""Looks classes up in BasicSR's registries."""

from __future__ import annotations

from typing import Any, Literal

from basicsr.utils.registry import Registry

from basicsr_ext.checking.report import Report
from basicsr_ext.options.problems import KeyPath, not_registered

_SUFFIX = '_basicsr'  # BasicSR registers some of its classes so, to leave the plain name to others


def look_up(registry: Registry, name: str) -> Any:
    """Returns what is registered under a name, as BasicSR finds it; ``None`` where nothing is."""
    # Registry.get() prints before it fails.
    for key in (name, name + _SUFFIX):
        if key in registry:
            return registry.get(key)
    return None


def registered_names(registry: Registry) -> list[str]:
    """Names by which :func:`look_up` finds something."""
    return [key.removesuffix(_SUFFIX) for key in registry.keys()]


def find_registered(report: Report, path: KeyPath, registry: Registry, what: str) -> Any:
    """Returns the class or function that an option names; notes a problem where none is registered.

    Args:
        report: Takes the problem.
        path: Of the option that holds the name; nothing is looked up where it is known to be wrong.
        registry: Where to look.
        what: What is looked for, such as ``network``.
    """
    name = report.get(*path)
    if not isinstance(name, str) or not report.has_no_problems(*path):
        return None
    target = look_up(registry, name)
    if target is None:
        report.error(path, not_registered(what, name, registered_names(registry)))
    return target


def origin(target: Any) -> Literal['stock', 'ours', 'other']:
    """Says whose a class or function is: BasicSR's, this package's, or somebody else's."""
    package = target.__module__.partition('.')[0]
    return {'basicsr': 'stock', 'basicsr_ext': 'ours'}.get(package, 'other')
