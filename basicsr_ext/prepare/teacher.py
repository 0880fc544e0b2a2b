"""Trained networks: from an option, or what a file of weights says of itself, to a module ready to run."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import basicsr_ext
from basicsr_ext.errors import UserError
from basicsr_ext.storage.weights import NETWORK_KEY, read_content


def teacher_from_file(path: str | Path, scale: int | None = None) -> tuple[dict[str, Any], int]:
    """Takes ``network_g`` and ``scale`` from an option file.

    Args:
        path: Option file.
        scale: What the command line says; it must agree with the file where both say something.

    Raises:
        UserError: The file lacks one of the two, or the scales differ.
    """
    from basicsr_ext.trainer.options import load_yaml

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
    from basicsr_ext.trainer.checking.problems import raise_problems
    from basicsr_ext.trainer.checking.reading import read_yaml
    from basicsr_ext.trainer.checking.source import read_source

    if scale is None:
        raise UserError('--network needs --scale, found none.')
    network, problems = read_yaml(text, '--network')
    raise_problems(problems)
    if not isinstance(network, dict):
        raise UserError(f'--network: expected a YAML mapping such as {{type: EDSR, num_in_ch: 3}}, found {network!r}.')
    return read_source({'network': network}).values['network'], scale


def check_network_file(path: str | os.PathLike) -> Mapping[str, Any] | None:
    """Reads a file of weights, and refuses what holds no network that makes images.

    Args:
        path: Network file of ours or BasicSR's, state dict, or ``.safetensors``.

    Returns:
        What the file says of its network (label, network option, scale); ``None`` where it holds weights only.

    Raises:
        UserError: It is missing or damaged, a training state, or the file of a discriminator.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f'Weights {path}: expected a file, such as net_g_latest.pth, found a folder.')
    content = read_content(path)
    if 'optimizers' in content and 'iter' in content:
        network = path.parent.with_name('models') / f'net_g_{content["iter"]}.pth'
        raise UserError(f'Weights {path}: expected a file of a network, found a training state. Try {network}.')
    record = content.get(NETWORK_KEY)
    if not isinstance(record, Mapping) or not isinstance(record.get('network'), Mapping) or 'scale' not in record:
        return None
    label = str(record.get('label'))
    if label.startswith('net_d'):
        raise UserError(
            f'Weights {path}: expected a network that makes images, found {label}, the discriminator '
            f'{record["network"].get("type")}. Give the file of net_g.'
        )
    return record


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
    """Builds a teacher as :func:`basicsr_ext.models.teacher.build_teacher` does, after all networks are registered."""
    basicsr_ext.register()
    from basicsr_ext.models import teacher

    return teacher.build_teacher(network, weights, param_key, device)


def check_network_option(network: Mapping[str, Any]) -> None:
    """Refuses a network option without a type, or with values that a store's meta data (JSON) cannot hold."""
    if not isinstance(network, Mapping) or not isinstance(network.get('type'), str):
        raise UserError(f'network: expected a mapping with the name of the network as type, found {network!r}.')
    try:
        json.dumps(network)
    except TypeError as error:
        raise UserError(f'network: expected plain values (numbers, texts, lists): {error}.') from None
