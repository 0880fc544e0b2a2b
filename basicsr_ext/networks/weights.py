"""Weights of networks in files."""

from __future__ import annotations

import hashlib
import math
import os
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from basicsr_ext.errors import UserError, brief, first_of
from basicsr_ext.networks.tensor_names import generator_prefix, known_names, without_wrappers
from basicsr_ext.networks.unpickling import Described
from basicsr_ext.networks.weight_file import (
    WeightFile,
    describe,
    is_tensor,
    open_weight_file,
    other_tensor,
    tensors_of_module,
)

# Entries under which people keep weights; of several the first one is taken. BasicSR's, then those of other projects.
_ENTRIES = (
    'params_ema', 'params', 'params-ema', 'state_dict_ema', 'ema', 'state_dict', 'model_state_dict', 'model', 'net',
)  # fmt: skip
_DEPTH = 4  # of mappings within a file, in which state dicts are looked for


class Weights(dict[str, torch.Tensor]):
    """Tensors by name.

    Attributes:
        remarks: What was done to get them, such as which entry of the file they were, in a few words each.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], remarks: Sequence[str] = ()):
        super().__init__(tensors)
        self.remarks = list(remarks)


class Match(NamedTuple):
    """Tensors that fit a network.

    Attributes:
        tensors: By the network's names.
        share: How many of the network's tensors they are, as a sentence.
        remarks: What was renamed, and what :class:`Weights` tell.
    """

    tensors: dict[str, torch.Tensor]
    share: str
    remarks: list[str]

    def __str__(self) -> str:
        return '; '.join([self.share, *self.remarks])


def read_weights(path: str | os.PathLike, param_key: str | None = None, exact_key: bool = True) -> Weights:
    """Reads a state dict from a checkpoint, or of a module that was saved as a whole. Nothing in the file is run.

    Args:
        path: File that ``torch.save`` wrote (a state dict, a module, or a mapping that holds one), or one of safetensors.
        param_key: Under which key the state dict lies, or how its names begin (``generator_ema``); default: ``params_ema``,
            else ``params``, else what other projects use, else the file itself.
        exact_key: Whether ``param_key`` must be there; else what is there is found as by default.

    Returns:
        Tensors by name, on the CPU, without what wrappers put before the names (``module.``, ``_orig_mod.``,
        ``generator.``).

    Raises:
        UserError: The file is missing or damaged, is another kind of file, or holds no weights; it asks for something that
            no file of weights needs.
    """
    file = open_weight_file(path)
    with _modules_told(path):
        state, remarks = _choose(file, param_key, exact_key)
    others = {name: kind for name, value in state.items() if (kind := other_tensor(value))}
    if others:
        name, kind = next(iter(others.items()))
        raise UserError(
            f'Weights {path}: expected tensors of numbers, found {kind}, {brief(name)} ({len(others)} of {len(state)}). Turn '
            'them into plain ones where they come from, such as by to_dense() or dequantize().'
        )
    tensors = {name: value for name, value in state.items() if is_tensor(value)}
    state, more = _unwrapped(tensors, path)
    with file.reading() as read:
        return Weights({name: read(tensor) for name, tensor in state.items()}, remarks + more)


@contextmanager
def _modules_told(path: str | os.PathLike) -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # of tensors_of_module
        raise UserError(f'Weights {path}: expected a network, found an object that is none ({error}).') from None


def _choose(file: WeightFile, param_key: str | None, exact_key: bool) -> tuple[dict[str, Any], list[str]]:
    """Finds the tensors in a file, and says where, and what is beside them."""
    content = file.content
    keys = _mapping(content) or {}
    state, entry, part = None, param_key, None
    if param_key is not None:
        state = _state(keys.get(param_key))
    if state is None:
        entry = next((key for key in _ENTRIES if _state(keys.get(key)) is not None), None)
        state = _state(content if entry is None else keys[entry])
        part = None if param_key is None or state is None else _part(state, param_key)
        if part is None and param_key is not None and exact_key:
            raise UserError(f'Weights {file.path}: expected the key "{brief(param_key)}", found {_listed(content)}.')
    if state is None:
        raise UserError(f'Weights {file.path}: expected tensors by name, found {_listed(content)}.')
    remarks = []
    if entry not in (None, param_key, 'params_ema', 'params') or (entry == 'params_ema' and param_key == 'params'):
        remarks.append(f'taken from the entry {entry}')
    if part is not None:
        remarks.append(f'taken from the names that begin with {brief(param_key)}.')
    beside = [keys, state] if entry is not None else [state]
    objects = {name: value for held in beside for name, value in held.items() if isinstance(value, Described)}
    plain = {name: value for name, value in state.items() if not is_tensor(value) and not isinstance(value, dict)}
    passed = [
        f'{brief(name, 40)} ({describe(value)})'
        for name, value in (objects | plain).items()
        if other_tensor(value) is None and _state(value) is None
    ]
    if passed:
        remarks.append(f'passed over {first_of(passed)}')
    return state if part is None else part, remarks


def _mapping(value: Any) -> dict | None:
    """What an object holds by name; ``None`` where it is no mapping."""
    if isinstance(value, Described):
        return value.entries or None
    return value if isinstance(value, dict) else None


def _state(value: Any) -> dict[str, Any] | None:
    """A state dict, or that of a module; ``None`` where a value is neither."""
    mapping = tensors_of_module(value) or _mapping(value) or {}
    state = {name: item for name, item in mapping.items() if isinstance(name, str)}
    return state if any(is_tensor(item) or other_tensor(item) for item in state.values()) else None


def _part(state: Mapping[str, Any], prefix: str) -> dict[str, Any] | None:
    part = {name[len(prefix) + 1 :]: value for name, value in state.items() if name.startswith(f'{prefix}.')}
    return part if any(map(is_tensor, part.values())) else None


def _listed(content: Any) -> str:
    entries = _mapping(content)
    if entries is None:
        return describe(content)
    return first_of([f'{brief(key, 40)} ({describe(value)})' for key, value in entries.items()], 5) or 'nothing'


def _unwrapped(tensors: Mapping[str, Any], path: str | os.PathLike) -> tuple[dict[str, Any], list[str]]:
    """Removes what wrappers add to names."""
    prefix = generator_prefix(map(without_wrappers, tensors))
    remarks, state = [], {}
    if prefix:
        remarks.append(f'{prefix} removed from the names')
    for name, tensor in tensors.items():
        short = without_wrappers(name)
        if short == 'n_averaged' and len(tensors) > 1:  # of torch's AveragedModel
            continue
        if not short.startswith(prefix):
            continue
        short = without_wrappers(short.removeprefix(prefix))
        if short in state:
            raise UserError(
                f'Weights {path}: expected one tensor {brief(short)}, found two, with and without wrappers.'
            )
        state[short] = tensor
    if len(state) < len(tensors) and prefix:
        remarks.append(f'{len(tensors) - len(state)} tensors of other networks passed over')
    return state, remarks


def match_weights(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    path: str | os.PathLike,
    strict: bool = True,
    leave_out: Sequence[str] = (),
    start_of: str | None = None,
) -> Match:
    """Finds out which tensors fit a network; its own may be without memory.

    Args:
        network: Whose weights they are to be. Where names do not fit, those that are known of published weights of its class
            are tried, see :func:`~basicsr_ext.networks.tensor_names.known_names`.
        state: Tensors by name.
        path: Where they come from, for messages.
        strict: Whether all must fit; else those that do not are passed over.
        leave_out: Beginnings of names whose tensors are neither taken nor missed, such as ``upsample`` where x2 weights
            start an x4 network.
        start_of: Name such as ``network_g`` of a network in training that starts from them, to name the options that load a
            part.

    Raises:
        UserError: Names, shapes, or kinds of numbers do not fit; names the first of them. Without ``strict``: nothing fits.
            Nothing is there to leave out. A tensor that fits is not finite.
    """
    named = known_names(network, state)
    remarks = [*getattr(state, 'remarks', ()), *_renamings(state, named)]
    own_names = [*network.state_dict(), *named]
    for beginning in leave_out:
        if not any(key.startswith(beginning) for key in own_names):
            raise UserError(
                f"{path}: expected beginnings of tensors' names to leave out, such as {brief(own_names[0])}, found "
                f'{beginning!r}, with which none begins. Correct path.pretrain_network_*_leave_out.'
            )
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(tuple(leave_out))}
    named = {key: value for key, value in named.items() if not key.startswith(tuple(leave_out))}
    misfits = {
        'missing in the file': [key for key in own if key not in named],
        'unknown to the network': [key for key in named if key not in own],
        'of another shape': [key for key in own if key in named and named[key].shape != own[key].shape],
        'of another kind of numbers': [
            key
            for key in own
            if key in named and named[key].shape == own[key].shape and not _same_kind(own[key], named[key])
        ],
    }
    unfit = {key for keys in misfits.values() for key in keys}
    fitting = {key: named[key] for key in own if key not in unfit}
    found = '; '.join(
        f'{len(keys)} {what} ({", ".join(_compared(key, own, named) for key in keys[:3])})'
        for what, keys in misfits.items()
        if keys
    )
    if found and (strict or not fitting):
        raise UserError(
            f'Weights {path} do not fit {type(network).__name__}: of {len(own)} tensors {found}. '
            f'{_advice(own, named, misfits, start_of)}'
        )
    if spoiled := not_finite(fitting, masks={name for name, _ in network.named_buffers()}):
        raise UserError(
            f'Weights {path}: expected finite numbers, found NaN or infinity in {len(spoiled)} of {len(fitting)} tensors '
            f'({", ".join(spoiled[:3])}): the training that saved them diverged. Take weights that were saved before.'
        )
    total = len(network.state_dict())
    share = 100 * len(fitting) / total if total else 100
    return Match(
        fitting, f'{len(fitting)} of {total} tensors matched ({share:.0f}%)', remarks + ([found] if found else [])
    )


def not_finite(tensors: Mapping[str, torch.Tensor], masks: Collection[str] = ()) -> list[str]:
    """Names the tensors that hold NaN or infinity.

    Args:
        tensors: By name; those that are not of floating point are finite.
        masks: Names of those that may hold -infinity, as masks of attention do among a network's buffers.
    """

    def is_finite(name: str, value: torch.Tensor) -> bool:
        value = value.float() if value.itemsize == 1 else value
        return bool((value < math.inf if name in masks else value.isfinite()).all())

    return [name for name, value in tensors.items() if value.is_floating_point() and not is_finite(name, value)]


def _renamings(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> Iterator[str]:
    names = {id(tensor): name for name, tensor in after.items()}
    changed = [(name, names[id(tensor)]) for name, tensor in before.items() if names.get(id(tensor), name) != name]
    if changed:
        old, new = changed[0]
        yield f'{len(changed)} renamed, such as {brief(old, 60)} to {brief(new, 60)}'
    if gone := [brief(name, 40) for name, tensor in before.items() if id(tensor) not in names]:
        yield f'not needed here: {first_of(gone)}'


def check_kinds(network: nn.Module, state: Mapping[str, torch.Tensor], path: str | os.PathLike) -> None:
    """Refuses tensors that were loaded into a network although their numbers are of another kind.

    Raises:
        UserError: Names the first of them.
    """
    own = network.state_dict()
    others = [key for key, given in state.items() if key in own and not _same_kind(own[key], given)]
    if others:
        raise UserError(
            f'Weights {path} do not fit {type(network).__name__}: {len(others)} of another kind of numbers '
            f'({_compared(others[0], own, state)}). Save them as the numbers of the training, such as float32.'
        )


def _same_kind(own: torch.Tensor, given: torch.Tensor) -> bool:
    """Whether numbers can become those of a network as they are; half of them converters save as half, counts too."""
    if own.is_floating_point() or own.is_complex():
        return given.is_floating_point() or (own.is_complex() and given.is_complex())
    if given.is_floating_point():
        return given.is_meta or bool((given.double() == given.double().round()).all())
    return not given.is_complex()


def _compared(key: str, own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> str:
    name = brief(key, 60)
    if key not in own or key not in given:
        return name
    if own[key].shape != given[key].shape:
        return f'{name} {tuple(given[key].shape)} instead of {tuple(own[key].shape)}'
    return f'{name} {given[key].dtype} instead of {own[key].dtype}'.replace('torch.', '')


def _advice(
    own: Mapping[str, torch.Tensor],
    given: Mapping[str, torch.Tensor],
    misfits: Mapping[str, Sequence[str]],
    start_of: str | None,
) -> str:
    missing, unknown, other_shape, other_kind = misfits.values()

    def shapes(tensors: Mapping[str, torch.Tensor], keys: Sequence[str]) -> Counter:
        return Counter(tuple(tensors[key].shape) for key in keys)

    if other_kind and not (missing or unknown or other_shape):
        return 'Save them as the numbers of the training, such as float32.'
    if missing and not other_shape and shapes(own, missing) == shapes(given, unknown):
        return (
            'The shapes are those of the network, under names that are known of no published weights; which tensor is which '
            "is not guessed. Rename them to the network's names."
        )
    advice = "Check the network's options against those that the weights were trained with."
    if start_of and 2 * len([*missing, *other_shape]) < len(own):
        parts = sorted({brief(key.partition('.')[0], 40) for key in [*missing, *unknown, *other_shape]})
        advice += (
            f' To start with those that fit, and train the others anew: path.pretrain_{start_of}_leave_out: '
            f'[{", ".join(parts)}], or path.strict_load_{start_of.removeprefix("network_")}: false.'
        )
    return advice


def fit_weights(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    path: str | os.PathLike,
    strict: bool = True,
    leave_out: Sequence[str] = (),
    start_of: str | None = None,
) -> Match:
    """Loads tensors into a network; arguments, result and errors as of :func:`match_weights`."""
    match = match_weights(network, state, path, strict, leave_out, start_of)
    network.load_state_dict(match.tensors, strict=False)
    return match


def load_weights(network: nn.Module, path: str | os.PathLike, param_key: str | None = None) -> Match:
    """Loads a checkpoint into a network; every tensor must fit.

    Args:
        network: Receives the weights.
        path: As for :func:`read_weights`.
        param_key: As for :func:`read_weights`.

    Returns:
        What was loaded, and what was renamed.

    Raises:
        UserError: The file cannot be read or does not fit.
    """
    return fit_weights(network, read_weights(path, param_key), path)


def digest_tensors(path: str | os.PathLike) -> list[str]:
    """Returns a fingerprint of each state dict in a checkpoint, such as ``params`` and ``params_ema``.

    It is that of the values alone: a copy that was saved anew, or under other names, has the same.

    Args:
        path: As for :func:`read_weights`.

    Returns:
        SHA-256, in hexadecimal, sorted.

    Raises:
        UserError: As of :func:`read_weights`.
    """
    file = open_weight_file(path)
    with file.reading() as read, _modules_told(path):
        return sorted(
            {_digest([read(value) for value in state.values() if is_tensor(value)]) for state in _states(file.content)}
        )


def _states(value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    if (state := _state(value)) is not None:
        yield state
    for item in (_mapping(value) or {}).values() if depth < _DEPTH else ():
        yield from _states(item, depth + 1)


def _digest(tensors: Iterable[torch.Tensor]) -> str:
    digests = []
    for tensor in tensors:
        digest = hashlib.sha256(f'{tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
        digests.append(digest.digest())
    return hashlib.sha256(b''.join(sorted(digests))).hexdigest()


def sha256(path: str | os.PathLike) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
