"""Ranks: devices and process groups (gloo on the CPU, NCCL on CUDA), and what the ranks of a run share."""

from __future__ import annotations

import atexit
import os
import random
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn

import torch
from torch import distributed, nn

from basicsr_ext.errors import UserError
from basicsr_ext.processes import end_with_parent

# Ranks wait for one another on the CPU where one may be validating or saving.
_PATIENCE = timedelta(days=1)
_MEETING = timedelta(minutes=30)
_NAMING = 60  # seconds that SLURM has to name its nodes
_GRACE = 30  # seconds that a rank has to save when torchrun is gone; torchrun itself gives as many
_LAUNCH = 'torchrun --nproc_per_node {} -m basicsr_ext train -opt FILE --launcher pytorch'


def resolve_num_gpu(value: Any, launcher: str | None) -> int:
    """Returns how many GPUs this run uses, from the option ``num_gpu``.

    ``auto`` means every GPU under a launcher, one GPU without, and the CPU on a machine that has none.

    Raises:
        UserError: The value is no count, GPUs are asked for where CUDA is missing, or several without a launcher.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if value == 'auto':
        if available > 1 and launcher == 'none':
            print(
                f'num_gpu: auto uses one of {available} GPUs; for all of them: {_LAUNCH.format(available)}', flush=True
            )
            return 1
        return available
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f'num_gpu: expected auto, or a number from 0 (the CPU) on, found {value!r}.')
    if value > 0 and available == 0:
        raise UserError(
            f'num_gpu: {value} asks for a GPU, and torch finds none on this machine. '
            'Train on the CPU with num_gpu: 0 (on the command line: --force_yml num_gpu=0), or with num_gpu: auto.'
        )
    if value > 1 and launcher == 'none':
        raise UserError(f'num_gpu: {value} needs one process a GPU. Start it with: {_LAUNCH.format(value)}')
    return value


def start_ranks(launcher: str, num_gpu: int, port: int | None = None) -> None:
    """Joins the process group of a launcher; NCCL on GPUs, gloo on the CPU.

    Upstream: ``basicsr/utils/dist_util.py``, which knows NCCL only, divides by the number of GPUs, and makes loader workers
    start by spawning, so that they import everything again in every epoch.

    Args:
        launcher: ``pytorch`` (torchrun) or ``slurm``.
        num_gpu: 0 chooses the CPU.
        port: Of the first rank, for SLURM; default ``MASTER_PORT`` or 29500.

    Raises:
        UserError: The environment lacks what the launcher should have set, or a rank has not come.
    """
    if launcher == 'slurm':
        _read_slurm(port)
    missing = [name for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT') if name not in os.environ]
    if missing:
        raise UserError(
            f'--launcher {launcher}: expected {", ".join(missing)} in the environment. Start it with: {_LAUNCH.format(2)}'
        )
    if launcher == 'pytorch' and 'TORCHELASTIC_RUN_ID' in os.environ:
        # a torchrun that is gone already lets nobody join below
        end_with_parent(os.getppid(), _GRACE)
    if num_gpu > 0:
        local_rank, gpus = int(os.environ.get('LOCAL_RANK', os.environ['RANK'])), torch.cuda.device_count()
        if local_rank >= gpus:
            raise UserError(f'Rank {local_rank} of this machine has no GPU: {gpus} are there. Start {gpus} ranks.')
        torch.cuda.set_device(local_rank)
    store, rank, world_size = _meet()
    limit = {} if num_gpu > 0 else {'timeout': _PATIENCE}
    backend = 'nccl' if num_gpu > 0 else 'gloo'
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, **limit)


def _meet() -> tuple[distributed.Store, int, int]:
    """Waits until all ranks are there; returns what they exchange addresses through, this rank and how many there are.

    Raises:
        UserError: One has not come in time.
    """
    try:
        store, rank, world_size = next(distributed.rendezvous('env://', timeout=_MEETING))
        store.set(f'basicsr_ext/here/{rank}', '')
        store.wait([f'basicsr_ext/here/{other}' for other in range(world_size)], _MEETING)
    except distributed.DistError as error:
        minutes = _MEETING.total_seconds() / 60
        raise UserError(
            f'expected {os.environ["WORLD_SIZE"]} ranks to meet at {os.environ["MASTER_ADDR"]}:{os.environ["MASTER_PORT"]} '
            f'within {minutes:g} minutes, and one did not come (here: {str(error).splitlines()[0]}). See to it that all of '
            'them are started, with the same address and port, and that none has ended with an error of its own.'
        ) from error
    return store, rank, world_size


def is_lost_rank(error: BaseException) -> bool:
    """Whether an error says that the connection to another rank is gone."""
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and 'gloo/' in str(error))


def leave_ranks() -> None:
    """Leaves the process group, if this process is in one.

    The group is kept: where a ``DistributedDataParallel`` view outlives it, as that of a model that is still held, the view
    would end the group's threads while it holds the interpreter's lock, which they may wait for.
    """
    global _cpu_group, _left_group
    _cpu_group = None
    if is_distributed():
        _left_group = distributed.group.WORLD
        distributed.destroy_process_group()


def end_process(status: int | None) -> NoReturn:
    """Ends this process with an exit status; one that was a rank ends without taking the interpreter down.

    Threads of gloo may still hold what is Python's: where they let go of it while the interpreter goes down, C++ ends the
    process by an abort, after all is done and saved.

    Args:
        status: As of ``sys.exit``.
    """
    if _left_group is None:
        sys.exit(status)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status or 0)


def _read_slurm(port: int | None) -> None:
    if 'SLURM_PROCID' not in os.environ:
        raise UserError('--launcher slurm: expected to run under srun (SLURM_PROCID is not set).')
    command = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
    try:
        named = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_NAMING)
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f'--launcher slurm: expected the names of the nodes from "{" ".join(command)}", which failed ({error}). Mend '
            'that, or start the ranks by torchrun, with --launcher pytorch.'
        ) from None
    os.environ.setdefault('MASTER_PORT', '29500')
    if port is not None:
        os.environ['MASTER_PORT'] = str(port)
    os.environ['MASTER_ADDR'] = named.stdout.split()[0]
    os.environ['WORLD_SIZE'] = os.environ['SLURM_NTASKS']
    os.environ['RANK'] = os.environ['SLURM_PROCID']
    os.environ['LOCAL_RANK'] = os.environ.get('SLURM_LOCALID', '0')


def is_distributed() -> bool:
    """Whether this process has joined others."""
    return distributed.is_available() and distributed.is_initialized()


def cpu_group() -> distributed.ProcessGroup | None:
    """Returns the group over which ranks exchange small things on the CPU, without waiting for GPUs; made once.

    Only gloo can do that; where NCCL is the default, a second group is made. ``None`` with one rank.
    """
    global _cpu_group
    if not is_distributed():
        return None
    if _cpu_group is None:
        _cpu_group = (
            distributed.group.WORLD
            if distributed.get_backend() == 'gloo'
            else distributed.new_group(backend='gloo', timeout=_PATIENCE)
        )
    return _cpu_group


_cpu_group: distributed.ProcessGroup | None = None
_left_group: distributed.ProcessGroup | None = None


def on_all_ranks(value: Any) -> list[Any]:
    """Gathers a value from every rank, in order of ranks; all of them must call it."""
    if not is_distributed():
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value, group=cpu_group())
    return values


def from_first_rank(value: Any) -> Any:
    """Returns the first rank's value on every rank; all of them must call it."""
    values = [value]
    if is_distributed():
        distributed.broadcast_object_list(values, group=cpu_group())
    return values[0]


def choose_seed(seed: int | None) -> int:
    """Returns the given seed, or one drawn by the first rank for all."""
    return from_first_rank(random.SystemRandom().randint(1, 10000) if seed is None else seed)


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
