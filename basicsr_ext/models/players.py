"""A player: what one optimizer trains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import nn

from basicsr_ext.errors import UserError, first_of
from basicsr_ext.models.cuda_graphs import GraphedNetwork
from basicsr_ext.models.grad_clip import GradClip


def names_without_gradient(network: nn.Module, parameters: Iterable[nn.Parameter]) -> list[str]:
    """Names those of a network's parameters that a backward pass has given no gradient.

    Args:
        network: Inside the views of several ranks and of ``torch.compile``, or not.
        parameters: Those to look at.
    """
    without = {id(parameter) for parameter in parameters if parameter.requires_grad and parameter.grad is None}
    names = [name for name, parameter in network.named_parameters() if id(parameter) in without] if without else []
    return [name.replace('_orig_mod.', '').removeprefix('module.') for name in names]


def tell_unreached(names: Sequence[str], network: nn.Module, what: str) -> None:
    """Tells, after the first backward pass, that no loss reaches some parameters.

    Several ranks do not get over that: they would end in the next forward, unless they look for such parameters.

    Args:
        names: Of the parameters; none is fine.
        network: What training forwards run through.
        what: Whose parameters they are.

    Raises:
        UserError: The network is shared by several ranks that expect a gradient for every parameter.
    """
    if not names:
        return
    said = f'{what}: no loss reaches {first_of(names)}'
    view = getattr(network, '_orig_mod', network)
    if isinstance(view, nn.parallel.DistributedDataParallel) and not view.find_unused_parameters:
        raise UserError(
            f'{said}. Several ranks expect a gradient for every parameter: set find_unused_parameters: true (at the top '
            'level), or take these parts out of the network.'
        )
    get_root_logger().warning(
        f'{said}; they stay as they are. On several ranks such a network needs find_unused_parameters: true.'
    )


@dataclass
class Player:
    """A network view with its optimizer and scheduler.

    Attributes:
        name: Short name, such as ``g`` or ``d``.
        network: What a training forward runs through: the network, or its ``DistributedDataParallel`` view.
        parameters: Those that the optimizer changes.
        optimizer: Of these parameters.
        scheduler: Of the optimizer; steps once an iteration.
        scaler: Scales losses in fp16; does nothing in other precisions.
        grad_clip: Limits gradients; ``None`` leaves them.
        ema: Pairs of tensors (averaged, current) that follow this player's steps.
        graphed: Replays the network's forward and backward as CUDA graphs; ``None`` where that was not asked for.
    """

    name: str
    network: nn.Module
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    scheduler: Any
    scaler: torch.amp.GradScaler
    grad_clip: GradClip | None = None
    ema: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    graphed: GraphedNetwork | None = None

    def unreached(self) -> list[str]:
        """Names of the parameters that the last backward pass has given no gradient."""
        return names_without_gradient(self.network, self.parameters)

    @contextmanager
    def frozen(self) -> Iterator[nn.Module]:
        """Gives the network with gradients flowing through it, and none into its parameters."""
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        try:
            yield self.network
        finally:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
