"""Limits of gradients: ``train.grad_clip``."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from basicsr_ext.errors import UserError
from basicsr_ext.options.config import OptionBlock

if TYPE_CHECKING:
    from torch import nn


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
        from torch import nn  # here, so that options are checked without it

        if self.value is not None:
            nn.utils.clip_grad_value_(parameters, self.value)
        else:
            nn.utils.clip_grad_norm_(parameters, self.norm)
