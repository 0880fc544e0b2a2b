"""``torchvision.transforms.functional_tensor``, which torchvision 0.17 removed.

Upstream: ``basicsr/data/degradations.py`` line 8 imports ``rgb_to_grayscale`` from it. Delete this file when BasicSR imports
the function from ``torchvision.transforms.functional``.
"""

from __future__ import annotations

from collections.abc import Callable

from basicsr_ext.compat.former_names import offer


def apply() -> None:
    """Offers ``rgb_to_grayscale`` under its old module name where that module is gone."""
    offer('torchvision.transforms.functional_tensor', {'rgb_to_grayscale': _rgb_to_grayscale})


def _rgb_to_grayscale() -> Callable:
    from torchvision.transforms.functional import rgb_to_grayscale

    return rgb_to_grayscale
