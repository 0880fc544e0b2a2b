"""``scipy.ndimage.filters``, which SciPy 2 removes (and SciPy 1 warns about).

Upstream: ``basicsr/metrics/niqe.py`` line 5 and ``basicsr/data/data_util.py`` line 275. Delete this file when BasicSR imports
from ``scipy.ndimage``.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

NAME = 'scipy.ndimage.filters'


def apply() -> None:
    """Offers SciPy's filters under their old module name where that module is gone."""
    if NAME in sys.modules:
        return
    import scipy.ndimage

    if importlib.util.find_spec(NAME) is not None:
        return
    module = ModuleType(NAME, 'The filters of scipy.ndimage under their former module name.')
    module.__dict__.update({name: getattr(scipy.ndimage, name) for name in scipy.ndimage.__all__})
    sys.modules[NAME] = module
    scipy.ndimage.filters = module
