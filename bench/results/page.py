"""Makes tables and pictures of docs/results from the JSON of the experiments.

    python bench/results/page.py [--json bench/results/json] [--docs docs/results]

Writes ``<experiment>.png``, and, into ``README.md`` between two comments that mark the place, the tables: each
comparison that was planned, with its interval and verdict (``basicsr_ext.report.paired``), the scores of every arm, and
the way there. What stands outside of the comments is left alone. Comparisons are over all test images but Set5's, of
the seeds that both arms have.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import numpy as np
from matplotlib.figure import Figure
from study import FURTHER_SET, MARKS

from basicsr_ext.errors import UserError
from basicsr_ext.report.curves import Curve
from basicsr_ext.report.paired import Comparison, compare
from basicsr_ext.report.pictures import draw_bands
from basicsr_ext.report.tables import markdown_table

BEGIN, END = '<!-- made by bench/results/page.py: begin -->', '<!-- made by bench/results/page.py: end -->'
RISE = (0.3, 0.6, 0.9)  # parts of the control's rise above bicubic enlargement
PLANNED: dict[str, list[tuple[str, str]]] = {  # arm, and what it is compared with
    'eco': [
        *((f'batch 4, {arm}', 'batch 4, vanilla') for arm in ('kd', 'noise_free', 'eco', 'vanilla twice as long')),
        ('batch 4, eco', 'batch 4, kd'),
        *((f'batch 4, {arm}', 'batch 4, vanilla twice as long') for arm in ('kd', 'eco')),
        *((f'batch 16, {arm}', 'batch 16, vanilla') for arm in ('kd', 'eco')),
        ('batch 16, eco', 'batch 16, kd'),
    ],
    'pspl': [
        *((arm, 'plain') for arm in ('PSPL', 'PSPL, slow', 'plain, late', 'no fading')),
        ('PSPL, slow', 'plain, late'),
        ('PSPL', 'no fading'),
    ],
    'ail': [
        ('ones', 'plain'),
        ('AIL', 'ones'),
        ('AIL', 'plain'),
        ('L1', 'ones'),
        ('AIL', 'L1'),
        ('AIL', 'L1 twice as long'),
    ],
    'published': [
        *((f'x{scale}, after AIL', f'x{scale}, before AIL') for scale in (2, 3, 4)),
        *((f'x{scale}, after AIL', f'x{scale}, teacher') for scale in (2, 3, 4)),
    ],
}
DRAWN: dict[str, list[tuple[str, tuple[str, ...]]]] = {  # panels: control, and the arms beside it
    'eco': [
        ('batch 4, vanilla', ('batch 4, kd', 'batch 4, noise_free', 'batch 4, eco')),
        ('batch 16, vanilla', ('batch 16, kd', 'batch 16, eco')),
    ],
    'pspl': [('plain', ('PSPL', 'PSPL, slow', 'plain, late', 'no fading'))],
    'ail': [('plain', ('ones', 'AIL', 'L1'))],
}
Runs = dict[str, dict[int, dict[str, Any]]]  # arm -> seed -> what its JSON says


class Pair(NamedTuple):
    """Runs of two arms, of the seeds that both have."""

    new: list[dict[str, Any]]
    control: list[dict[str, Any]]


def main(arguments: list[str] | None = None) -> int:
    """Writes tables and pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    here = Path(__file__).resolve().parent
    parser.add_argument(
        '--json', type=Path, default=here / 'json', metavar='FOLDER', help='with a folder an experiment'
    )
    parser.add_argument(
        '--docs', type=Path, default=here.parents[1] / 'docs/results', metavar='FOLDER', help='of the page'
    )
    args = parser.parse_args(arguments)
    try:
        sections = []
        args.docs.mkdir(parents=True, exist_ok=True)
        for name in PLANNED:
            if runs := read_runs(args.json / name):
                sections.append(section(name, runs))
                if name in DRAWN:
                    draw(name, runs, args.docs / f'{name}.png')
        if not sections:
            raise UserError(f'{args.json}: expected folders with JSON, such as eco, found none.')
        if (alarms := args.json / 'false_alarms.json').exists():
            sections.append(false_alarms(json.loads(alarms.read_text(encoding='utf-8'))))
        replace_tables(args.docs / 'README.md', '\n\n'.join(sections))
    except UserError as error:
        print(f'page: error: {error}', file=sys.stderr)
        return 2
    return 0


def read_runs(folder: Path) -> Runs:
    """Reads the JSON of an experiment.

    Raises:
        UserError: Runs were made on different images or devices, or with different versions.
    """
    runs: Runs = {}
    circumstances: dict[str, str] = {}
    for file in sorted(folder.glob('*.json')):
        if file.name == 'images.json':
            continue
        content = json.loads(file.read_text(encoding='utf-8'))
        runs.setdefault(content['arm'], {})[content['seed']] = content
        key = json.dumps([content[name] for name in ('images', 'device', 'versions')])
        circumstances.setdefault(key, file.name)
    if len(circumstances) > 1:
        files = ' and '.join(list(circumstances.values())[:2])
        raise UserError(f'{folder}: {files} were made on different images or devices, or with different versions.')
    return runs


