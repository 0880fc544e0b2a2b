"""What names a training sample, and the random numbers that belong to it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence

_WORD = 2**64 - 1


class SampleId(NamedTuple):
    """What a sampler hands to a dataset instead of a bare index.

    Attributes:
        index: Index into the dataset, in [0, len).
        epoch: Epoch, counted from 0.
        position: Place in the epoch's sequence of samples before it is split over ranks, counted from 0.
        iteration: Training iteration in which the sample is used, counted from 1; 0 where it is not known.
        seed: Seed of the run.
    """

    index: int
    epoch: int
    position: int
    iteration: int
    seed: int


def sample_generator(seed: int, epoch: int, position: int) -> np.random.Generator:
    """Gives the random numbers of one sample.

    They depend on the arguments only: not on the worker that asks, the number of ranks, or what was read before.
    Samples of an epoch never share numbers, since Philox counts: seed and epoch are its key, position is the highest
    word of its counter, and 2^192 blocks of numbers lie between two positions.

    Args:
        seed: Seed of the run; any integer, taken modulo 2^64.
        epoch: Epoch, counted from 0.
        position: Global position in the epoch, counted from 0.

    Returns:
        A generator at the start of the sample's own sequence.
    """
    counter = np.array([0, 0, 0, int(position) & _WORD], np.uint64)
    return np.random.Generator(np.random.Philox(_Key(seed, epoch), counter=counter))


class _Key(ISeedSequence):
    """Philox's key, word for word.

    ``Philox(key=...)`` gives the same numbers, but asks the system for entropy and drops it; that costs more than
    everything else here.
    """

    def __init__(self, *words: int) -> None:
        self.words = np.array([int(word) & _WORD for word in words], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        return self.words
