"""Trained networks: from an option, or what a file of weights says of itself, to a module ready to run."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

import basicsr_ext
from basicsr_ext.errors import UserError, brief
from basicsr_ext.networks.weight_file import NETWORK_KEY, describe, is_tensor, open_weight_file
from basicsr_ext.options.problems import found

_LARGEST_SCALE = 64


class _TooLarge(UserError):
    """A network that its file cannot hold."""


def teacher_from_file(path: str | Path, scale: int | None = None) -> tuple[dict[str, Any], int]:
    """Takes ``network_g`` and ``scale`` from an option file.

    Args:
        path: Option file.
        scale: What the command line says; it must agree with the file where both say something.

    Raises:
        UserError: The file lacks one of the two, or the scales differ.
    """
    from basicsr_ext.options.complete import load_yaml

    options = load_yaml(path)
    network, own_scale = options.get('network_g'), options.get('scale')
    if not isinstance(network, Mapping):
        raise UserError(f'{path}: expected a block network_g that describes the teacher, found {network!r}.')
    if scale is not None and own_scale is not None and scale != own_scale:
        raise UserError(f'{path}: scale is {own_scale}, the command line says {scale}: change one of them.')
    scale = scale if own_scale is None else own_scale
    if scale is None:
        raise UserError(f'{path}: expected an option scale, found none: add it, or give --scale.')
    return dict(network), scale


def teacher_from_text(text: str, scale: int | None) -> tuple[dict[str, Any], int]:
    """Takes the network option from YAML text, as on a command line.

    Raises:
        UserError: The text is not a YAML mapping, or ``scale`` is missing.
    """
    from basicsr_ext.options.problems import raise_problems
    from basicsr_ext.options.source import read_source
    from basicsr_ext.options.yaml import read_yaml

    if scale is None:
        raise UserError('--network needs --scale, found none.')
    network, problems = read_yaml(text, '--network')
    raise_problems(problems)
    if not isinstance(network, dict):
        raise UserError(f'--network: expected a YAML mapping such as {{type: EDSR, num_in_ch: 3}}, found {network!r}.')
    return read_source({'network': network}).values['network'], scale


def check_network_file(path: str | os.PathLike, described: bool = True) -> Mapping[str, Any] | None:
    """Reads a file of weights, and refuses what holds no network that makes images.

    Args:
        path: Network file of ours or BasicSR's, or weights of others.
        described: Whether its description of the network is needed; else a wrong one does not matter.

    Returns:
        What the file says of its network (label, network option, scale); ``None`` where it holds weights only.

    Raises:
        UserError: It is missing or damaged, a training state, or the file of a discriminator; its description is wrong.
    """
    path = Path(path)
    content = open_weight_file(path).content
    if not isinstance(content, dict):
        return None
    if 'optimizers' in content and 'iter' in content:
        network = path.parent.with_name('models') / f'net_g_{brief(content["iter"], 20)}.pth'
        raise UserError(f'Weights {path}: expected a file of a network, found a training state. Try {network}.')
    record = content.get(NETWORK_KEY)
    if not isinstance(record, dict) or is_tensor(record):
        return None
    if described:
        _check_record(record, path)
        _check_size(record['network'], path)
    label, network = str(record.get('label')), record.get('network')
    if label.startswith('net_d'):
        kind = network.get('type') if isinstance(network, dict) else None
        raise UserError(
            f'Weights {path}: expected a network that makes images, found {brief(label)}, the discriminator {brief(kind)}. '
            'Give the file of net_g.'
        )
    return record if described else None


def _check_record(record: Mapping[str, Any], path: Path) -> None:
    network, scale = record.get('network'), record.get('scale')
    value = network
    if not isinstance(network, dict) or not isinstance(network.get('type'), str):
        expected = 'a mapping with the name of the network as type'
    elif not _is_plain(network):
        expected = 'plain values (numbers, texts, lists) as options of the network'
    elif not isinstance(scale, int) or isinstance(scale, bool) or not 1 <= scale <= _LARGEST_SCALE:
        expected, value = f'a scale from 1 to {_LARGEST_SCALE}', scale
    else:
        return
    shown = found(value) if type(value) in (str, int, float, bool, type(None)) else describe(value)
    raise UserError(
        f'Weights {path}: what the file says of its network ("{NETWORK_KEY}") is wrong: expected {expected}, found {shown}. '
        'Give the option file of its network (-opt), with network_g and scale.'
    )


def _check_size(network: Mapping[str, Any], path: Path) -> None:
    """Refuses a description of a network that is far larger than its file, before it is built and fills the memory.

    Weights are counted while they are made without memory, since a network of 10**9 layers would not end.
    """
    basicsr_ext.register()
    from basicsr.utils.registry import ARCH_REGISTRY

    from basicsr_ext.checking.networks import build_without_memory
    from basicsr_ext.checking.registries import look_up, origin

    kind = look_up(ARCH_REGISTRY, network['type'])
    if kind is None or origin(kind) == 'other':
        return
    size, made = path.stat().st_size, 0

    def refuse(numbers: int) -> NoReturn:
        raise _TooLarge(
            f'Weights {path}: what the file says of its network ("{NETWORK_KEY}") is wrong: {brief(network["type"])} with '
            f'these options has {numbers:,} weights or more, more than the file of {size:,} bytes can hold. Give the option '
            'file of its network (-opt), with network_g and scale.'
        )

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal made
        made += parameter.numel()
        if made > 8 * size:  # weights that layers share, or that are made anew, are counted more than once
            refuse(made // 8)

    counting = register_module_parameter_registration_hook(count)
    try:
        built = build_without_memory(kind, {key: value for key, value in network.items() if key != 'type'})
    except _TooLarge:
        raise
    except Exception:  # whatever the constructor makes of wrong arguments is told where the network is built
        return
    finally:
        counting.remove()
    numbers = sum(parameter.numel() for parameter in built.parameters())
    if numbers > size:
        refuse(numbers)


def _is_plain(value: Any, depth: int = 0) -> bool:
    if depth > 20:
        return False
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item, depth + 1) for key, item in value.items())
    if isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return all(_is_plain(item, depth + 1) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def teacher_from_weights(path: str | Path, scale: int | None = None) -> tuple[dict[str, Any] | None, int | None]:
    """Takes the network option and the scale from a network file of ours.

    Args:
        path: As for :func:`check_network_file`.
        scale: What the user expects; it must agree with the file.

    Returns:
        Both; ``None`` and the given scale where the file holds weights only.

    Raises:
        UserError: As of :func:`check_network_file`; or the scales differ.
    """
    record = check_network_file(path)
    if record is None:
        return None, scale
    if scale not in (None, record['scale']):
        raise UserError(f'--scale: the network of {path} enlarges {record["scale"]} times, and {scale} was given.')
    return dict(record['network']), record['scale']


def build_teacher(
    network: Mapping[str, Any], weights: str | Path, param_key: str | None, device: torch.device
) -> torch.nn.Module:
    """Builds a network as :func:`basicsr_ext.models.teacher.load_teacher` does, after all networks are registered.

    What was renamed or passed over in the file is said on standard error.
    """
    basicsr_ext.register()
    from basicsr_ext.models import teacher

    built, match = teacher.load_teacher(network, weights, param_key, device)
    print_remarks(weights, match.remarks)
    return built


def print_remarks(weights: str | os.PathLike, remarks: Sequence[str]) -> None:
    """Says on standard error, on the first rank, what was done to read a file of weights, where there is no log yet."""
    rank = os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or '0'
    if remarks and rank == '0':
        print(f'Weights {weights}: {"; ".join(remarks)}.', file=sys.stderr, flush=True)


def check_network_option(network: Mapping[str, Any]) -> None:
    """Refuses a network option without a type, or with values that a store's meta data (JSON) cannot hold."""
    if not isinstance(network, Mapping) or not isinstance(network.get('type'), str):
        raise UserError(f'network: expected a mapping with the name of the network as type, found {network!r}.')
    try:
        json.dumps(network)
    except TypeError as error:
        raise UserError(f'network: expected plain values (numbers, texts, lists): {error}.') from None
