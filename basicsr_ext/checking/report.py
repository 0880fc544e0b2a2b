"""Collects problems and warnings while options are checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from basicsr_ext.errors import UserError
from basicsr_ext.options.config import OptionBlock
from basicsr_ext.options.kinds import Kind
from basicsr_ext.options.problems import (
    KeyPath,
    Problem,
    brief_end,
    dotted,
    found,
    known_names,
    raise_problems,
)
from basicsr_ext.options.source import OptionSource
from basicsr_ext.options.tables import Table


class Report:
    """What the passes found out.

    Args:
        source: The options.
        is_train: Training or testing.

    Attributes:
        values: The options' values.
        problems: Each ends the run.
        warnings: None does.
        paths: Options that name files or folders, by key path.
        opened: Datasets that were opened, by name.
    """

    def __init__(self, source: OptionSource, is_train: bool):
        self.source = source
        self.values = source.values
        self.is_train = is_train
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self.paths: dict[KeyPath, str] = {}
        self.opened: dict[str, Any] = {}

    # ---- collecting ----------------------------------------------------------------------------------------------

    def error(self, path: KeyPath, message: str) -> None:
        """Notes a problem of an option."""
        self.problems.append(Problem(path, message, self.source.place(path)))

    def warn(self, path: KeyPath, message: str) -> None:
        """Notes what is probably not meant, and does no harm."""
        self.warnings.append(Problem(path, message, self.source.place(path)))

    def refused(self, path: KeyPath, error: UserError) -> None:
        """Notes what a class refused, one problem a line, each at the option that its line begins with."""
        for line in str(error).splitlines():
            where, separator, message = line.partition(': ')
            keys = tuple(where.split('.'))
            if separator and len(keys) > len(path) and keys[:1] == (path or keys)[:1] and ' ' not in where:
                self.error((*path, *keys[len(path) :]), message)
            else:
                self.error(path, line)

    def has_no_problems(self, *path: Any) -> bool:
        """Whether nothing is wrong with an option, in it, or with a block around it."""
        return not any(
            problem.path[: len(path)] == path or path[: len(problem.path)] == problem.path for problem in self.problems
        )

    def raise_problems(self) -> None:
        """Ends the run if there are problems.

        Raises:
            UserError: Names all of them.
        """
        raise_problems(self.problems)

    # ---- reading -------------------------------------------------------------------------------------------------

    def get(self, *path: Any) -> Any:
        """Returns an option; ``None`` where it or a block around it is missing."""
        value: Any = self.values
        for key in path:
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value

    def block(self, *path: Any) -> Mapping[str, Any]:
        """Returns a block of options; empty where it is missing, null or no block."""
        value = self.get(*path)
        return value if isinstance(value, Mapping) else {}

    # ---- checking ------------------------------------------------------------------------------------------------

    def check_value(self, path: KeyPath, value: Any, kind: Kind) -> bool:
        """Checks one value, and remembers it if it names a file."""
        try:
            accepted = kind.accepts(value)
        except (OverflowError, RecursionError):  # numbers beyond what a float holds
            accepted = False
        if not accepted:
            self.error(path, f'expected {kind.expected}, found {found(value)}.')
        elif kind.is_path and isinstance(value, str):
            self.paths[path] = value
        return accepted

    def check_values(self, path: KeyPath, table: Table) -> None:
        """Checks the values of those keys of a block that a table knows."""
        for key, value in self.block(*path).items():
            if key in table:
                self.check_value((*path, key), value, table[key].kind)

    def check_needed(self, path: KeyPath, table: Table, is_train: bool | None = None, by: str = '') -> None:
        """Checks that a block has the keys that a table asks for."""
        block = self.block(*path)
        for key, known in table.items():
            if key not in block and known.is_needed(self.is_train if is_train is None else is_train):
                self.missing((*path, key), known.kind, by)

    def missing(self, path: KeyPath, kind: Kind, by: str = '') -> None:
        """Notes that an option is missing."""
        self.error(
            path, f'this option is required{f" by {by}" if by else ""}, and is missing: expected {kind.expected}.'
        )

    def check_unknown(
        self,
        path: KeyPath,
        known: Iterable[str],
        by: str,
        harmless: bool = False,
        suggestions: Iterable[str] | None = None,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        """Checks that a block has no keys but the known ones.

        Args:
            path: Of the block.
            known: Its keys.
            by: Who would read them.
            harmless: Warn only, since there may be more than is known.
            suggestions: The names worth a hint; default: the known ones.
            elsewhere: Keys that something else reads -> what to say of them.
        """
        known = set(known)
        for key in self.block(*path):
            if key not in known:
                hint = (elsewhere or {}).get(key) or known_names(key, known if suggestions is None else suggestions)
                note = self.warn if harmless else self.error
                note((*path, key), f'unknown option of {by}; {hint}{self.base_hint((*path, key))}')

    def check_structure(
        self, path: KeyPath, structure: type[OptionBlock], block: Mapping[str, Any], added: Mapping[str, Any] = {}
    ) -> None:
        """Checks a block against its typed structure.

        Args:
            path: Of the block.
            structure: Its type.
            block: The block.
            added: Keys that the run adds to the block, taken from elsewhere in the file.
        """
        for keys, message in structure.problems_of({**block, **added}):
            where = tuple(keys) if keys and keys[0] in added else (*path, *keys)
            hint = self.base_hint(where) if message.startswith('unknown option') else ''
            if self.has_no_problems(*where):
                self.error(where, brief_end(message) + hint)

    def base_hint(self, path: KeyPath) -> str:
        """Says how to get rid of an option that does not fit the ``type`` beside it, where a base file left it there."""
        key, type_ = (self.source.places.get((*path[:-1], last)) for last in (path[-1], 'type'))
        if key is None or type_ is None or key.source in (type_.source, str(self.source.file)) or key.line is None:
            return ''
        if type_.line is None:
            return f' It was written beside another type; {dotted(path[:-1])}={{type: ...}} replaces the whole block.'
        return (
            f' It was written beside another type; "_replace_: true" in {dotted(path[:-1])} replaces the whole block.'
        )
