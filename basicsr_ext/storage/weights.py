"""Weights of networks in files."""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from basicsr_ext.errors import UserError

# In our network files, besides the weights: label, option and scale of the network.
NETWORK_KEY = 'basicsr_ext'


def read_weights(
    path: str | os.PathLike, param_key: str | None = None, exact_key: bool = True
) -> dict[str, torch.Tensor]:
    """Reads a state dict from a checkpoint.

    Args:
        path: File that ``torch.save`` wrote (a state dict, or a mapping that holds one), or a ``.safetensors`` file.
        param_key: Under which key the state dict lies; default: ``params_ema``, else ``params``, else the file itself.
        exact_key: Whether ``param_key`` must be there; else what is there is found as by default.

    Returns:
        Tensors by name, on the CPU, without the prefix ``module.``.

    Raises:
        UserError: The file is missing or damaged, or holds no weights.
    """
    content = read_content(path)
    keys = [param_key] if param_key and exact_key else [param_key, 'params_ema', 'params']
    found = next((key for key in keys if key and isinstance(content.get(key), dict)), None)
    if found is None and param_key and exact_key:
        raise UserError(
            f'Weights {path}: expected the key "{param_key}", found {", ".join(map(str, list(content)[:5]))}.'
        )
    state = content[found] if found else content
    if not state or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise UserError(
            f'Weights {path}: expected tensors by name, found {", ".join(map(str, list(state)[:5])) or "nothing"}.'
        )
    return {key.removeprefix('module.'): value for key, value in state.items()}


def read_content(path: str | os.PathLike) -> dict[str, Any]:
    """Reads all that a file of weights holds, onto the CPU.

    Args:
        path: As for :func:`read_weights`.

    Raises:
        UserError: The file is missing or damaged, or holds no mapping.
    """
    try:
        if Path(path).suffix == '.safetensors':
            content = safetensors.torch.load_file(path)
        else:
            content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise UserError(f'Weights: expected a file at {path}, found none.') from None
    except Exception as error:
        raise UserError(
            f'Weights {path}: expected a file of tensors and plain values that torch.save wrote (or a .safetensors file), '
            f'found {_kind_of_file(path)}.'
        ) from error
    if not isinstance(content, dict):
        raise UserError(f'Weights {path}: expected a state dict, found {type(content).__name__}.')
    return content


def _kind_of_file(path: str | os.PathLike) -> str:
    if Path(path).suffix != '.safetensors' and zipfile.is_zipfile(path):
        return 'one that is damaged, or holds other objects, which are never loaded'
    return 'another kind of file, or a damaged one'


def match_weights(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    path: str | os.PathLike,
    strict: bool = True,
    leave_out: Sequence[str] = (),
) -> tuple[dict[str, torch.Tensor], str]:
    """Finds out which tensors fit a network; its own may be without memory.

    Args:
        network: Whose weights they are to be. Where names do not fit, and its class has a function
            ``published_keys(state)``, this first gives the tensors the class's names.
        state: Tensors by name.
        path: Where they come from, for messages.
        strict: Whether all must fit; else those that do not are passed over.
        leave_out: Beginnings of names whose tensors are neither taken nor missed, such as ``upsample`` where x2 weights
            start an x4 network.

    Returns:
        The tensors that fit, and which share of the network's they are, as a sentence.

    Raises:
        UserError: Names or shapes do not fit; names the first of them. Without ``strict``: nothing fits. Nothing is there to
            leave out. A tensor that fits is not finite.
    """
    published_keys = getattr(network, 'published_keys', None)
    if published_keys is not None and not state.keys() <= network.state_dict().keys():
        state = published_keys(state)
    names = [*network.state_dict(), *state]
    for beginning in leave_out:
        if not any(key.startswith(beginning) for key in names):
            raise UserError(
                f"{path}: expected beginnings of tensors' names to leave out, such as {names[0]}, found {beginning!r}, with "
                'which none begins. Correct path.pretrain_network_*_leave_out.'
            )
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(tuple(leave_out))}
    state = {key: value for key, value in state.items() if not key.startswith(tuple(leave_out))}
    problems = {
        'missing in the file': [key for key in own if key not in state],
        'unknown to the network': [key for key in state if key not in own],
        'of another shape': [
            f'{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    fitting = {key: state[key] for key in own if key in state and state[key].shape == own[key].shape}
    found = '; '.join(f'{len(keys)} {what} ({", ".join(keys[:3])})' for what, keys in problems.items() if keys)
    if found and (strict or not fitting):
        raise UserError(
            f'Weights {path} do not fit {type(network).__name__}: of {len(own)} tensors {found}. '
            "Check the network's options against those that the weights were trained with."
        )
    if spoiled := not_finite(fitting):
        raise UserError(
            f'Weights {path}: expected finite numbers, found NaN or infinity in {len(spoiled)} of {len(fitting)} tensors '
            f'({", ".join(spoiled[:3])}): the training that saved them diverged. Take weights that were saved before.'
        )
    total = len(network.state_dict())
    share = 100 * len(fitting) / total if total else 100
    return fitting, f'{len(fitting)} of {total} tensors matched ({share:.0f}%)' + (f'; {found}' if found else '')


def not_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; -infinity alone may be a mask of attention."""
    return [name for name, value in tensors.items() if value.is_floating_point() and not bool((value < math.inf).all())]


def fit_weights(
    network: nn.Module,
    state: Mapping[str, torch.Tensor],
    path: str | os.PathLike,
    strict: bool = True,
    leave_out: Sequence[str] = (),
) -> str:
    """Loads tensors into a network; arguments and errors as of :func:`match_weights`.

    Returns:
        Which share of the network's tensors was loaded, as a sentence.
    """
    fitting, sentence = match_weights(network, state, path, strict, leave_out)
    network.load_state_dict(fitting, strict=False)
    return sentence


def load_weights(network: nn.Module, path: str | os.PathLike, param_key: str | None = None) -> None:
    """Loads a checkpoint into a network; every tensor must fit.

    Args:
        network: Receives the weights.
        path: As for :func:`read_weights`.
        param_key: As for :func:`read_weights`.

    Raises:
        UserError: The file cannot be read or does not fit.
    """
    fit_weights(network, read_weights(path, param_key), path)


def digest_tensors(path: str | os.PathLike) -> list[str]:
    """Returns a fingerprint of each state dict in a checkpoint, such as ``params`` and ``params_ema``.

    It is that of the values alone: a copy that was saved anew, or under other names, has the same.

    Args:
        path: As for :func:`read_weights`.

    Returns:
        SHA-256, in hexadecimal, sorted.

    Raises:
        UserError: The file is missing or damaged, or holds no mapping.
    """

    def states(content: Mapping[Any, Any]) -> Iterator[list[torch.Tensor]]:
        tensors = [value for value in content.values() if isinstance(value, torch.Tensor)]
        if tensors:
            yield tensors
        for value in content.values():
            if isinstance(value, Mapping):
                yield from states(value)

    return sorted({_digest(tensors) for tensors in states(read_content(path))})


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
