"""``distutils``, which left the standard library in Python 3.12.

Upstream: ``basicsr/archs/arch_util.py`` line 6 compares torchvision's version with ``LooseVersion``. Setuptools brings a copy
where it is installed. Delete this file when BasicSR compares versions with ``packaging``.
"""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType


def apply() -> None:
    """Offers ``distutils.version.LooseVersion`` where no ``distutils`` can be found."""
    if 'distutils.version' in sys.modules or importlib.util.find_spec('distutils') is not None:
        return
    from packaging.version import Version

    class LooseVersion(Version):
        """A version that compares as the former LooseVersion does for ordinary release numbers."""

    package = ModuleType('distutils', 'The part of the former distutils that BasicSR uses.')
    version = ModuleType('distutils.version', package.__doc__)
    version.LooseVersion = LooseVersion
    package.version = version
    package.__path__ = []
    sys.modules['distutils'] = package
    sys.modules['distutils.version'] = version
