"""Draws docs/architecture.png: the floors of the package, and how many imports lead from each to those below.

    python docs/draw_architecture.py

Floors and imports are those that tests/test_architecture.py reads.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tests'))
from test_architecture import FLOORS, arrows, floor, modules

WIDTH, HEIGHT, GAP = 10.0, 0.62, 0.5
LEFT_OUT = ('', '__main__', 'protocols')  # the package itself, its other name, and what is not there yet


def main() -> None:
    sizes = Counter(name.partition('.')[0] for name in modules())
    between = Counter((floor(who), floor(what)) for who, what in arrows())
    figure = Figure(figsize=(10, 7), layout='constrained')
    axes = figure.subplots()
    for number, homes in enumerate(FLOORS):
        shown = [home for home in homes if home in sizes and home not in LEFT_OUT]
        y, width = -number * (HEIGHT + GAP), WIDTH / len(shown)
        for place, home in enumerate(shown):
            axes.add_patch(_box(place * width, y, width - 0.12))
            files = f'{sizes[home]} files' if sizes[home] > 1 else '1 file'
            axes.text(
                place * width + width / 2 - 0.06,
                y + HEIGHT / 2,
                f'{home}\n{files}',
                ha='center',
                va='center',
                fontsize=10,
            )
        down = {below: count for (above, below), count in sorted(between.items()) if above == number and below > number}
        if down:
            told = ', '.join(f'{count} to floor {len(FLOORS) - below}' for below, count in down.items())
            axes.text(
                0, y - GAP / 2, f'floor {len(FLOORS) - number}: imports {told}', va='center', fontsize=8.5, color='0.35'
            )
    axes.set(xlim=(-0.1, WIDTH), ylim=(-(len(FLOORS) - 1) * (HEIGHT + GAP) - 0.2, HEIGHT + 0.2))
    axes.set_axis_off()
    figure.savefig(ROOT / 'docs/architecture.png', dpi=100)


def _box(x: float, y: float, width: float):
    from matplotlib.patches import FancyBboxPatch

    return FancyBboxPatch(
        (x + 0.04, y), width - 0.08, HEIGHT, boxstyle='round,pad=0.02', facecolor='#e8f0fa', edgecolor='#4a6fa5'
    )


if __name__ == '__main__':
    main()
