"""Skips optimizer steps whose loss exploded."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import Field

from basicsr_ext.errors import UserError
from basicsr_ext.options.config import OptionBlock

if TYPE_CHECKING:
    import torch


class GuardOptions(OptionBlock):
    """``train.guard``.

    Attributes:
        factor: A step is skipped where its loss exceeds this many times the last accepted loss.
        initial: What counts as the last accepted loss before the first step, on the scale of the weighted loss.
        max_skips: Skips in a row after which the run stops.
        hold_scheduler: Whether the player's learning rate stays too where a step is skipped, as in the published code of ECO,
            whose schedule then ends later. By default it goes by the iteration.
    """

    factor: float = Field(default=5.0, gt=1)
    initial: float = Field(default=100.0, gt=0)
    max_skips: int = Field(default=10, ge=1)
    hold_scheduler: bool = False


class Guard:
    """Remembers the last accepted loss of each player and refuses losses far above it, or not finite.

    Reading a loss waits for the device, and asks all ranks: that is the price of a guard.

    Source: the published code of ECO skips steps so, against NaN in RCAN (factor 5, first 100 with L1 times 255).
    """

    def __init__(self, options: GuardOptions):
        self.options = options
        self.last_accepted: dict[str, float] = {}
        self.skips: dict[str, int] = {}

    def accepts(self, player: str, loss: torch.Tensor, keys: list[str]) -> bool:
        """Says whether a step may be taken; the same answer on all ranks.

        Args:
            player: Name of the player.
            loss: Its total loss, a scalar.
            keys: Names of the batch's images, for the message of a run that stops.

        Raises:
            UserError: ``max_skips`` steps in a row were refused.
        """
        import torch  # here, so that options are checked without it
        from torch import distributed

        worst = torch.nan_to_num(loss.detach().double(), nan=math.inf, posinf=math.inf, neginf=math.inf)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(worst, op=distributed.ReduceOp.MAX)
        value = worst.item()
        last = self.last_accepted.get(player, self.options.initial)
        if math.isfinite(value) and value <= self.options.factor * last:
            self.last_accepted[player] = value
            self.skips[player] = 0
            return True
        self.skips[player] = self.skips.get(player, 0) + 1
        if self.skips[player] >= self.options.max_skips:
            raise UserError(
                f'train.guard: {self.skips[player]} steps in a row were skipped, since the loss of "{player}" '
                f'({value:.4g}) exceeds {self.options.factor:g} times the last accepted one ({last:.4g}). '
                f'Images of this batch: {", ".join(keys) or "unknown"}. Lower the learning rate or look at these images; '
                'train.guard.initial sets what the first loss is compared with. A checkpoint of the iteration just before '
                'these may hold weights that had exploded already; the one before it, if there was one, is kept then.'
            )
        return False

    def holds_scheduler(self, player: str) -> bool:
        """Whether a player's scheduler stays where it is, since its last step was skipped."""
        return self.options.hold_scheduler and self.skips.get(player, 0) > 0

    def extra_state(self) -> dict[str, Any]:
        """Returns what a resumed run needs."""
        return {'last_accepted': dict(self.last_accepted), 'skips': dict(self.skips)}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`extra_state` gave."""
        self.last_accepted = dict(state['last_accepted'])
        self.skips = dict(state['skips'])
