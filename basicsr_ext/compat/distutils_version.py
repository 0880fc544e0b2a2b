"""``distutils``, which left the standard library in Python 3.12.

Upstream: ``basicsr/archs/arch_util.py`` line 6 compares torchvision's version with ``LooseVersion``. Setuptools brings a copy
where it is installed. Delete this file when BasicSR compares versions with ``packaging``.
"""

from __future__ import annotations

from basicsr_ext.compat.former_names import offer


def apply() -> None:
    """Offers ``distutils.version.LooseVersion`` where Python and setuptools have none."""
    offer('distutils.version', {'LooseVersion': _loose_version}, gone='distutils')


def _loose_version() -> type:
    from packaging.version import Version

    class LooseVersion(Version):
        """A version that compares as the former LooseVersion does for ordinary release numbers."""

    return LooseVersion
