"""YAML text to plain values that know their lines; nothing in the text is ever run."""

from __future__ import annotations

import re
from typing import Any

import yaml

from basicsr_ext.options.problems import KeyPath, Place, Problem, brief, dotted, found

MAX_BYTES = 1_000_000
_MAX_VALUES = 20_000  # with aliases written out: a few lines of them can stand for billions
_MAX_DEPTH = 32
_STANDARD = 'tag:yaml.org,2002:'
_SCALARS = {_STANDARD + name for name in ('null', 'bool', 'int', 'float', 'str')}
_COLLECTIONS = (_STANDARD + 'map', _STANDARD + 'seq')
_MERGE = _STANDARD + 'merge'


class Block(dict):
    """A mapping of options, and where each of its keys was written.

    Attributes:
        places: Key -> place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[Any, Place] = {}

    def put(self, key: Any, value: Any, place: Place) -> None:
        """Sets a key that was written at a place."""
        self[key] = value
        self.places[key] = place


class _Loader(yaml.SafeLoader):
    """Knows plain values only; reads ``1e-4`` as a number, and dates and ``=`` as text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [
            (tag, pattern) for tag, pattern in resolvers if tag not in (_STANDARD + 'timestamp', _STANDARD + 'value')
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


class _Dumper(yaml.SafeDumper):
    """Puts in quotes what any YAML reader, or this one, would take for something else than text."""


_FLOAT = (
    _STANDARD + 'float',
    re.compile(r'^[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)[eE][-+]?[0-9]+$'),
    list('-+0123456789.'),
)
_Loader.add_implicit_resolver(*_FLOAT)
_Dumper.add_implicit_resolver(*_FLOAT)


def write_yaml(options: dict[str, Any]) -> str:
    """Writes options as text, from which :func:`read_yaml` reads the same."""
    return yaml.dump(options, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _TooMuch(Exception):
    """The text stands for more values, or deeper ones, than options have."""


def read_yaml(text: str, source: str) -> tuple[Any, list[Problem]]:
    """Reads one YAML document.

    Args:
        text: The document.
        source: Its name, for messages: the path of a file, or an assignment.

    Returns:
        Mappings as :class:`Block`, lists, and plain values; and what is wrong. Where the text is no YAML at all, the
        value is ``None``, and there is one problem.
    """
    try:
        loader = _Loader(text)
        return _Reader(loader, source).read(loader.get_single_node())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f'not valid YAML: {error.problem or error.context}.'
        return None, [Problem((), message, Place(source, mark.line + 1 if mark else None))]
    except yaml.reader.ReaderError as error:
        line = text.count('\n', 0, error.position) + 1
        message = f'not valid YAML: the character #x{error.character:04x} may not stand there.'
        return None, [Problem((), message, Place(source, line))]
    except (RecursionError, _TooMuch):
        message = f'expected options, found blocks nested deeper than {_MAX_DEPTH} or more than {_MAX_VALUES} values.'
        return None, [Problem((), message, Place(source))]
    except (yaml.YAMLError, ValueError, OverflowError, TypeError, LookupError) as error:
        # An escape sequence or directive that PyYAML itself stumbles over.
        return None, [Problem((), f'not valid YAML ({brief(error)}).', Place(source))]


class _Reader:
    """Turns YAML nodes into values.

    Done here and not by PyYAML's constructor, since lines are wanted, all problems and not the first one, and limits.
    """

    def __init__(self, loader: _Loader, source: str):
        self.loader = loader
        self.source = source
        self.problems: list[Problem] = []
        self.values = 0
        self.above: list[int] = []

    def read(self, node: yaml.Node | None) -> tuple[Any, list[Problem]]:
        value = None if node is None else self._value(node, ())
        return value, self.problems

    def _place(self, node: yaml.Node) -> Place:
        return Place(self.source, None if self.source.startswith('--') else node.start_mark.line + 1)

    def _problem(self, path: KeyPath, message: str, node: yaml.Node) -> None:
        self.problems.append(Problem(path, message, self._place(node)))

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.values += 1
        if self.values > _MAX_VALUES or len(self.above) > _MAX_DEPTH:
            raise _TooMuch
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self.above:
            return self._problem(path, 'expected plain values, found an anchor that contains itself.', node)
        if node.tag not in _COLLECTIONS:
            return self._refuse_tag(node, path)
        self.above.append(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self._mapping(node, path)
        finally:
            self.above.pop()

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.tag not in _SCALARS:
            return self._refuse_tag(node, path)
        try:
            return self.loader.construct_object(node)
        except (ValueError, LookupError):  # such as "!!int many", or an integer of thousands of digits
            kind = node.tag.removeprefix(_STANDARD)
            self._problem(path, f'expected a value of the kind !!{kind}, found {brief(node.value)!r}.', node)

    def _refuse_tag(self, node: yaml.Node, path: KeyPath) -> None:
        tag = brief(node.tag.replace(_STANDARD, '!!', 1))
        self._problem(path, f'expected a plain value, found the tag "{tag}", which option files do not have.', node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> Block:
        block, merged = Block(), Block()
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                self._merge(merged, value_node, path)
                continue
            key = self._key(key_node, path)
            if key is None:
                continue
            place = self._place(key_node)
            if key in block:
                lines = f'lines {block.places[key].line} and {place.line}'
                self._problem((*path, key), f'the key "{brief(key)}" appears twice in one block, in {lines}.', key_node)
            block.put(key, self._value(value_node, (*path, key)), place)
        for key, value in merged.items():
            if key not in block:
                block.put(key, value, merged.places[key])
        return block

    def _key(self, node: yaml.Node, path: KeyPath) -> str | int | None:
        if node.tag not in (*_SCALARS, *_COLLECTIONS):
            return self._refuse_tag(node, path)
        before = len(self.problems)
        key = self._scalar(node, path) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool)):
            return key
        if len(self.problems) == before:
            shown = found(key) if isinstance(node, yaml.ScalarNode) else 'a list or block'
            where = f' in {dotted(path)}' if path else ''
            self._problem(path, f'expected a name as key{where}, found {shown}; put it in quotes if it is one.', node)
        return None

    def _merge(self, merged: Block, node: yaml.Node, path: KeyPath) -> None:
        """Reads what ``<<`` brings in; of several mappings, earlier ones win."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for source in sources:
            block = self._value(source, path)
            if not isinstance(block, Block):
                self._problem(path, 'expected a block, or a list of them, after "<<".', node)
                continue
            for key, value in block.items():
                if key not in merged:
                    merged.put(key, value, block.places[key])
