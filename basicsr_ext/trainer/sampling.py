"""The order of training samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from basicsr_ext.data.sample_id import SampleId


class Position(NamedTuple):
    """How far a run has come.

    Attributes:
        iteration: Iterations done.
        epoch: The epoch that the next sample may be in, counted from 0.
        sample: Samples of that epoch that all ranks together have used.
    """

    iteration: int = 0
    epoch: int = 0
    sample: int = 0


class TrainSampler(Sampler):
    """Hands out shuffled epochs as :class:`SampleId`, split over ranks, from where a run was left.

    The order depends on seed and epoch alone. Position ``p`` of an epoch goes to rank ``p % world_size``, so the batches of
    all ranks together hold the same samples whatever the number of ranks. Only whole batches are handed out.

    Args:
        dataset_length: Number of indices of the dataset.
        batch_size: Samples a rank draws for one iteration.
        world_size: Number of ranks.
        rank: This rank.
        ratio: How often an epoch passes over the dataset.
        seed: Of the run.
        start: Where to go on.
    """

    def __init__(
        self,
        dataset_length: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        ratio: float = 1,
        seed: int = 0,
        start: Position = Position(),
    ):
        self.dataset_length = dataset_length
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.seed = seed
        self.start = start
        self.epoch = start.epoch
        self.samples_per_epoch = int(dataset_length * ratio)
        self.global_batch = batch_size * world_size

    @property
    def iterations_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.samples_per_epoch // self.global_batch

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration over the sampler gives; counted from 0."""
        self.epoch = epoch

    def position_after(self, iteration: int) -> Position:
        """Returns how far the run has come when an iteration is done."""
        further = iteration - self.start.iteration
        in_first = self._iterations_in(self.start.epoch)
        if further <= in_first:
            return Position(iteration, self.start.epoch, self.start.sample + further * self.global_batch)
        epochs, done = divmod(further - in_first - 1, self.iterations_per_epoch)
        return Position(iteration, self.start.epoch + 1 + epochs, (done + 1) * self.global_batch)

    def _first_sample(self, epoch: int) -> int:
        return self.start.sample if epoch == self.start.epoch else 0

    def _iterations_in(self, epoch: int) -> int:
        return max(0, self.samples_per_epoch - self._first_sample(epoch)) // self.global_batch

    def _iterations_before(self, epoch: int) -> int:
        if epoch == self.start.epoch:
            return self.start.iteration
        whole = epoch - self.start.epoch - 1
        return self.start.iteration + self._iterations_in(self.start.epoch) + whole * self.iterations_per_epoch

    def __iter__(self) -> Iterator[SampleId]:
        # torch's CPU generator keeps only 32 bits of a seed; NumPy's takes both numbers whole.
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.samples_per_epoch)
        first, iteration = self._first_sample(self.epoch), self._iterations_before(self.epoch)
        end = first + self._iterations_in(self.epoch) * self.global_batch
        for position in range(first + self.rank, end, self.world_size):
            index = int(order[position]) % self.dataset_length
            done = (position - first) // self.global_batch
            yield SampleId(index, self.epoch, position, iteration + done + 1, self.seed)

    def __len__(self) -> int:
        return self._iterations_in(self.epoch) * self.batch_size
