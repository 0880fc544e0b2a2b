"""Options that are computed from the length of a training."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY

from basicsr_ext.options.config import FromTotal, OptionBlock, structure_of

KeyPath = tuple[str, ...]
_COMPUTED = (None, 'auto')


def fill_from_total(opt: dict[str, Any]) -> dict[KeyPath, FromTotal]:
    """Fills in the options of a training that come from ``train.total_iter``, such as the end of ECO's schedule.

    So they are written down with the run and kept in its checkpoints, and stay as they are where the run goes on with
    another ``total_iter``.

    Args:
        opt: Options of a run that are known to be right; changed in place.

    Returns:
        What was filled in: the options' key paths, and how they are computed.
    """
    train, filled = opt['train'], {}
    for path, mark in _marked(opt):
        if get_option(opt, path) in _COMPUTED:
            set_option(opt, path, mark.value(int(train['total_iter'])))
            filled[path] = mark
    return filled


def fill_loss_from_total(loss: Callable, arguments: Mapping[str, Any], total: int) -> dict[str, Any]:
    """Returns a loss's arguments with those that come from the length of a training, ``total`` iterations."""
    marks = {name: mark for (name,), mark in _of_signature(loss) if name in arguments}
    return {
        name: marks[name].value(total) if name in marks and value in _COMPUTED else value
        for name, value in arguments.items()
    }


def get_option(opt: Mapping[str, Any], path: KeyPath) -> Any:
    """An option by its key path; ``None`` where it or a block around it is missing."""
    value: Any = opt
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def set_option(opt: dict[str, Any], path: KeyPath, value: Any) -> None:
    """Sets an option, and makes the blocks around it where they are missing."""
    for key in path[:-1]:
        if opt.get(key) is None:
            opt[key] = {}
        opt = opt[key]
    opt[path[-1]] = value


def train_blocks(model: type) -> dict[str, Any]:
    """Further keys of ``train`` that classes of this package declare: key -> annotation."""
    found: dict[str, Any] = {}
    for cls in reversed(model.__mro__):
        found.update(vars(cls).get('train_blocks', {}))
    return found


def _marked(opt: Mapping[str, Any]) -> Iterator[tuple[KeyPath, FromTotal]]:
    train = opt['train']
    model = MODEL_REGISTRY.get(opt['model_type'])
    for key, annotation in train_blocks(model).items():
        structure, optional = structure_of(annotation)
        if structure is not None and not (optional and train.get(key) is None):
            yield from _of_block(structure, train.get(key) or {}, ('train', key))
    for key, block in train.items():
        name = block.get('type') if key.endswith('_opt') and isinstance(block, Mapping) else None
        if name in LOSS_REGISTRY:
            for path, mark in _of_signature(LOSS_REGISTRY.get(name)):
                if path[0] in block:
                    yield ('train', key, *path), mark


def _of_block(
    structure: type[OptionBlock], block: Mapping[str, Any], path: KeyPath
) -> Iterator[tuple[KeyPath, FromTotal]]:
    for name, information in structure.model_fields.items():
        for mark in information.metadata:
            if isinstance(mark, FromTotal):
                yield (*path, name), mark
        inner, optional = structure_of(information.annotation)
        if inner is not None and not (optional and block.get(name) is None):
            yield from _of_block(inner, block.get(name) or {}, (*path, name))


def _of_signature(target: Callable) -> list[tuple[KeyPath, FromTotal]]:
    try:
        hints = typing.get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except Exception:  # an annotation of another package that cannot be resolved here says nothing
        return []
    return [
        ((name,), mark)
        for name, hint in hints.items()
        for mark in getattr(hint, '__metadata__', ())
        if isinstance(mark, FromTotal)
    ]
