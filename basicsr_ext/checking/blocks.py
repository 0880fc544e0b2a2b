"""Checks blocks that this package describes as typed structures."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from basicsr_ext.checking.networks import check_network
from basicsr_ext.checking.report import Report
from basicsr_ext.options.config import IS_NETWORK, IS_PATH, OptionBlock, reason, structure_of
from basicsr_ext.options.problems import KeyPath, found


def check_annotated(report: Report, path: KeyPath, annotation: Any) -> None:
    """Checks an option against an annotation: a structure, such a structure or ``None``, or a plain type.

    Args:
        report: Takes the problems.
        path: Of the option.
        annotation: A structure alone is checked even where the option is missing, as an empty block.
    """
    structure, optional = structure_of(annotation)
    parent = report.block(*path[:-1])
    value = parent.get(path[-1])
    if structure is not None:
        if value is None and optional:
            return
        if value is not None and not isinstance(value, Mapping):
            report.error(path, f'expected a block of options, found {found(value)}.')
            return
        check_block(report, path, structure, value or {})
    elif path[-1] in parent:
        try:
            TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            for problem in error.errors()[:1]:
                report.error(path, f'{reason(problem)}, found {found(value)}.')


def check_block(
    report: Report, path: KeyPath, structure: type[OptionBlock], block: Mapping[str, Any], added: Mapping[str, Any] = {}
) -> None:
    """Checks a block against its structure, and what the structure says of its members' roles.

    Args:
        report: Takes the problems.
        path: Of the block.
        structure: Its type.
        block: The block.
        added: Keys that the run adds to the block, taken from elsewhere in the file.
    """
    report.check_structure(path, structure, block, added)
    for keys, role in _roles(structure, block, ()):
        value = report.get(*path, *keys)
        if role is IS_PATH and isinstance(value, str):
            report.paths[(*path, *keys)] = value
        elif role is IS_NETWORK and report.has_no_problems(*path, *keys):
            check_network(report, (*path, *keys))


def _structure_of_values(annotation: Any) -> type[OptionBlock] | None:
    """The structure of the blocks of a mapping from names to blocks."""
    return structure_of(typing.get_args(annotation)[1])[0] if typing.get_origin(annotation) is dict else None


def _roles(structure: type[OptionBlock], block: Any, path: KeyPath) -> list[tuple[KeyPath, object]]:
    """Which of a block's options are paths and networks, also in blocks within it."""
    roles: list[tuple[KeyPath, object]] = []
    for name, information in structure.model_fields.items():
        if not isinstance(block, Mapping) or block.get(name) is None:
            continue
        inner, _ = structure_of(information.annotation)
        named = _structure_of_values(information.annotation)
        if inner is not None:
            roles += _roles(inner, block[name], (*path, name))
        elif named is not None and isinstance(block[name], Mapping):
            for key, value in block[name].items():
                roles += _roles(named, value, (*path, name, key))
        elif IS_PATH in information.metadata or _holds_path(information.annotation):
            roles.append(((*path, name), IS_PATH))
        elif IS_NETWORK in information.metadata:
            roles.append(((*path, name), IS_NETWORK))
    return roles


def _holds_path(annotation: Any) -> bool:
    return annotation is Path or any(_holds_path(member) for member in typing.get_args(annotation))
