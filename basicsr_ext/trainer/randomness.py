"""Random number generators: their state, kept with a checkpoint, and numbers of its own for every sample."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from basicsr_ext.data.sample_id import SampleId, sample_generator


def generator_states() -> dict[str, Any]:
    """Returns the state of every global generator of this process, in plain values and tensors.

    Python's, NumPy's, torch's on the CPU, and on the current GPU where CUDA is in use.
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    states = {
        'python': random.getstate(),
        'numpy': (name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)),
        'torch': torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        states['cuda'] = torch.cuda.get_rng_state()
    return states


def restore_generator_states(states: dict[str, Any]) -> None:
    """Restores what :func:`generator_states` returned."""
    version, numbers, gauss = states['python']
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = states['numpy']
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states['torch'].cpu())
    if 'cuda' in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states['cuda'].cpu())


@contextmanager
def seeded(sample: SampleId) -> Iterator[None]:
    """Lets Python's, NumPy's and torch's global generators give a sample numbers of its own.

    What the generators would have given next is not touched: their states are put back.

    Args:
        sample: The numbers depend on its seed, epoch and position alone.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = sample_generator(sample.seed, sample.epoch, sample.position).integers(2**32, size=3).tolist()
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class KeyedDataset(Dataset):
    """A dataset that draws from global generators, with the numbers of each sample keyed by seed, epoch and position.

    So augmentation does not depend on workers and ranks, does not repeat each epoch, and goes on exactly after resuming.
    All attributes are the wrapped dataset's.

    Args:
        dataset: Takes plain indices.
    """

    takes_sample_id = True

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)

    def __reduce__(self) -> tuple:
        return _unpickle_keyed, (pickle.dumps(self.dataset),)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, sample: SampleId) -> Any:
        with seeded(sample):
            return self.dataset[sample.index]


def _unpickle_keyed(pickled: bytes) -> KeyedDataset:
    """Makes BasicSR importable before its dataset is unpickled: in a worker that is spawned nobody has done so."""
    from basicsr_ext.registration import register

    register()
    return KeyedDataset(pickle.loads(pickled))
