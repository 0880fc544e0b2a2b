"""Options and where each of them was written: files with their ``_base_`` files, mappings, ``--force_yml``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from basicsr_ext.errors import UserError
from basicsr_ext.files import expand_home, follow_links, open_file
from basicsr_ext.options.problems import (
    KeyPath,
    Place,
    Problem,
    brief,
    dotted,
    found,
    raise_problems,
    shown_path,
)
from basicsr_ext.options.yaml import MAX_BYTES, Block, read_yaml
from basicsr_ext.shipped_files import PREFIX, find_shipped_options, shipped_options

BASE = '_base_'
REPLACE = '_replace_'
_MAX_FILES = 50


@dataclass
class OptionSource:
    """Options as they were given, before anything is added to them.

    Attributes:
        values: The options, of plain types.
        places: Key path -> where that key was written; without entries where the options came from a mapping.
        file: The option file; ``None`` where there is none.
    """

    values: dict[str, Any]
    places: dict[KeyPath, Place] = field(default_factory=dict)
    file: Path | None = None

    @property
    def name(self) -> str:
        """What the options are called where a run writes them."""
        return self.file.name if self.file else 'options.yml'

    def for_test(self) -> OptionSource:
        """The same options without the training set, where there are others: one file serves training and test."""
        datasets = self.values.get('datasets')
        if not isinstance(datasets, Mapping) or not datasets.keys() - {'train'}:
            return self
        others = {name: block for name, block in datasets.items() if name != 'train'}
        return replace(self, values={**self.values, 'datasets': others})

    def place(self, path: KeyPath) -> Place | None:
        """Where an option was written; for a missing one, where the block that lacks it was."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(str(self.file)) if self.file else None


def read_source(options: str | os.PathLike | Mapping[str, Any], force_yml: Iterable[str] = ()) -> OptionSource:
    """Reads options, merges the files named in ``_base_``, and applies ``--force_yml``.

    Args:
        options: Path of an option file, ``basicsr_ext:`` and the name of one that comes with the package, or a mapping,
            which is left unchanged; files that a mapping is based on are looked for in the working directory.
        force_yml: Assignments such as ``train:optim_g:lr=1e-4``; values are typed as in a YAML file.

    Raises:
        UserError: A file cannot be read or is not valid; names every problem found.
    """
    problems: list[Problem] = []
    if isinstance(options, Mapping):
        file = None
        block = _FileReader(problems).add_bases(_from_mapping(options))
    else:
        file = option_file(options)
        block = _FileReader(problems).read(file)
    if not problems:
        for assignment in force_yml:
            _assign(block, assignment, problems)
    _strip_replace(block, (), problems)
    raise_problems(problems)
    source = OptionSource({}, file=file)
    source.values = _plain(block, (), source.places)
    return source


def option_file(name: str | os.PathLike, beside: Path | None = None) -> Path:
    """Returns the path that the name of an option file means.

    Args:
        name: A path, or ``basicsr_ext:`` and the name of a file that comes with the package.
        beside: Folder that a relative path starts from; default: the working directory.

    Raises:
        UserError: No file of that name comes with the package.
    """
    text = os.fspath(name)
    if text.startswith(PREFIX):
        return find_shipped_options(text.removeprefix(PREFIX))
    return beside / expand_home(text) if beside else Path(text)


