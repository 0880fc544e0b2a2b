"""Typed structures for the blocks of an option file that belong to this package."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from basicsr_ext.errors import UserError
from basicsr_ext.options.closest import closest_name

# Marks of an option in ``Annotated[...]``, for whoever checks options: a path, and a block that describes a network.
IS_PATH = object()
IS_NETWORK = object()


class FromTotal(NamedTuple):
    """Mark of an option in ``Annotated[...]`` that is computed from ``train.total_iter`` where it is missing, ~ or ``auto``.

    Attributes:
        value: Of the option, given ``train.total_iter``.
    """

    value: Callable[[int], int | float]


def reason(problem: Mapping[str, Any]) -> str:
    """What pydantic says against a value, to stand within a sentence."""
    message = problem['msg'].removeprefix('Value error, ')
    return message[0].lower() + message[1:]


class OptionBlock(BaseModel):
    """Base of every typed option block: unknown keys are refused, values are checked and frozen."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    @classmethod
    def parse(cls, block: Mapping[str, Any] | None, where: str) -> Self:
        """Checks a block of an option file.

        Args:
            block: The mapping as it was loaded from YAML; ``None`` counts as empty.
            where: Key path of the block, for messages, such as ``train.eco``.

        Raises:
            UserError: Names every wrong key or value of the block at once, with the closest known key.
        """
        if block is not None and not isinstance(block, Mapping):
            raise UserError(f'{where}: expected a mapping of options, found {block!r}.')
        try:
            return cls.model_validate(dict(block or {}))
        except ValidationError as error:
            problems = [cls._describe(problem) for problem in error.errors()]
            raise UserError(
                '\n'.join(f'{".".join([where, *map(str, path)])}: {message}' for path, message in problems)
            ) from None

    @classmethod
    def problems_of(cls, block: Mapping[str, Any] | None) -> list[tuple[tuple, str]]:
        """Says what is wrong with a block: the keys that lead to each wrong option, and what is wrong with it."""
        try:
            cls.model_validate(dict(block or {}))
        except ValidationError as error:
            return [cls._describe(problem) for problem in error.errors()]
        return []

    @classmethod
    def _describe(cls, problem: Any) -> tuple[tuple, str]:
        if problem['type'] == 'extra_forbidden':
            known = list(cls._block_at(problem['loc'][:-1]).model_fields)
            close = closest_name(problem['loc'][-1], known)
            hint = f'did you mean "{close}"?' if close else f'known keys: {", ".join(known)}.'
            return problem['loc'], f'unknown option; {hint}'
        if problem['type'] == 'missing':
            return problem['loc'], 'this option is required, and is missing.'
        return problem['loc'], f'{reason(problem)}, found {problem["input"]!r}.'

    @classmethod
    def _block_at(cls, path: tuple) -> type[BaseModel]:
        """The structure of a nested block, found by following annotations."""
        block: type[BaseModel] = cls
        for part in path:
            annotation = block.model_fields[part].annotation if part in block.model_fields else None
            inner = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
            block = inner[0] if inner else block
        return block


def structure_of(annotation: Any) -> tuple[type[OptionBlock] | None, bool]:
    """The structure that an annotation names, alone or in a union, and whether ``None`` may stand in its place."""
    members = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else [annotation]
    structures = [m for m in members if isinstance(m, type) and issubclass(m, OptionBlock)]
    return (structures[0] if structures else None), type(None) in members
