"""What is known of the losses of a run, of every iteration, without waiting for the device in each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import distributed

from basicsr_ext.errors import diverged

_NEVER = 2.0**53  # an iteration that no run reaches


class LossRecord:
    """Since when a loss is not finite, and which ones were 0 all the time since the last printed line."""

    def __init__(self) -> None:
        # Names of losses that are noted together -> (2, number of losses), float64 on the device: the first iteration in which
        # a loss was not finite although the step was taken, and minus its largest magnitude since the last line.
        self._records: dict[tuple[str, ...], torch.Tensor] = {}

    def note(self, losses: Mapping[str, torch.Tensor], iteration: int, taken: bool) -> None:
        """Notes the losses of a step.

        Args:
            losses: Scalars by name.
            iteration: Counted from 1.
            taken: Whether the step was taken; losses of one that was skipped may be anything.
        """
        names = tuple(losses)
        values = torch.stack([value.double() for value in losses.values()])
        record = self._records.get(names)
        if record is None:
            record = torch.zeros(2, len(names), dtype=torch.float64, device=values.device)
            record[0] = _NEVER
        first, largest = record
        if taken:
            first = torch.where(values.isfinite(), first, first.clamp(max=iteration))
        self._records[names] = torch.stack([first, torch.minimum(largest, -values.abs())])

    def check(self) -> list[str]:
        """Ends a run that diverged; all ranks must call it.

        Returns:
            The losses that were exactly 0 on all ranks since the last line.

        Raises:
            UserError: A step was taken with a loss that is not finite; names loss and iteration.
        """
        if not self._records:
            return []
        record = torch.cat(list(self._records.values()), 1)
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(record, op=distributed.ReduceOp.MIN)
        firsts, largest = record.tolist()
        names = [name for group in self._records for name in group]
        iteration, name = min(zip(firsts, names, strict=True))
        if iteration < _NEVER:
            raise diverged(f'in iteration {iteration:.0f} the loss {name} is not finite')
        return [name for name, value in zip(names, largest, strict=True) if value == 0]

    def begin_interval(self) -> None:
        """Begins the interval up to the next line."""
        for record in self._records.values():
            record[1] = 0.0


def zero_losses(names: list[str], iteration: int) -> str:
    """What to say of losses that were exactly 0 in every iteration since the last line.

    Args:
        names: Of the losses.
        iteration: Of this line.
    """
    return (
        f'{", ".join(names)}: exactly 0 in every iteration up to {iteration} since the last line, so that nothing is learnt '
        'from it. Look at its options (PSPL: step_iters) if it stays so.'
    )
