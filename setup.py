"""Packs option files and dataset recipes, which lie at the top of the repository, into the wheel; the rest: pyproject.toml."""

from setuptools import find_packages, setup

SHIPPED = {'options': '*.yml', 'datasets_prep': '*.sh'}

setup(
    packages=[
        *find_packages(include=['basicsr_ext', 'basicsr_ext.*']),
        *(f'basicsr_ext.shipped.{name}' for name in SHIPPED),
    ],
    package_dir={f'basicsr_ext.shipped.{name}': name for name in SHIPPED},
    package_data={f'basicsr_ext.shipped.{name}': [pattern] for name, pattern in SHIPPED.items()},
)
