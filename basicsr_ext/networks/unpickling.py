"""Reads what a pickle holds without running it.

A pickle is a program: Python's own unpickler imports the functions and classes that it names, and calls them. Here its
operations are followed one by one, as :mod:`pickletools` lists them, and nothing is imported or called. Plain values become
themselves; an object becomes a :class:`Described` one, whatever its class.
"""

from __future__ import annotations

import pickletools
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from basicsr_ext.errors import brief

_MOST_OPERATIONS = 5_000_000

# What the standard library's classes are called that people keep beside weights. Nothing else of that library is accepted:
# a file that names os.system is hostile, even though it would not be run here.
_PLAIN = {'object', 'set', 'frozenset', 'list', 'dict', 'tuple', 'slice', 'range', 'complex', 'bytearray', 'bytes', 'str',
          'unicode', 'int', 'long', 'float', 'bool', 'type'}  # fmt: skip
_HARMLESS: dict[str, set[str]] = {
    'argparse': {'Namespace'},
    'builtins': _PLAIN,
    'codecs': {'encode'},  # how old pickles write bytes
    'collections': {'OrderedDict', 'defaultdict', 'Counter', 'deque', 'ChainMap', 'UserDict'},
    'copyreg': {'_reconstructor'},
    'datetime': {'date', 'datetime', 'time', 'timedelta', 'timezone'},
    'decimal': {'Decimal'},
    'fractions': {'Fraction'},
    'functools': {'partial'},
    'pathlib': {'Path', 'PosixPath', 'WindowsPath', 'PurePath', 'PurePosixPath', 'PureWindowsPath'},
    'types': {'SimpleNamespace'},
    'uuid': {'UUID'},
}
_MODULES = {'__builtin__': 'builtins', '_codecs': 'codecs', 'copy_reg': 'copyreg', 'pathlib._local': 'pathlib'}
# What other libraries' objects are made by when they are unpickled; calls of anything else are refused.
_CALLED = {
    *(f'numpy.{core}.multiarray.{name}' for core in ('core', '_core') for name in ('scalar', '_reconstruct')),
    'numpy.dtype',
    'numpy.ndarray',
    'torch.Size',
    'torch.device',
    'torch.nn.backends.thnn._get_thnn_function_backend',
    'torch.serialization._get_layout',
}

_PUSHED = {
    'BININT', 'BININT1', 'BININT2', 'INT', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT', 'STRING', 'BINSTRING',
    'SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES',
    'BINBYTES8', 'BYTEARRAY8',
}  # fmt: skip
_CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
_TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
_NEW: dict[str, Callable[[], Any]] = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': set}


class Refused(Exception):
    """A pickle asks for something that no file of weights needs; says what, as the end of a sentence."""


class Named(NamedTuple):
    """A class or function that a pickle names, which is not looked for."""

    module: str
    name: str

    def __str__(self) -> str:
        return brief(f'{self.module}.{self.name}')


@dataclass(eq=False)
class Described:
    """An object that was not made.

    Attributes:
        kind: Its class, or the function that would have made it.
        arguments: What that would have been called with.
        state: What it would have got as its attributes.
        entries: What it holds as a mapping.
        elements: What it holds as a list or set.
    """

    kind: Named
    arguments: tuple = ()
    state: Any = None
    entries: dict = field(default_factory=dict)
    elements: list = field(default_factory=list)


