"""BasicSR's registry of networks, also where nobody has called ``register()``.

A network that a spawned process unpickles brings its module in first: importing that has to be enough to make BasicSR
importable.
"""

from basicsr_ext import compat

compat.apply()

from basicsr.utils.registry import ARCH_REGISTRY  # noqa: E402

__all__ = ['ARCH_REGISTRY']
