"""Prints constraints for pip: of every package that pyproject.toml requires, the lowest release it allows and pip can get.

    python .ci/lowest_versions.py [NAME==VERSION ...] > lowest.txt

Runs in the environment that is meant. Arguments are versions to print instead.
"""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement
from pip._vendor.packaging.version import Version


def main(arguments: list[str]) -> None:
    """Prints a line for each package."""
    pyproject = tomllib.loads((Path(__file__).parents[1] / 'pyproject.toml').read_text(encoding='utf-8'))
    project = pyproject['project']
    texts = [*pyproject['build-system']['requires'], *project['dependencies'], f'{project["name"]}[test]']
    for text in texts:
        requirement = Requirement(text)
        if requirement.name == project['name']:  # groups of this package, in which there may be others
            texts += [text for group in sorted(requirement.extras) for text in project['optional-dependencies'][group]]
    given = {Requirement(text).name.lower(): text for text in arguments}
    for requirement in map(Requirement, texts):
        if requirement.name != project['name'] and (requirement.marker is None or requirement.marker.evaluate()):
            print(given.get(requirement.name.lower()) or f'{requirement.name}=={lowest(requirement)}', flush=True)


def lowest(requirement: Requirement) -> Version:
    """The lowest release that a requirement allows, of those that pip can install into this Python."""
    command = [sys.executable, '-m', 'pip', 'index', 'versions', requirement.name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    line = next(line for line in output.splitlines() if line.startswith('Available versions:'))
    versions = map(Version, line.removeprefix('Available versions:').replace(' ', '').split(','))
    return min(version for version in versions if version in requirement.specifier)


if __name__ == '__main__':
    main(sys.argv[1:])
