"""``torchvision.transforms.functional_tensor``, which torchvision 0.17 removed.

Upstream: ``basicsr/data/degradations.py`` line 8 imports ``rgb_to_grayscale`` from it. Delete this file when BasicSR imports
the function from ``torchvision.transforms.functional``.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

NAME = 'torchvision.transforms.functional_tensor'


def apply() -> None:
    """Offers ``rgb_to_grayscale`` under its old module name where that module is gone."""
    if NAME in sys.modules:
        return
    import torchvision.transforms

    if importlib.util.find_spec(NAME) is not None:
        return
    from torchvision.transforms.functional import rgb_to_grayscale

    module = ModuleType(NAME, 'The part of this former torchvision module that BasicSR uses.')
    module.rgb_to_grayscale = rgb_to_grayscale
    sys.modules[NAME] = module
    torchvision.transforms.functional_tensor = module