class Unpickler:
    """Follows the operations of pickles.

    Args:
        constructors: Name such as ``torch._utils._rebuild_tensor`` -> what to make of its arguments.
        persistent: What to make of a reference to something outside the pickle.
    """

    def __init__(self, constructors: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]):
        self._constructors = {
            'collections.OrderedDict': self._ordered,
            'builtins.set': self._set,
            'builtins.frozenset': self._set,
            **constructors,
        }
        self._persistent = persistent
        self._operations = 0

    def load(self, file: IO[bytes]) -> Any:
        """Reads one pickle, from where a file stands to the pickle's end.

        Raises:
            Refused: It asks for something that no file of weights needs.
            ValueError: It is damaged, or no pickle.
        """
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        try:
            for operation, argument, _ in pickletools.genops(file):
                self._count(1)
                if operation.name == 'STOP':
                    return self._stack.pop()
                self._follow(operation.name, argument)
        except (
            LookupError,
            TypeError,
            AttributeError,
            OverflowError,
        ) as error:  # operations on nothing, or on other things
            raise ValueError(f'{type(error).__name__}: {error}') from error
        raise ValueError('its end is missing')

    def construct(self, what: Any, arguments: tuple) -> Any:
        """Describes what a call would make; known constructors make it.

        Raises:
            Refused: Neither a known constructor nor a harmless class is called.
        """
        name = str(what)
        if not isinstance(what, Named):
            raise Refused('it calls an object')
        if name in self._constructors:
            return self._constructors[name](*arguments)
        if name in _CALLED or what.module in _HARMLESS or name.startswith('torch._utils._rebuild'):
            if name == 'copyreg._reconstructor':
                return self._new(arguments[0], ())
            return Described(what, arguments)
        raise Refused(f'it calls {what}')

    def _count(self, operations: int) -> None:
        self._operations += operations
        if self._operations > _MOST_OPERATIONS:
            raise Refused(f'it has more than {_MOST_OPERATIONS:,} operations')

    def _follow(self, operation: str, argument: Any) -> None:
        stack = self._stack
        if operation in _PUSHED:
            stack.append(argument)
        elif operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation])
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            stack.append(tuple(self._pop(count)))
        elif operation in _NEW:
            stack.append(_NEW[operation]())
        elif operation.endswith('PUT'):
            self._memo[argument] = stack[-1]
        elif operation.endswith('GET'):
            stack.append(self._memo[argument])
        else:
            self._act(operation, argument)

    def _act(self, operation: str, argument: Any) -> None:
        stack = self._stack
        match operation:
            case 'PROTO' | 'FRAME':
                pass
            case 'MEMOIZE':
                self._memo[len(self._memo)] = stack[-1]
            case 'MARK':
                self._marked.append(stack)
                self._stack = []
            case 'POP':
                stack.pop() if stack else self._since_mark()
            case 'POP_MARK':
                self._since_mark()
            case 'DUP':
                stack.append(stack[-1])
            case 'TUPLE':
                self._push(tuple(self._since_mark()))
            case 'LIST':
                self._push(self._since_mark())
            case 'DICT':
                self._push(_add_entries({}, self._since_mark()))
            case 'FROZENSET':
                self._push(_add_elements(set(), self._since_mark()))
            case 'APPEND':
                element = stack.pop()
                _add_elements(stack[-1], [element])
            case 'APPENDS' | 'ADDITEMS':
                elements = self._since_mark()
                _add_elements(self._stack[-1], elements)
            case 'SETITEM':
                entry = self._pop(2)
                _add_entries(stack[-1], entry)
            case 'SETITEMS':
                entries = self._since_mark()
                _add_entries(self._stack[-1], entries)
            case 'GLOBAL':
                stack.append(_named(*argument.split(' ', 1)))
            case 'STACK_GLOBAL':
                stack.append(_named(*self._pop(2)))
            case 'PERSID':
                stack.append(self._persistent(argument))
            case 'BINPERSID':
                stack.append(self._persistent(stack.pop()))
            case 'REDUCE':
                what, arguments = self._pop(2)
                stack.append(self.construct(what, arguments))
            case 'INST':
                self._push(self.construct(_named(*argument.split(' ', 1)), tuple(self._since_mark())))
            case 'OBJ':
                what, *arguments = self._since_mark()
                self._push(self.construct(what, tuple(arguments)))
            case 'NEWOBJ' | 'NEWOBJ_EX':
                what, arguments, *_ = self._pop(2 if operation == 'NEWOBJ' else 3)
                stack.append(self._new(what, arguments))
            case 'BUILD':
                state = stack.pop()
                if isinstance(stack[-1], Described):
                    stack[-1].state = self._attributes(state)
            case _:
                raise Refused(f'it has the operation {operation}')

    def _new(self, kind: Any, arguments: tuple) -> Any:
        if not isinstance(kind, Named):
            raise Refused('it makes an object of what is no class')
        constructor = self._constructors.get(str(kind))
        return Described(kind, arguments) if constructor is None else constructor(*arguments)

    def _ordered(self, entries: Any = ()) -> dict:
        if isinstance(entries, dict):
            return entries
        self._count(len(entries))
        return _add_entries({}, [part for entry in entries for part in _pair(entry)])

    def _set(self, elements: Any = ()) -> set:
        self._count(len(elements))
        return _add_elements(set(), elements)

    def _attributes(self, state: Any) -> Any:
        """Attributes that an object gets; those in slots come as the second of two mappings."""
        parts = [part or {} for part in state] if isinstance(state, tuple) and len(state) == 2 else [state]
        if not all(isinstance(part, dict) for part in parts):
            return state
        self._count(sum(map(len, parts)) if len(parts) > 1 else 0)
        return state if len(parts) == 1 else {**parts[0], **parts[1]}

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError('a value is missing')
        values = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        return values

    def _since_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._marked.pop()
        return values


def _named(module: str, name: str) -> Named:
    """Accepts the name of a class or function, unless it is one of the standard library's that are no plain data."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise ValueError('a name is no text')
    module = _MODULES.get(module, module)
    root, first = module.partition('.')[0], name.partition('.')[0]
    of_python = root in sys.stdlib_module_names or root in ('__builtin__', 'commands')
    through_a_module = first != name and not first[:1].isupper()  # such as os.system in torch.serialization
    if through_a_module or (of_python and name not in _HARMLESS.get(module, ())):
        raise Refused(f'it names {Named(module, name)}')
    return Named(module, name)


def _pair(entry: Any) -> tuple[Any, Any]:
    key, value = entry
    return key, value


def _add_entries(target: Any, flat: list[Any]) -> Any:
    """Adds keys and values, which alternate."""
    entries = target.entries if isinstance(target, Described) else target
    if not isinstance(entries, dict) or len(flat) % 2:
        raise ValueError('entries of what is no mapping')
    for key, value in zip(flat[::2], flat[1::2], strict=True):
        entries[_checked_key(key)] = value
    return target


def _add_elements(target: Any, elements: Iterable[Any]) -> Any:
    if isinstance(target, set):
        target.update(map(_checked_key, elements))
        return target
    values = target.elements if isinstance(target, Described) else target
    if not isinstance(values, list):
        raise ValueError('elements of what is no list')
    values.extend(elements)
    return target


def _checked_key(key: Any) -> Any:
    """Refuses tuples within tuples: Python takes the hash of deep ones without looking at its stack."""
    if isinstance(key, tuple) and not isinstance(key, Named) and any(isinstance(part, tuple) for part in key):
        raise ValueError('a key is nested')
    return key
