"""What is known of the losses of a run, of every iteration, without waiting for the device in each."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import distributed

from basicsr_ext.errors import diverged

_NEVER = 2.0**53  # an iteration that no run reaches
_STEPS = 100  # that are looked at together


class LossRecord:
    """Since when a loss is not finite, and which ones were 0 all the time since the last printed line."""

    def __init__(self) -> None:
        # Names of losses that are noted together -> what is not looked at yet: iteration (or _NEVER) and values of each step.
        self._pending: dict[tuple[str, ...], list[tuple[float, list[torch.Tensor]]]] = {}
        # The same names -> (2, number of losses), float64 on the device: the first iteration in which a loss was not finite
        # although the step was taken, and minus its largest magnitude since the last line.
        self._records: dict[tuple[str, ...], torch.Tensor] = {}

    def note(self, losses: Mapping[str, torch.Tensor], iteration: int, taken: bool) -> None:
        """Notes the losses of a step; computes something only every hundred steps.

        Args:
            losses: Scalars by name, without graphs.
            iteration: Counted from 1.
            taken: Whether the step was taken; losses of one that was skipped may be anything.
        """
        pending = self._pending.setdefault(tuple(losses), [])
        pending.append((float(iteration) if taken else _NEVER, list(losses.values())))
        if len(pending) == _STEPS:
            self._look()

    def _look(self) -> None:
        """Looks at what is pending."""
        for names, pending in self._pending.items():
            if not pending:
                continue
            values = [value.reshape(()) for _, of_step in pending for value in of_step]  # some have a dimension of 1
            if len({(value.dtype, value.device) for value in values}) > 1:
                device = max((value.device for value in values), key=lambda device: device.type != 'cpu')
                values = [value.to(device, torch.float64) for value in values]
            table = torch.stack(values).double().view(len(pending), len(names))
            iterations = torch.tensor(
                [[iteration] for iteration, _ in pending], dtype=torch.float64, device=table.device
            )
            first = torch.where(table.isfinite(), _NEVER, iterations).amin(0)
            record = torch.stack([first, -table.abs().amax(0)])
            self._records[names] = torch.minimum(record, self._records[names]) if names in self._records else record
            pending.clear()

    def check(self) -> list[str]:
        """Ends a run that diverged; all ranks must call it.

        Returns:
            The losses that were exactly 0 on all ranks since the last line.

        Raises:
            UserError: A step was taken with a loss that is not finite; names loss and iteration.
        """
        self._look()
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
        self._look()
        for record in self._records.values():
            record[1] = 1.0  # above what any loss gives: those of another phase are not noted at all


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
