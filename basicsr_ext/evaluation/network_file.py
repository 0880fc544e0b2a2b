"""From a file of weights to a network that is ready to run."""

from __future__ import annotations

import importlib.util
import os
from typing import Any, NamedTuple

import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.networks.requirements import SizeRequirements, requirements_of
from basicsr_ext.networks.weights import read_weights
from basicsr_ext.prepare.teacher import build_teacher, check_network_file, teacher_from_file


class TrainedNetwork(NamedTuple):
    """A network with its weights.

    Attributes:
        network: On its device, in evaluation mode.
        scale: Factor by which it enlarges.
        needs: What its input must be like.
        option: Network option that builds it; ``None`` where there is none.
    """

    network: nn.Module
    scale: int
    needs: SizeRequirements
    option: dict[str, Any] | None = None


def open_network(
    weights: str | os.PathLike,
    device: torch.device,
    *,
    options: str | os.PathLike | None = None,
    param_key: str | None = None,
) -> TrainedNetwork:
    """Builds the network that a file of weights belongs to.

    Args:
        weights: As for :func:`check_network_file`.
        device: Where it shall run.
        options: Option file whose ``network_g`` and ``scale`` describe the network; default: what the file itself says;
            where it says nothing, what spandrel recognises, if that is installed.
        param_key: Entry of the file; default: ``params_ema``, else ``params``, else the whole file.

    Raises:
        UserError: There is no description, or the weights do not fit it.
    """
    record = check_network_file(weights, described=options is None)
    if options is not None:
        network, scale = teacher_from_file(options)
    elif record is not None:
        network, scale = dict(record['network']), record['scale']
    else:
        return _recognised(weights, device, param_key)
    return TrainedNetwork(build_teacher(network, weights, param_key, device), scale, requirements_of(network), network)


def _recognised(weights: str | os.PathLike, device: torch.device, param_key: str | None) -> TrainedNetwork:
    way_out = 'Give the option file of its network (-opt), with network_g and scale'
    read_weights(weights, param_key)  # says so where there are none
    if importlib.util.find_spec('spandrel') is None:
        raise UserError(
            f'Weights {weights}: this file holds weights only. {way_out}; or let the library spandrel recognise it: '
            'pip install "basicsr-ext[spandrel]".'
        )
    from basicsr_ext.prepare.recognised import detect_architecture
    from basicsr_ext.registration import register

    register()  # if BasicSR is missing, that is what is wrong, and not the file
    try:
        found = detect_architecture(weights, param_key)
    except UserError as error:
        reason = str(error).partition(' Give it (')[0]
        raise UserError(f'{reason} This file holds weights only. {way_out}.') from None
    needs = SizeRequirements(found.network.size_multiple, found.network.channels == 1)
    return TrainedNetwork(found.network.to(device), found.scale, needs, found.network.own_option)
