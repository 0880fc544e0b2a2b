"""A player: what one optimizer trains."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from basicsr.utils import get_root_logger
from pydantic import Field, model_validator
from torch import nn

from basicsr_ext.config import OptionBlock
from basicsr_ext.errors import UserError, first_of
from basicsr_ext.models.cuda_graphs import GraphedNetwork


class GradClip(OptionBlock):
    """``train.grad_clip``: limits gradients before the optimizer's step; exactly one of ``value`` and ``norm``.

    Attributes:
        value: Largest absolute value of a gradient's element.
        norm: Largest L2 norm of all gradients of a player together.
        players: Names of the players whose gradients are limited; where it is missing, all.
    """

    value: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    players: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode='after')
    def _one_of_two(self):
        if (self.value is None) == (self.norm is None):
            raise ValueError('expected exactly one of "value" and "norm"')
        return self

    def limits(self, player: str) -> bool:
        """Whether the gradients of a player are limited."""
        return self.players is None or player in self.players

    def check_players(self, known: Collection[str]) -> None:
        """Refuses names of players that a model does not have.

        Raises:
            UserError: Names the option to change.
        """
        unknown = sorted(set(self.players or ()) - set(known))
        if unknown:
            raise UserError(f'train.grad_clip.players: expected some of {", ".join(known)}, found {unknown[0]!r}.')

    def apply(self, parameters: list[nn.Parameter]) -> None:
        """Clips the gradients of parameters in place."""
        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        else:
            nn.utils.clip_grad_norm_(parameters, self.norm)


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