class _FileReader:
    """Reads option files and those that they are based on."""

    def __init__(self, problems: list[Problem]):
        self.problems = problems
        self.files = 0

    def read(self, path: Path, above: tuple[Path, ...] = (), named_at: Place | None = None) -> Block:
        """Returns a file's options over those of its base files; empty where it cannot be read."""
        text = self._text(path, named_at)
        if text is None:
            return Block()
        block, problems = read_yaml(text, str(path))
        self.problems += problems
        if not problems and not isinstance(block, Block):
            self._refuse(
                f'Option file {shown_path(path)}: expected options as "key: value" lines, found {_kind(block)}.'
            )
        return self.add_bases(block, above, path) if isinstance(block, Block) else Block()

    def add_bases(self, block: Block, above: tuple[Path, ...] = (), path: Path | None = None) -> Block:
        """Returns options over those of the files that they are based on; without a path they come from no file."""
        place = block.places.get(BASE)
        chain = (*above, follow_links(path)) if path else above
        merged = Block()
        for base in self._bases(block, chain, path, place):
            merged = merge(merged, self.read(base, chain, place))
        return merge(merged, block)

    def _bases(self, block: Block, chain: tuple[Path, ...], path: Path | None, place: Place | None) -> list[Path]:
        names = block.pop(BASE, None)
        names = [names] if isinstance(names, str) else names
        if names is None:
            return []
        if isinstance(names, list):
            names = [os.fspath(name) if isinstance(name, os.PathLike) else name for name in names]
        if not isinstance(names, list) or not all(
            isinstance(name, str) and name and '\0' not in name for name in names
        ):
            self._refuse(
                f'expected the path of an option file, or a list of paths, found {found(names)}.', (BASE,), place
            )
            return []
        try:
            bases = [option_file(name, path.parent if path else Path()) for name in names]
        except UserError as error:
            self._refuse(str(error), (BASE,), place)
            return []
        for base in bases:
            if follow_links(base) in chain:
                self._refuse(f'{shown_path(base)} is based on itself, by way of {shown_path(path)}.', (BASE,), place)
        self.files += len(bases)
        if self.files > _MAX_FILES:
            self._refuse(f'expected at most {_MAX_FILES} files in all.', (BASE,), place)
            return []
        return [base for base in bases if follow_links(base) not in chain]

    def _text(self, path: Path, named_at: Place | None) -> str | None:
        path_of_key = (BASE,) if named_at else ()
        try:
            with open_file(path) as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) > MAX_BYTES:
                return self._refuse(
                    f'Option file {shown_path(path)}: expected at most a megabyte, found more.', path_of_key, named_at
                )
            return content.decode('utf-8')
        except (OSError, ValueError) as error:
            if isinstance(error, UnicodeDecodeError):
                message = f'Option file {shown_path(path)}: expected a text file in UTF-8, found other bytes.'
            else:
                message = (
                    f'Option file {shown_path(path)}: cannot be read ({getattr(error, "strerror", None) or error}).'
                )
                if isinstance(error, FileNotFoundError) and path.stem in shipped_options():
                    message += (
                        f' One of that name comes with the package: name it {PREFIX}{path.name}, or copy it: '
                        f'basicsr options copy {path.stem}'
                    )
            return self._refuse(message, path_of_key, named_at)

    def _refuse(self, message: str, path: KeyPath = (), place: Place | None = None) -> None:
        self.problems.append(Problem(path, message, place))


def merge(base: Block, over: Block) -> Block:
    """Puts options over others: blocks merge, everything else is replaced; null sets null.

    A block with ``_replace_: true`` replaces the one below it whole.
    """
    merged = Block()
    for block in (base, over):
        for key, value in block.items():
            below = merged.get(key)
            if isinstance(value, Block) and isinstance(below, Block) and value.get(REPLACE) is not True:
                value = merge(below, value)
            merged[key] = value
            if key in block.places:
                merged.places[key] = block.places[key]
            else:  # of a mapping, which has no places
                merged.places.pop(key, None)
    return merged


def _strip_replace(block: Any, path: KeyPath, problems: list[Problem]) -> None:
    """Takes ``_replace_`` out again; nothing but true makes sense there."""
    items = block.items() if isinstance(block, Block) else enumerate(block) if isinstance(block, list) else ()
    for key, value in list(items):
        if key == REPLACE and isinstance(block, Block):
            if value is not True:
                problems.append(Problem((*path, key), f'expected true, found {found(value)}.', block.places.get(key)))
            del block[key]
        else:
            _strip_replace(value, (*path, key), problems)


def _assign(block: Block, assignment: str, problems: list[Problem]) -> None:
    place = Place(f'--force_yml {brief(assignment)}')
    path, equals, text = assignment.partition('=')
    keys = tuple(key.strip() for key in path.split(':'))
    if not equals or not all(keys):
        problems.append(Problem((), 'expected key:key=value.', place))
        return
    if keys[-1] in (BASE, REPLACE):
        message = f'{keys[-1]} is for option files'
        message += '; here key={type: ...} replaces a whole block.' if keys[-1] == REPLACE else '.'
        problems.append(Problem(keys, message, place))
        return
    if len(keys) == 1 and '.' in path and path.strip() not in block:
        problems.append(Problem(keys, f'expected ":" between keys, as in {path.strip().replace(".", ":")}.', place))
        return
    value, found_problems = read_yaml(text.strip(), str(place))
    problems += found_problems
    for depth, key in enumerate(keys[:-1], 1):
        if block.get(key) is None:
            block.put(key, Block(), place)
        if not isinstance(block[key], Block):
            message = f'expected the key of a block of options, but {dotted(keys[:depth])} is {found(block[key])}.'
            problems.append(Problem(keys, message, place))
            return
        block = block[key]
    block.put(keys[-1], value, place)


def _from_mapping(options: Mapping[str, Any]) -> Block:
    """Copies a mapping and the mappings in it."""
    block = Block()
    for key, value in options.items():
        if isinstance(value, Mapping):
            value = _from_mapping(value)
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)
        else:
            value = deepcopy(value)
        block[key] = value
    return block


def _plain(value: Any, path: KeyPath, places: dict[KeyPath, Place]) -> Any:
    """Turns blocks into dictionaries, and collects where their keys were written."""
    if isinstance(value, Block):
        places.update({(*path, key): place for key, place in value.places.items() if key in value})
        return {key: _plain(item, (*path, key), places) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, (*path, index), places) for index, item in enumerate(value)]
    return value


def _kind(value: Any) -> str:
    return 'nothing' if value is None else 'a list' if isinstance(value, list) else f'the text {found(value)}'
