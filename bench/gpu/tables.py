"""Writes the GPU's tables of docs/benchmarks.md from results.jsonl.

    python bench/gpu/tables.py [results.jsonl ...] [--docs docs/benchmarks.md]

Several files are several runs, in the order of time: of a figure that stands in more than one, the last one that was measured
counts. What stands between the two marks in the page is replaced. A figure without a value is "not measured", with the reason.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BEGIN, END = '<!-- made by bench/gpu/tables.py -->', '<!-- end -->'
NETWORKS = ('EDSR-baseline_x2', 'RCAN_x4', 'SwinIR-light_x2')
VARIANTS = {
    'stock_fp32': 'BasicSR, true fp32',
    'stock': 'BasicSR, torch defaults',
    'fp32': 'fp32',
    'tf32': 'tf32',
    'bf16': 'bf16',
    'bf16_channels_last': 'bf16, channels_last',
    'fp32_graph': 'fp32, cuda_graph',
    'bf16_channels_last_graph': 'bf16, channels_last, cuda_graph',
    'bf16_channels_last_compile': 'bf16, channels_last, compile',
    'bf16_channels_last_compile_graph': 'bf16, channels_last, compile, cuda_graph',
}
PARTS = {
    'step': 'Methods, and the ratios that have goals',
    'feeding': 'Feeding',
    'centroids': 'Centroids',
}
Line = dict[str, Any]


def read(files: list[Path]) -> dict[str, Line]:
    """Figures by name, of real runs: the last of each that was measured."""
    lines = [json.loads(line) for file in files if file.exists() for line in file.read_text('utf-8').splitlines()]
    figures: dict[str, Line] = {}
    for line in lines:
        if not line['small'] and (line['value'] is not None or line['figure'] not in figures):
            figures[line['figure']] = line
    return figures


def number(line: Line | None) -> str:
    """A value with its unit, or why there is none."""
    if line is None or line['value'] is None:
        return 'not measured' + (f' ({line["reason"]})' if line else '')
    return f'{line["value"]:.4g} {line["unit"]}'.strip()


def verdict(line: Line) -> str:
    """The goal, and whether it was reached."""
    if not line['goal']:
        return ''
    if line['value'] is None:
        return line['goal']
    sign, goal = line['goal'].split()
    reached = line['value'] >= float(goal) if sign == '>=' else line['value'] <= float(goal)
    return line['goal'] if reached else f'{line["goal"]}: not reached'


def table(rows: list[list[str]]) -> str:
    head, *body = [f'| {" | ".join(row)} |' for row in rows]
    return '\n'.join([head, '|' + '---|' * len(rows[0]), *body])


def is_shown(line: Line, figures: dict[str, Line]) -> bool:
    """Leaves out what the table of steps says, and groups of figures of which some were measured after all."""
    name = line['figure']
    if name.startswith(('step_', 'peak_', 'profile_')) or ('_over_stock' in name and not line['goal']):
        return False
    return line['value'] is not None or not any(other != name and other.startswith(name) for other in figures)


def steps(figures: dict[str, Line]) -> str:
    """Images/s, memory and share of the card's peak of each network and variant."""
    rows = [['training step', *NETWORKS]]
    for variant, title in VARIANTS.items():
        cells = []
        for network in NETWORKS:
            line = figures.get(f'step_{network}_{variant}')
            cell = number(line)
            if line and line['value'] is not None:
                if line.get('peak_MB') and 'graph' not in variant:  # a graph's memory is in no figure of torch's
                    cell += f', {line["peak_MB"] / 1e3:.1f} GB'
                if 'share_of_bf16_peak' in line:
                    cell += f', {100 * line["share_of_bf16_peak"]:.1f}%'
            cells.append(cell)
        rows.append([title, *cells])
    return table(rows)


def text_of(figures: dict[str, Line]) -> str:
    """The whole block of the page."""
    if not figures:
        return 'GPU: not measured.'
    any_line = next(iter(figures.values()))
    blocks = [f'{any_line["device"]}, torch {any_line["torch"]}, {any_line["time"][:10]}. Made by `bench/gpu/run.sh`.']
    if 'tests_passed' in figures:
        failed = [name for name, line in figures.items() if line.get('outcome') == 'failed']
        blocks.append(
            f'Tests (`tests/gpu`): {figures["tests_passed"]["value"]:.0f} passed, {len(failed)} failed'
            + (f': {", ".join(f"`{name}`" for name in failed)}.' if failed else '.')
        )
    blocks.append(
        'Images/s, peak memory, and the share of the rate that the card reaches in products of 8192x8192 matrices in bf16'
        + (f' ({number(figures["peak_bf16"])})' if 'peak_bf16' in figures else '')
        + '. Batches of 16, LR patches of 48 (SwinIR: 64).'
    )
    blocks.append(steps(figures))
    for part, title in PARTS.items():
        shown = [f for f in figures.values() if f['part'] == part and is_shown(f, figures)]
        rows = [['figure', 'value', 'goal'], *([f'`{f["figure"]}`', number(f), verdict(f)] for f in shown)]
        blocks.append(f'**{title}**\n\n' + (table(rows) if shown else 'Not measured.'))
    return '\n\n'.join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('results', type=Path, nargs='*', default=sorted((ROOT / 'bench/gpu/results').glob('*.jsonl')))
    parser.add_argument('--docs', type=Path, default=ROOT / 'docs/benchmarks.md')
    args = parser.parse_args()
    page = args.docs.read_text('utf-8')
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        parser.error(f'{args.docs}: expected the marks {BEGIN} and {END}.')
    args.docs.write_text(f'{before}{BEGIN}\n\n{text_of(read(args.results))}\n\n{END}{after}', 'utf-8')


if __name__ == '__main__':
    main()
