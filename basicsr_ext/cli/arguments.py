"""Arguments that commands of ``basicsr prepare`` have in common."""

from __future__ import annotations

import argparse


def number(text: str) -> int | float:
    """An integer, or what is none: those who take integers only say so in a sentence, as of other wrong values."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def add_paths(parser: argparse.ArgumentParser, input_help: str, output_help: str) -> None:
    """Adds one input and one output."""
    parser.add_argument('-i', '--input', required=True, metavar='PATH', help=input_help)
    parser.add_argument('-o', '--output', required=True, metavar='PATH', help=f'{output_help}; must not exist')


def add_compress_level(parser: argparse.ArgumentParser, of_what: str, default: int = 1) -> None:
    """Adds the compression of PNGs."""
    parser.add_argument(
        '--compress_level',
        '--compress-level',
        type=int,
        choices=range(10),
        default=default,
        metavar='0-9',
        help=f'PNG compression {of_what} (default: {default})',
    )


def add_num_workers(parser: argparse.ArgumentParser, what: str = 'processes') -> None:
    """Adds the number of processes."""
    parser.add_argument(
        '--num_workers', '--num-workers', type=number, metavar='N', help=f'{what} (default: one for each processor)'
    )


def add_network_files(group: argparse._ArgumentGroup, weights_help: str) -> None:
    """Adds the file of a trained network."""
    group.add_argument('--weights', required=True, metavar='FILE', help=weights_help)
    group.add_argument(
        '--param_key',
        '--param-key',
        metavar='KEY',
        help='entry of the file of weights (default: params_ema, params, or the file itself)',
    )


def add_forward_arguments(parser: argparse.ArgumentParser, title: str) -> None:
    """Adds how a network runs."""
    forward = parser.add_argument_group(title)
    forward.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='run on tiles of this size, in pixels of the input, rounded up to whole windows where the network has some '
        '(default: whole images)',
    )
    forward.add_argument(
        '--overlap',
        type=int,
        metavar='PIXELS',
        help='of neighbouring tiles, in pixels of the input; tiling is exact where it is as wide as the receptive field '
        '(default: 16, or half of a smaller tile)',
    )
    forward.add_argument(
        '--batch_size',
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='tiles in one forward; of centroids without tiles, consecutive images of equal size (default: 1)',
    )
    forward.add_argument(
        '--self_ensemble',
        '--self-ensemble',
        action='store_true',
        help='average over the eight flips and transpositions; eight times the work',
    )
    forward.add_argument('--precision', choices=('fp32', 'bf16', 'fp16'), default='fp32', help='(default: fp32)')
    forward.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, ... (default: cuda where there is one)')
