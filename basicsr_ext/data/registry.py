"""BasicSR's registry of datasets, for processes in which nobody has called ``register()``.

A loader's worker that is spawned, not forked, meets a dataset first by unpickling it: importing the dataset's module
has to be enough to make BasicSR importable.
"""

from basicsr_ext import compat

compat.apply()

from basicsr.utils.registry import DATASET_REGISTRY  # noqa: E402

__all__ = ['DATASET_REGISTRY']
