"""What is wrong with options, and where it stands."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from basicsr_ext.errors import UserError, brief
from basicsr_ext.options.closest import closest_name

KeyPath = tuple[Any, ...]


class Place(NamedTuple):
    """Where an option was written: an option file and a line of it, or an assignment of ``--force_yml``."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f'{self.source}, line {self.line}'


class Problem(NamedTuple):
    """One thing to mend.

    Attributes:
        path: Keys that lead to the option, such as ``('train', 'optim_g', 'lr')``; empty for a whole file.
        message: What was expected, what was found, and the closest known name where that helps.
        place: Where the option, or the block that lacks it, was written; ``None`` for options that come from no file.
    """

    path: KeyPath
    message: str
    place: Place | None = None

    def __str__(self) -> str:
        return ': '.join(str(part) for part in (self.place, dotted(self.path), self.message) if part)


def dotted(path: KeyPath) -> str:
    """Writes a key path as ``train.optim_g.lr``; elements of lists as ``[2]``."""
    text = ''
    for key in path:
        text += f'[{key}]' if isinstance(key, int) and text else f'{"." if text else ""}{brief(key)}'
    return text


def shown_path(path: Any) -> str:
    """Writes the path of a file, which is of little use when cut."""
    return brief(path, 300)


def found(value: Any) -> str:
    """Describes a value that was not what was expected."""
    try:
        return brief('nothing' if value is None else repr(value))
    except ValueError:  # Python writes no integer of thousands of digits
        return 'a number of thousands of digits'


def brief_end(message: str) -> str:
    """Cuts the value that a message ends with."""
    start, separator, value = message.rpartition(', found ')
    return f'{start}{separator}{brief(value.removesuffix("."))}.' if separator else message


def not_registered(what: str, name: Any, names: Iterable[str]) -> str:
    """Says that no class or function of a name is registered.

    Args:
        what: What is looked for, such as ``network``.
        name: What was written.
        names: What is registered.
    """
    return f'expected the name of a registered {what}, found {found(name)}; {known_names(name, names)}'


def known_names(name: Any, known: Iterable[Any], what: str = 'known') -> str:
    """Says which name was probably meant; where none is close, all of them.

    Args:
        name: What was written.
        known: What could have been written.
        what: Introduces the list.
    """
    names = sorted({str(key) for key in known}, key=str.lower)
    close = closest_name(name, names)
    if close is not None:
        return f'did you mean "{close}"?'
    return f'{what}: {", ".join(names)}.' if names else f'{what}: none.'


def _by_place(problem: Problem) -> tuple[str, int]:
    return (problem.place.source, problem.place.line or 0) if problem.place else ('', 0)


def raise_problems(problems: Sequence[Problem]) -> None:
    """Ends a run, if there are problems, with all of them, in the order of the file.

    Raises:
        UserError: There is at least one.
    """
    ordered = sorted(problems, key=_by_place)
    lines = list(dict.fromkeys(str(problem) for problem in ordered))
    if len(lines) == 1:
        raise UserError(lines[0])
    if lines:
        raise UserError('\n  '.join([f'{len(lines)} problems in the options:', *lines]))
