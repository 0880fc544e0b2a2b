"""Typed structures for the blocks of an option file that belong to this package."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from basicsr_ext.errors import UserError


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
            raise UserError('\n'.join(cls._describe(problem, where) for problem in error.errors())) from None

    @classmethod
    def _describe(cls, problem: Any, where: str) -> str:
        path = '.'.join([where, *(str(part) for part in problem['loc'])])
        if problem['type'] == 'extra_forbidden':
            known = list(cls._block_at(problem['loc'][:-1]).model_fields)
            close = difflib.get_close_matches(str(problem['loc'][-1]), known, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f'known keys: {", ".join(known)}.'
            return f'{path}: unknown option; {hint}'
        if problem['type'] == 'missing':
            return f'{path}: this option is required, and is missing.'
        message = problem['msg'].removeprefix('Value error, ')
        return f'{path}: {message[0].lower()}{message[1:]}, found {problem["input"]!r}.'

    @classmethod
    def _block_at(cls, path: tuple) -> type[BaseModel]:
        """The structure of a nested block, found by following annotations."""
        block: type[BaseModel] = cls
        for part in path:
            annotation = block.model_fields[part].annotation if part in block.model_fields else None
            inner = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type) and issubclass(t, BaseModel)]
            block = inner[0] if inner else block
        return block
