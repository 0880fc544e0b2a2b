"""What names a training sample, and the random numbers that belong to it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.random.bit_generator import ISeedSequence

from basicsr_ext.data.philox import philox4x64, unit_doubles

_WORD = 2**64 - 1
# Positions whose numbers are made together: enough for NumPy to be busy with numbers, and made in a millisecond.
_TOGETHER = 1024


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


def iterations_per_epoch(length: int, ratio: float, batch: int) -> int:
    """Returns the whole batches of an epoch.

    Args:
        length: Number of indices of the dataset.
        ratio: How often an epoch passes over them (``dataset_enlarge_ratio``).
        batch: Samples of an iteration, of all ranks together.
    """
    return int(length * ratio) // batch


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


def random_numbers(indices: Sequence[SampleId | int]) -> np.ndarray:
    """Returns eight numbers in [0, 1) of each sample: for the image, five for crop and flips, two that subclasses may use."""
    if set(map(type, indices)) == {SampleId}:
        return sample_numbers(indices)
    # BasicSR's own samplers give bare indices, and seed this generator in each worker.
    return np.array([sample_generator(random.getrandbits(63), 0, 0).random(8) for _ in indices])


def sample_numbers(samples: Sequence[SampleId]) -> np.ndarray:
    """Returns the first eight numbers that :func:`sample_generator` gives for each of N samples, much faster.

    Args:
        samples: Of any runs and epochs; it is fast where those are the same and positions are near.

    Returns:
        Numbers in [0, 1), of shape (N, 8).
    """
    made_together = {(sample.seed, sample.epoch, sample.position // _TOGETHER) for sample in samples}
    if len(made_together) > 1:
        return np.concatenate([sample_numbers([sample]) for sample in samples])
    return _numbers_of(*made_together.pop())[[sample.position % _TOGETHER for sample in samples]]


@lru_cache(maxsize=4)
def _numbers_of(seed: int, epoch: int, together: int) -> np.ndarray:
    counters = np.zeros((4, 2, _TOGETHER), np.uint64)
    counters[0] = [[1], [2]]  # NumPy counts before it makes the next four numbers
    counters[3] = np.arange(_TOGETHER, dtype=np.uint64) + np.uint64(together * _TOGETHER & _WORD)
    words = philox4x64((int(seed), int(epoch)), counters)
    return unit_doubles(words.transpose(2, 1, 0).reshape(_TOGETHER, 8))


class _Key(ISeedSequence):
    """Philox's key, word for word.

    ``Philox(key=...)`` gives the same numbers, but asks the system for entropy and drops it; that costs more than
    everything else here.
    """

    def __init__(self, *words: int) -> None:
        self.words = np.array([int(word) & _WORD for word in words], np.uint64)

    def generate_state(self, n_words: int, dtype: Any = np.uint64) -> np.ndarray:
        return self.words
