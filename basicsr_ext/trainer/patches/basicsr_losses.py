"""What losses need of a model that knows nothing of it: to be told the iteration, logged, summed over ranks, and kept.

BasicSR's own models hold each loss as an attribute, such as ``cri_pix``. Our models do all of it for the losses in their
``criteria`` themselves.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from basicsr_ext.distributed import sum_over_ranks
from basicsr_ext.models.training_model import TrainingModel


def tell_losses_the_iteration(model: Any) -> None:
    """Makes a model tell its losses (``set_iteration``) the iteration before each step, and log their ``values_to_log``."""
    losses = _losses_with(model, 'set_iteration').values()
    if not losses:
        return
    logged = _losses_with(model, 'values_to_log').values()
    original = model.optimize_parameters

    @functools.wraps(original)
    def optimize_parameters(current_iter: int) -> None:
        for loss in losses:
            loss.set_iteration(current_iter)
        original(current_iter)
        values = {name: value for loss in logged for name, value in loss.values_to_log().items()}
        if values:
            tensors = {name: torch.as_tensor(value, device=model.device) for name, value in values.items()}
            model.log_dict.update(model.reduce_loss_dict(OrderedDict(tensors)))

    model.optimize_parameters = optimize_parameters


def sum_losses_over_ranks(model: Any) -> None:
    """Makes those of BasicSR's losses that are sums over a batch, such as ``cri_pix``, sums over all ranks' batches."""
    if isinstance(model, TrainingModel):
        return  # does it itself
    for loss in {value for value in vars(model).values() if isinstance(value, nn.Module)}:
        sum_over_ranks(loss, model.opt['world_size'])


def loss_states(model: Any) -> dict[str, Any]:
    """Returns what a model's losses keep (``extra_state``), by attribute."""
    return {name: loss.extra_state() for name, loss in _losses_with(model, 'extra_state').items()}


def load_loss_states(model: Any, states: dict[str, Any]) -> None:
    """Restores what :func:`loss_states` returned; losses that are not there any more are passed over."""
    for name, loss in _losses_with(model, 'load_extra_state').items():
        if name in states:
            loss.load_extra_state(states[name])


def _losses_with(model: Any, method: str) -> dict[str, nn.Module]:
    return {k: value for k, value in vars(model).items() if isinstance(value, nn.Module) and hasattr(value, method)}
