"""``scipy.ndimage.filters``, which SciPy 2 removes (and SciPy 1 warns about).

Upstream: ``basicsr/metrics/niqe.py`` line 5 and ``basicsr/data/data_util.py`` lines 275 and 280. Delete this file when BasicSR
imports from ``scipy.ndimage``.
"""

from __future__ import annotations

from collections.abc import Callable

from basicsr_ext.compat.former_names import offer


def apply() -> None:
    """Offers the two filters that BasicSR uses under their old module name where that module is gone."""
    offer('scipy.ndimage.filters', {'convolve': _convolve, 'gaussian_filter': _gaussian_filter})


def _convolve() -> Callable:
    from scipy.ndimage import convolve

    return convolve


def _gaussian_filter() -> Callable:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter
