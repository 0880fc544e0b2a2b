"""Weights of networks in files."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from torch import nn

from basicsr_ext.errors import UserError


def read_weights(path: str | os.PathLike, param_key: str | None = None) -> dict[str, torch.Tensor]:
    """Reads a state dict from a checkpoint.

    Args:
        path: File that ``torch.save`` wrote: a state dict, or a mapping that holds one.
        param_key: Under which key the state dict lies; default: ``params_ema``, else ``params``, else the file itself.

    Returns:
        Tensors by name, on the CPU, without the prefix ``module.``.

    Raises:
        UserError: The file is missing or damaged, or holds no weights.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise UserError(f'Weights: expected a file at {path}, found none.') from None
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f'Weights {path}: expected a file of tensors that torch.save wrote ({reason}).') from None
    if not isinstance(content, dict):
        raise UserError(f'Weights {path}: expected a state dict, found {type(content).__name__}.')
    keys = [param_key] if param_key else ['params_ema', 'params']
    found = next((key for key in keys if isinstance(content.get(key), dict)), None)
    if found is None and param_key:
        raise UserError(
            f'Weights {path}: expected the key "{param_key}", found {", ".join(map(str, list(content)[:5]))}.'
        )
    state = content[found] if found else content
    if not state or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(
            f'Weights {path}: expected tensors by name, found {", ".join(map(str, list(state)[:5])) or "nothing"}.'
        )
    return {key.removeprefix('module.'): value for key, value in state.items()}


def load_weights(network: nn.Module, path: str | os.PathLike, param_key: str | None = None) -> None:
    """Loads a checkpoint into a network; every tensor must fit.

    Args:
        network: Receives the weights.
        path: As for :func:`read_weights`.
        param_key: As for :func:`read_weights`.

    Raises:
        UserError: Also where names or shapes differ; names the first of them.
    """
    state = read_weights(path, param_key)
    own = network.state_dict()
    problems = {
        'missing in the file': [key for key in own if key not in state],
        'unknown to the network': [key for key in state if key not in own],
        'of another shape': [
            f'{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}'
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    found = [f'{len(keys)} {what} ({", ".join(keys[:3])})' for what, keys in problems.items() if keys]
    if found:
        raise UserError(
            f'Weights {path} do not fit {type(network).__name__}: of {len(own)} tensors {"; ".join(found)}. '
            "Check the network's options against those that the weights were trained with."
        )
    network.load_state_dict(state)


def sha256(path: str | os.PathLike) -> str:
    """Returns the sha256 of a file, in hexadecimal."""
    with Path(path).open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()
