"""Ranks of a launcher that share the work of a step."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from basicsr_ext.errors import RankLost, UserError


class AnotherRankFailed(SystemExit):
    """Ends a rank without a message: the first one has said what is wrong."""


@contextmanager
def shared_work(launcher: str | None) -> Iterator[tuple[int, int]]:
    """Joins the ranks of a launcher, and gives the number of this one and how many there are.

    Ranks exchange messages only, so they talk over the CPU wherever the networks run.

    Args:
        launcher: ``pytorch`` (torchrun), ``slurm``, ``none``, or ``None``, which means ``pytorch`` under torchrun.

    Raises:
        UserError: The environment lacks what the launcher should have set.
    """
    from basicsr_ext.distributed import is_distributed, is_lost_rank, leave_ranks, start_ranks

    if launcher is None:
        launcher = 'pytorch' if 'TORCHELASTIC_RUN_ID' in os.environ else 'none'
    if launcher == 'none':
        yield 0, 1
        return
    if is_distributed():
        yield torch.distributed.get_rank(), torch.distributed.get_world_size()
        return
    start_ranks(launcher, num_gpu=0)
    try:
        yield torch.distributed.get_rank(), torch.distributed.get_world_size()
    except RuntimeError as error:
        if is_lost_rank(error):
            raise RankLost(error) from error
        raise
    finally:
        leave_ranks()


def on_first_rank(task: Callable[[], None]) -> None:
    """Lets the first rank do something while the others wait; where it fails, all end.

    Raises:
        UserError: What the task raised, on the first rank.
        AnotherRankFailed: On the others.
    """
    from basicsr_ext.distributed import from_first_rank, is_distributed

    if not is_distributed():
        task()
        return
    failure = None
    if torch.distributed.get_rank() == 0:
        try:
            task()
        except UserError as error:
            failure = error
    if from_first_rank(failure is not None):
        raise failure or AnotherRankFailed(2)


def own_device(device: str) -> str:
    """Spreads the ranks of a machine over its GPUs, where ``auto`` or ``cuda`` leaves that open."""
    rank = os.environ.get('LOCAL_RANK')
    if rank is None or device not in ('auto', 'cuda') or not torch.cuda.is_available():
        return device
    return f'cuda:{int(rank) % torch.cuda.device_count()}'
