"""The trained network that makes centroids: from an option and a file of weights to a module ready to run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import basicsr_ext
from basicsr_ext.errors import UserError


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
