"""How long the command takes to its first word: processor time and wall time of ``basicsr check``, in alternating processes.

    python bench/start.py [--against CHECKOUT] [--repeats 5] [--imports]

Figures, each the median of the repeats:

- ``syntax``, ``name``, ``key``: until it ends on an option file that is no YAML, that misspells a network, or an option of
  ``train.eco``;
- ``first_line``: until it has written anything, on a file without mistakes of that kind;
- ``files``: until it ends on that file, whose images do not exist: all checks but those that open them;
- ``imports``: Python with torch and BasicSR alone, to compare with.

With ``--against`` another checkout of this package is measured in turn. With ``--imports`` the modules are printed that take
most of a whole check, and of one that ends at a misspelt name (``python -X importtime``), with what they import.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = ROOT / 'options/train_ECO_EDSR_x2.yml'
SHOWN = 15  # modules
IMPORTS = 'from basicsr_ext import compat; compat.apply(); import basicsr'


class Times(NamedTuple):
    """Of one process, in seconds."""

    first: float
    wall: float
    processor: float


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--against', type=Path, metavar='CHECKOUT', help='another checkout, measured in turn')
    parser.add_argument('--repeats', type=int, default=5, metavar='N')
    parser.add_argument('--imports', action='store_true', help='print which modules take the time')
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        files = write_files(Path(folder))
        if args.imports:
            for name in ('files', 'name'):
                print_imports(files[name])
            return
        checkouts = {'here': ROOT, **({'there': args.against.resolve()} if args.against else {})}
        times: dict[tuple[str, str], list[Times]] = {}
        for _ in range(args.repeats):
            for name, command in commands(files).items():
                for where, checkout in checkouts.items():
                    times.setdefault((name, where), []).append(timed(command, checkout, Path(folder)))
    for (name, where), measured in times.items():
        first, wall, processor = (median(column) for column in zip(*measured, strict=True))
        line = f'{name:8} {where:6} processor {processor:6.2f} s   wall {wall:6.2f} s'
        print(f'{line}   first line after {first:6.2f} s' if name == 'files' else line)


def write_files(folder: Path) -> dict[str, Path]:
    """Writes option files with one mistake each, and one whose images are missing; returns them by the figure's name."""
    text = f'_base_: {OPTIONS}\nname: start\nnum_gpu: 0\n'
    texts = {
        'syntax': text + '  x: 1\n',
        'name': text + 'network_g: {type: EDSRR}\n',
        'key': text + 'train: {eco: {objectiv: eco}}\n',
        'files': text,
    }
    for name, content in texts.items():
        (folder / f'{name}.yml').write_text(content)
    return {name: folder / f'{name}.yml' for name in texts}


def commands(files: dict[str, Path]) -> dict[str, list[str]]:
    """Arguments of Python for each figure."""
    return {
        **{name: ['-m', 'basicsr_ext', 'check', '-opt', str(file)] for name, file in files.items()},
        'imports': ['-c', IMPORTS],
    }


def timed(command: list[str], checkout: Path, folder: Path) -> Times:
    """Runs Python with a checkout, and measures it."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(checkout), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    process.stdout.readline()
    first = time.perf_counter() - start
    process.stdout.read()
    process.wait()
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Times(first, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def print_imports(file: Path) -> None:
    """Prints the modules that a check imports and that take longest, with what they import."""
    command = [sys.executable, '-X', 'importtime', '-m', 'basicsr_ext', 'check', '-opt', str(file)]
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    text = subprocess.run(command, cwd=file.parent, env=environment, capture_output=True, text=True).stderr
    lines = re.findall(r'^import time: +(\d+) \| +(\d+) \| ( *)(\S+)', text, re.M)
    lines.sort(key=lambda line: -int(line[1]))
    print(f'{file.stem}: {len(lines)} modules, {sum(int(own) for own, *_ in lines) / 1e6:.2f} s in all')
    for _, total, _, module in lines[:SHOWN]:
        print(f'  {int(total) / 1e6:6.2f} s  {module}')


if __name__ == '__main__':
    main()
