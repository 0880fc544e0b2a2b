"""How often the paired comparison of two methods that do not differ says that they do.

    python bench/results/false_alarms.py [--draws 2000] [--json bench/results/json/false_alarms.json]

Draws differences of scores with mean 0: a part that a whole seed shares, one that an image has in every seed, and one
of its own for each seed and image. Two sizes, 3 seeds x 20 images and 5 x 134, each with the spread in the seeds, in
the images, in both, and in neither. Counts how often the interval of ``basicsr_ext.report.paired`` excludes 0 and how
often its verdict is "better" or "worse"; and the same of the plain percentile bootstrap, without and with the rule that
all seeds must agree.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np

from basicsr_ext.report.paired import compare, interval
from basicsr_ext.report.tables import align

SIZES = ((3, 20), (5, 134))  # seeds, images
SPREADS = {  # standard deviations: of seeds, of images, of one image with one seed
    'seeds': (1.0, 0.1, 1.0),
    'images': (0.1, 1.0, 1.0),
    'both': (1.0, 5.0, 1.0),
    'neither': (0.0, 0.0, 1.0),
}
COLUMNS = ('plain', 'plain, all seeds agree', 'widened', 'verdict')


def main(arguments: list[str] | None = None) -> int:
    """Counts, prints a table and writes the shares; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--draws', type=int, default=2000, metavar='N', help='of differences, for each line')
    parser.add_argument('--resamples', type=int, default=1000, metavar='N', help='of each bootstrap')
    parser.add_argument('--json', metavar='FILE', help='where the shares are written')
    args = parser.parse_args(arguments)
    lines = []
    for seeds, images in SIZES:
        for name, spread in SPREADS.items():
            shares = false_alarms(seeds, images, spread, args.draws, args.resamples)
            lines.append({'seeds': seeds, 'images': images, 'spread': name, 'shares': shares})
    cells = [['seeds x images, spread', *COLUMNS]]
    for line in lines:
        title = f'{line["seeds"]} x {line["images"]}, {line["spread"]}'
        cells.append([title, *(f'{100 * line["shares"][column]:.1f}%' for column in COLUMNS)])
    print(align(cells))
    if args.json:
        content = {'draws': args.draws, 'resamples': args.resamples, 'spreads': SPREADS, 'false_alarms': lines}
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        Path(args.json).write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    return 0


def false_alarms(
    seeds: int, images: int, spread: tuple[float, float, float], draws: int, resamples: int
) -> dict[str, float]:
    """Share of draws in which each rule sees a difference."""
    generator = np.random.default_rng(0)
    of_seed, of_image, own = spread
    alarms = np.zeros(len(COLUMNS))
    for draw in range(draws):
        differences = of_seed * generator.normal(size=(seeds, 1)) + of_image * generator.normal(size=(1, images))
        differences = differences + own * generator.normal(size=(seeds, images))
        low, high = interval(differences, widen=False, resamples=resamples, seed=draw)
        signs = np.sign(differences.mean(1))
        result = compare(differences, np.zeros_like(differences), resamples=resamples, seed=draw)
        plain = not low <= 0 <= high
        alarms += (
            plain,
            plain and abs(signs.sum()) == seeds,
            not result.low <= 0 <= result.high,
            result.verdict != 'no difference shown',
        )
    return dict(zip(COLUMNS, (alarms / draws).tolist(), strict=True))


if __name__ == '__main__':
    sys.exit(main())
