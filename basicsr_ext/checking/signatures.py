"""Checks a block of options against the signature of what it will be given to."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from basicsr_ext.checking.report import Report
from basicsr_ext.options.config import IS_NETWORK
from basicsr_ext.options.kinds import (
    ANY,
    BLOCK,
    FLAG,
    MAYBE_EMPTY,
    NUMBER,
    PATH,
    Kind,
    either,
    list_of,
    nullable,
    one_of,
)
from basicsr_ext.options.problems import KeyPath

_LIST = Kind('a list', lambda value: isinstance(value, (list, tuple)))


class Arguments(typing.NamedTuple):
    """What a class or function takes.

    Attributes:
        kinds: Name -> kind of value, in order.
        required: Names without a default.
        is_open: Whether it swallows any further name.
        networks: Names that take a network option, marked :data:`~basicsr_ext.options.config.IS_NETWORK`.
    """

    kinds: dict[str, Kind]
    required: tuple[str, ...]
    is_open: bool
    networks: tuple[str, ...] = ()


@lru_cache(maxsize=512)
def arguments_of(target: Callable) -> Arguments:
    """Reads a signature; kinds are judged by defaults, and by annotations where there is none."""
    hints = _hints(target)
    kinds, required, is_open = {}, [], False
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            is_open |= parameter.kind is parameter.VAR_KEYWORD
            continue
        kinds[name] = _kind_of(name, parameter.default, hints.get(name))
        if parameter.default is parameter.empty:
            required.append(name)
    networks = tuple(name for name in kinds if _is_network(hints.get(name)))
    return Arguments(kinds, tuple(required), is_open, networks)


def check_arguments(
    report: Report,
    path: KeyPath,
    target: Callable,
    *,
    given: Collection[str] = (),
    also: Mapping[str, Kind] | None = None,
    lenient: bool = False,
) -> None:
    """Checks that a block holds the arguments of a class or function.

    Args:
        report: Takes the problems.
        path: Of the block; its key ``type`` is left alone.
        target: Who takes the arguments.
        given: Arguments that the caller adds, and which the block must not hold.
        also: Further keys that are taken, beyond the signature.
        lenient: Warn only of keys that the signature does not name, where it swallows them.
    """
    arguments = arguments_of(target)
    kinds = {name: kind for name, kind in arguments.kinds.items() if name not in given} | dict(also or {})
    block = report.block(*path)
    name = getattr(target, '__name__', str(target))
    for key, value in block.items():
        if key in kinds:
            report.check_value((*path, key), value, kinds[key])
    for key in arguments.required:
        if key not in block and key not in given:
            report.missing((*path, key), kinds[key], name)
    report.check_unknown(path, [*kinds, 'type'], name, lenient and arguments.is_open, suggestions=kinds)


def _hints(target: Callable) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except Exception:  # an annotation that cannot be resolved here says nothing
        return {}


def _names_values(hint: Any) -> bool:
    """Whether an annotation is, or is a union with, ``Literal[...]``."""
    if typing.get_origin(hint) is typing.Literal:
        return True
    if typing.get_origin(hint) is typing.Annotated:
        return _names_values(typing.get_args(hint)[0])
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and any(map(_names_values, typing.get_args(hint)))


def _is_network(hint: Any) -> bool:
    return IS_NETWORK in getattr(hint, '__metadata__', ()) or any(map(_is_network, typing.get_args(hint)))


def _kind_of(name: str, default: Any, hint: Any) -> Kind:
    if _names_values(hint):
        return _kind_of_hint(hint)
    if default is None or default is inspect.Parameter.empty:
        kind = _kind_of_hint(hint)
        if kind is ANY and name.endswith('_path'):
            kind = PATH
        return nullable(kind) if default is None and kind is not ANY else kind
    if isinstance(default, bool):
        return FLAG
    if isinstance(default, (int, float)):
        return NUMBER
    if isinstance(default, str):
        return MAYBE_EMPTY
    if isinstance(default, (tuple, list)):
        return list_of(NUMBER) if default and all(NUMBER.accepts(item) for item in default) else _LIST
    if isinstance(default, Mapping):
        return BLOCK
    return ANY


_PLAIN: dict[Any, Kind] = {
    bool: FLAG,
    int: NUMBER,
    float: NUMBER,
    str: MAYBE_EMPTY,
    list: _LIST,
    tuple: _LIST,
    dict: BLOCK,
}


def _kind_of_hint(hint: Any) -> Kind:
    origin = typing.get_origin(hint)
    if origin is typing.Annotated:
        return _kind_of_hint(typing.get_args(hint)[0])
    if origin is typing.Literal:
        return one_of(*typing.get_args(hint))
    if origin in (typing.Union, types.UnionType):
        members = [_kind_of_hint(member) for member in typing.get_args(hint) if member is not type(None)]
        if ANY in members or not members:
            return ANY
        kind = either(*members) if len(members) > 1 else members[0]
        return nullable(kind) if type(None) in typing.get_args(hint) else kind
    if origin in (list, tuple, Sequence):
        return _LIST
    if origin in (dict, Mapping):
        return BLOCK
    return _PLAIN.get(hint, ANY)
