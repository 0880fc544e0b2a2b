"""What the ranks of a run share: sums of losses, and long work in the middle of an iteration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from basicsr_ext.errors import UserError


def _alone(value: Any) -> list[Any]:
    return [value]


def _nothing() -> None:
    pass


class Ranks(NamedTuple):
    """The processes of a run, as a model meets them; by default one alone.

    A model with an attribute ``ranks`` is given those of its run by the trainer.

    Attributes:
        rank: This process.
        world_size: Number of processes.
        gather: Returns the values of all ranks, in their order, over the CPU; all ranks must call it.
        keep: Keeps the iterations done, so that a run that ends in the work goes on from there; all ranks must call it.
        leave_if_asked: Ends the run if any rank was asked to stop; all ranks must call it, after ``keep``.
    """

    rank: int = 0
    world_size: int = 1
    gather: Callable[[Any], list[Any]] = _alone
    keep: Callable[[], None] = _nothing
    leave_if_asked: Callable[[], None] = _nothing

    def together(self, task: Callable[[], Any]) -> list[Any]:
        """Does a task on this rank; where it fails on one rank, all of them end with an error, and none waits for it.

        Args:
            task: All ranks must call this method, each with a task of its own.

        Returns:
            What came out, by rank.

        Raises:
            UserError: Another rank failed, and how. An error of this rank's own task is raised as it is.
        """
        result, failure = None, None
        try:
            result = task()
        except Exception as error:
            failure = error
        outcomes = self.gather((result, failure and (str(failure) or type(failure).__name__)))
        if failure is not None:
            raise failure
        for rank, (_, reason) in enumerate(outcomes):
            if reason is not None:
                raise UserError(f'Rank {rank} failed: {reason}')
        return [result for result, _ in outcomes]

    def on_first(self, task: Callable[[], Any]) -> Any:
        """Does a task on the first rank; returns what came out on all of them, which must call it. Errors as above."""
        return self.together(task if self.rank == 0 else _nothing)[0]


def sum_over_ranks(loss: nn.Module, world_size: int) -> None:
    """Makes a loss that is a sum over a batch (``reduction: sum``) one over the batches of all ranks together.

    Gradients and logged values are averaged over the ranks. That is right for means, and a sum would be divided by the number
    of ranks, which its factor here undoes.

    Args:
        loss: Any; losses that are no sums are left as they are.
        world_size: Number of ranks.
    """
    reduction = getattr(getattr(loss, 'loss_op', loss), 'reduction', None)  # loss_op: of BasicSR's GANFeatLoss
    if world_size > 1 and reduction == 'sum':
        loss.register_forward_hook(lambda _module, _inputs, value: value * world_size)