def pair_of(runs: Runs, new: str, control: str) -> Pair | None:
    """The runs of two arms; ``None`` where they have no seed in common."""
    seeds = sorted(runs.get(new, {}).keys() & runs.get(control, {}).keys())
    return Pair([runs[new][seed] for seed in seeds], [runs[control][seed] for seed in seeds]) if seeds else None


def scores_of(runs: list[dict[str, Any]], metric: str) -> np.ndarray:
    """Scores of the last weights, (seeds, images), on all sets but Set5."""
    return np.array(
        [
            [
                image[metric]
                for name, images in run['scores'].items()
                if name != FURTHER_SET
                for image in images.values()
            ]
            for run in runs
        ]
    )


def marks_of(runs: list[dict[str, Any]], number: int) -> np.ndarray:
    """PSNR at one of the marks, (seeds, images)."""
    found = []
    for run in runs:
        sets = list(run['marks'].values())[number]
        found.append([value for name, values in sets.items() if name != FURTHER_SET for value in values])
    return np.array(found)


# ---- tables ----------------------------------------------------------------------------------------------------------


def section(name: str, runs: Runs) -> str:
    """The tables of an experiment."""
    first = next(iter(next(iter(runs.values())).values()))
    counts = {of_set: len(images) for of_set, images in first['scores'].items()}
    tested = ', '.join(f'{of_set} {count}' for of_set, count in counts.items())
    versions = ', '.join(f'{package} {number}' for package, number in first['versions'].items())
    parts = [f'### {name}', f'Test images: {tested}. {first["device"]}; {versions}.']
    parts.append(markdown_table(comparison_rows(name, runs)))
    parts.append(markdown_table(score_rows(runs)))
    if name in DRAWN:
        parts += [markdown_table(way_rows(name, runs)), f'![{name}: PSNR over training, bands over seeds]({name}.png)']
    return '\n\n'.join(parts)


def false_alarms(content: dict[str, Any]) -> str:
    """How often the verdict sees a difference where there is none, as ``false_alarms.py`` counted it."""
    lines = content['false_alarms']
    rows = [['seeds x images, what varies most', *lines[0]['shares']]]
    for line in lines:
        shares = (f'{100 * share:.1f}%' for share in line['shares'].values())
        rows.append([f'{line["seeds"]} x {line["images"]}, {line["spread"]}', *shares])
    return f'### False alarms\n\nOf {content["draws"]} draws without a difference each.\n\n{markdown_table(rows)}'


def comparison_rows(name: str, runs: Runs) -> list[list[str]]:
    """Each planned comparison whose runs are there."""
    rows = [['PSNR, dB', 'seeds x images', 'difference', '95%', 'each seed', 'images better', 'verdict', 'SSIM']]
    for new, control in PLANNED[name]:
        if (pair := pair_of(runs, new, control)) is None:
            continue
        psnr, ssim = (compare(*(scores_of(side, metric) for side in pair)) for metric in ('psnr', 'ssim'))
        rows.append(
            [
                f'{new} - {control}',
                f'{len(pair.new)} x {psnr.images}',
                signed(psnr.difference),
                f'{signed(psnr.low)} to {signed(psnr.high)}',
                ', '.join(map(signed, psnr.of_seeds)),
                f'{100 * psnr.share_better:.0f}%',
                words(psnr),
                f'{signed(ssim.difference, 4)}, {ssim.verdict}',
            ]
        )
    return rows


