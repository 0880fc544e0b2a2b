"""What kind of value an option takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A kind of value.

    Attributes:
        expected: Completes "expected ...".
        accepts: Says whether a value is of this kind.
        is_path: Whether it names a file or folder, relative to the working directory.
    """

    expected: str
    accepts: Callable[[Any], bool]
    is_path: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _range(least: float, most: float) -> str:
    if least > -math.inf and most < math.inf:
        return f' from {least:,} to {most:,}'
    return f' from {least:,} on' if least > -math.inf else f' up to {most:,}' if most < math.inf else ''


def number(least: float = -math.inf, most: float = math.inf, above: float = -math.inf) -> Kind:
    """A finite number of a closed range, or above a bound; no integer that takes more than 64 bits."""
    bounds = f' above {above:,}' if above > -math.inf else _range(least, most)
    return Kind(
        f'a number{bounds}',
        lambda value: _is_number(value) and _finite(value) and least <= value <= most and value > above,
    )


def _finite(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def integer(least: float = -math.inf, most: float = math.inf) -> Kind:
    """An integer, written as one; none that takes more than 64 bits."""
    return Kind(
        f'a whole number{_range(least, most)}',
        lambda value: _is_integer(value) and _finite(value) and least <= value <= most,
    )


def whole(least: float = -math.inf) -> Kind:
    """A whole number, also written as 5e3; none that no run would reach."""
    written, numeric = integer(least), number(least, 10**12)
    return Kind(written.expected, lambda value: numeric.accepts(value) and value == int(value))


def one_of(*values: Any) -> Kind:
    """One of a few values; true and false are none of the numbers."""
    shown = ', '.join(str(value).lower() if isinstance(value, bool) else str(value) for value in values)
    return Kind(
        f'one of {shown}' if len(values) > 1 else shown,
        lambda value: any(type(value) is type(known) and value == known for known in values),
    )


def list_of(kind: Kind, length: int | None = None, empty: bool = False) -> Kind:
    """A list whose elements are of a kind.

    Args:
        kind: Of the elements.
        length: How many there must be; any number where it is left out.
        empty: Whether there may be none.
    """
    size = f'a list of {length} values' if length else 'a list'
    return Kind(
        size if kind is ANY else f'{size}, each {kind.expected}',
        lambda value: (
            isinstance(value, (list, tuple))
            and (len(value) == length if length else empty or len(value) > 0)
            and all(kind.accepts(item) for item in value)
        ),
    )


def ascending(kind: Kind) -> Kind:
    """A list of two values, the first smaller than the second."""
    pair = list_of(kind, 2)
    return Kind(f'{pair.expected}, the smaller first', lambda value: pair.accepts(value) and value[0] < value[1])


def either(*kinds: Kind) -> Kind:
    """A value of one of several kinds."""
    return Kind(
        ', or '.join(kind.expected for kind in kinds),
        lambda value: any(kind.accepts(value) for kind in kinds),
        any(kind.is_path for kind in kinds),
    )


def nullable(kind: Kind) -> Kind:
    """A value of a kind, or null."""
    return Kind(f'{kind.expected} (or ~)', lambda value: value is None or kind.accepts(value), kind.is_path)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and '\0' not in value


def _is_name(value: Any) -> bool:
    return (
        _is_text(value)
        and not set('/\\') & set(value)
        and value.isprintable()
        and value[0] not in '. '
        and len(value) <= 150
    )


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and value.count('{}') == 1 and not set('{}') & set(value.replace('{}', ''))


ANY = Kind('any value', lambda value: True)
FLAG = Kind('true or false', lambda value: isinstance(value, bool))
TEXT = Kind('a text', _is_text)
MAYBE_EMPTY = Kind('a text', lambda value: isinstance(value, str) and '\0' not in value)
NAME = Kind('a name that can be a folder (no slashes, at most 150 characters)', _is_name)
CLASS = Kind(
    'the name of a class or function', lambda value: _is_text(value) and value.isprintable() and len(value) <= 100
)
TEMPLATE = Kind('a text with {} once, in place of the name', _is_template)
PATH = Kind('a path', _is_text, is_path=True)
BLOCK = Kind('a block of options', lambda value: isinstance(value, Mapping))
NUMBER = number()
WEIGHT = number(0)
SHARE = number(0, 1)
COUNT = whole(1)
