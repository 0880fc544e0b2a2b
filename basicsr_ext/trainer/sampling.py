"""The order of training samples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from basicsr_ext.data.sample_id import SampleId


class TrainSampler(Sampler):
    """Hands out a shuffled epoch as :class:`SampleId`, split over ranks.

    The order depends on seed and epoch alone. Position ``p`` of an epoch goes to rank ``p % world_size``, so the batches of
    all ranks together hold the same samples whatever the number of ranks.

    Args:
        dataset_length: Number of indices of the dataset.
        batch_size: Samples a rank draws for one iteration.
        world_size: Number of ranks.
        rank: This rank.
        ratio: How often an epoch passes over the dataset.
        seed: Of the run.
        start_iteration: Iterations already done: their samples are passed over.
        keyed: Hand out :class:`SampleId`; False gives plain indices, for datasets that know nothing else.
    """

    def __init__(
        self,
        dataset_length: int,
        batch_size: int,
        world_size: int = 1,
        rank: int = 0,
        ratio: int = 1,
        seed: int = 0,
        start_iteration: int = 0,
        keyed: bool = True,
    ):
        self.dataset_length = dataset_length
        self.batch_size = batch_size
        self.world_size = world_size
        self.rank = rank
        self.seed = seed
        self.start_iteration = start_iteration
        self.keyed = keyed
        self.epoch = 0
        self.samples_per_rank = math.ceil(dataset_length * ratio / world_size)

    @property
    def iterations_per_epoch(self) -> int:
        """Full batches in an epoch; the loader drops an incomplete last one."""
        return self.samples_per_rank // self.batch_size

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration over the sampler gives; counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleId | int]:
        # torch's CPU generator keeps only 32 bits of a seed; NumPy's takes both numbers whole.
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.samples_per_rank * self.world_size)
        global_batch = self.batch_size * self.world_size
        first_iteration = self.epoch * self.iterations_per_epoch
        done = max(0, self.start_iteration - first_iteration) * global_batch
        for position in range(done + self.rank, len(order), self.world_size):
            index = int(order[position]) % self.dataset_length
            iteration = first_iteration + position // global_batch + 1
            yield SampleId(index, self.epoch, position, iteration, self.seed) if self.keyed else index

    def __len__(self) -> int:
        first_iteration = self.epoch * self.iterations_per_epoch
        return max(0, self.samples_per_rank - max(0, self.start_iteration - first_iteration) * self.batch_size)