def words(result: Comparison) -> str:
    """The verdict, with the bound on what was not shown."""
    if result.verdict != 'no difference shown':
        return result.verdict
    return f'no difference shown; within {max(abs(result.low), abs(result.high)):.3f}'


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign."""
    return f'{value:+.{digits}f}'


def score_rows(runs: Runs) -> list[list[str]]:
    """Mean scores of each arm on each set, and the time of a run."""
    sets = list(next(iter(next(iter(runs.values())).values()))['scores'])
    rows = [['PSNR / SSIM', 'seeds', *sets, 'seconds of a run']]
    for arm, of_seeds in sorted(runs.items()):
        cells = []
        for name in sets:
            images = [image for run in of_seeds.values() for image in run['scores'][name].values()]
            psnr, ssim = (float(np.mean([image[metric] for image in images])) for metric in ('psnr', 'ssim'))
            cells.append(f'{psnr:.3f} / {ssim:.4f}')
        seconds = [run['seconds'] for run in of_seeds.values() if run.get('seconds')]
        rows.append([arm, str(len(of_seeds)), *cells, f'{np.median(seconds):.0f}' if seconds else ''])
    return rows


def way_rows(name: str, runs: Runs) -> list[list[str]]:
    """How arms differ from their control on the way, how fast they rise, and how much validations scatter."""
    marks = [f'after {100 * part:.0f}%' for part in MARKS]
    rises = [f'{100 * part:.0f}% of the rise' for part in RISE]
    rows = [['difference from the control, dB', *marks, *rises, 'mean over training', 'spread']]
    for control, arms in DRAWN[name]:
        for arm in (control, *arms):
            if (pair := pair_of(runs, arm, control)) is None:
                continue
            differences = [
                signed(float((marks_of(pair.new, n) - marks_of(pair.control, n)).mean())) if arm != control
                else f'{marks_of(pair.new, n).mean():.2f}'
                for n in range(len(MARKS))
            ]  # fmt: skip
            reached = [
                over_seeds(pair, lambda run, of_control, part=part: iteration_of_rise(run, of_control, part), '{:.0f}')
                for part in RISE
            ]
            area = over_seeds(pair, lambda run, _: float(np.mean(run['curve']['psnr'])), '{:.2f}')
            spread = over_seeds(pair, lambda run, _: scatter(run['curve']['psnr']), '{:.3f}')
            rows.append([arm, *differences, *reached, area, spread])
    return rows


def over_seeds(pair: Pair, measure: Callable[[dict[str, Any], dict[str, Any]], float | None], form: str) -> str:
    """The mean over seeds of what is measured of a run and its control; empty where a seed has no value."""
    values = [measure(run, control) for run, control in zip(*pair, strict=True)]
    return '' if None in values else form.format(np.mean(values))


def iteration_of_rise(run: dict[str, Any], control: dict[str, Any], part: float) -> float | None:
    """First iteration at which a curve reaches a part of its control's rise above bicubic enlargement, interpolated."""
    bicubic, end = control['curve']['bicubic'], control['curve']['psnr'][-1]
    level = bicubic + part * (end - bicubic)
    iterations, values = run['curve']['iterations'], run['curve']['psnr']
    for number, value in enumerate(values):
        if value >= level:
            if number == 0:
                return float(iterations[0])
            before = values[number - 1]
            share = (level - before) / (value - before)
            return iterations[number - 1] + share * (iterations[number] - iterations[number - 1])
    return None


def scatter(values: list[float]) -> float:
    """Spread between validations: median distance of one from its neighbours' mean, in the middle half of a training."""
    middle = np.array(values[len(values) // 4 : 3 * len(values) // 4])
    return float(np.median(np.abs(middle[1:-1] - (middle[:-2] + middle[2:]) / 2))) if len(middle) > 2 else 0.0


def replace_tables(page: Path, tables: str) -> None:
    """Puts the tables between the two comments; a page without them gets both at its end."""
    text = page.read_text(encoding='utf-8') if page.exists() else '# Results\n'
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(
        f'{before.rstrip()}\n\n{BEGIN}\n\n{tables}\n\n{END}\n{after.rstrip()}'.rstrip() + '\n', encoding='utf-8'
    )


# ---- pictures --------------------------------------------------------------------------------------------------------


def draw(name: str, runs: Runs, file: Path) -> None:
    """Draws PSNR over training, and below it the difference from the control, seed by seed the same patches."""
    panels = [(control, arms) for control, arms in DRAWN[name] if control in runs]
    if not panels:
        return
    figure = Figure(figsize=(5.5 * len(panels), 6.5), layout='constrained')
    for column, (control, arms) in zip(figure.subplots(2, len(panels), squeeze=False).T, panels, strict=True):
        pairs = {arm: pair for arm in arms if (pair := pair_of(runs, arm, control))}
        of_control = list(runs[control].values())
        of_set = of_control[0]['curve']['set']
        curves = {control: [curve_of(run) for run in of_control]}
        curves |= {arm: [curve_of(run) for run in pair.new] for arm, pair in pairs.items()}
        draw_bands(column[0], curves, f'PSNR on {of_set} (dB)')
        differences = {control: [difference_of(run, run) for run in of_control]}
        differences |= {arm: [difference_of(*both) for both in zip(*pair, strict=True)] for arm, pair in pairs.items()}
        draw_bands(column[1], differences, f'difference from {control} (dB)')
    figure.savefig(file, dpi=90)


def curve_of(run: dict[str, Any]) -> Curve:
    """PSNR over training."""
    return Curve(tuple(run['curve']['iterations']), tuple(run['curve']['psnr']))


def difference_of(run: dict[str, Any], control: dict[str, Any]) -> Curve:
    """Difference of two runs over training."""
    values = np.subtract(run['curve']['psnr'], control['curve']['psnr'])
    return Curve(tuple(run['curve']['iterations']), tuple(values.tolist()))


if __name__ == '__main__':
    sys.exit(main())
