"""What BasicSR 1.4.2 needs on today's torch, torchvision, SciPy and Python; one module a breakage."""

from __future__ import annotations


def apply() -> None:
    """Mends every known breakage; harmless where nothing is broken, and when called again."""
    from basicsr_ext.compat import distutils_version, functional_tensor, scipy_filters, torchvision_operators

    torchvision_operators.apply()
    distutils_version.apply()
    functional_tensor.apply()
    scipy_filters.apply()
