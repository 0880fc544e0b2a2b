"""What BasicSR 1.4.2 needs on today's torch, torchvision, SciPy and Python; one module a breakage.

Each mend tries the real thing first, acts on the very failure that it is for, and otherwise does nothing.
"""

from __future__ import annotations

import importlib.util
import sys

from basicsr_ext.errors import UserError


def apply() -> None:
    """Mends every known breakage; harmless where nothing is broken, and when called again.

    Raises:
        UserError: BasicSR is not installed: there is nothing to mend.
    """
    if 'basicsr' not in sys.modules and importlib.util.find_spec('basicsr') is None:
        raise UserError(
            'BasicSR 1.4.2 is not installed. This builds and installs it: python -m basicsr_ext.install_basicsr'
        )
    from basicsr_ext.compat import distutils_version, functional_tensor, scipy_filters, torchvision_operators

    torchvision_operators.apply()
    distutils_version.apply()
    functional_tensor.apply()
    scipy_filters.apply()
