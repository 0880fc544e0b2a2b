"""Arguments that commands of ``basicsr prepare`` have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable


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
        '--num_workers', '--num-workers', type=int, metavar='N', help=f'{what} (default: one for each processor)'
    )


def stoppable(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Ends with a line instead of a traceback on Ctrl-C, for commands that keep what is done."""

    def run_stoppably(args: argparse.Namespace) -> None:
        try:
            run(args)
        except KeyboardInterrupt:
            print(f'basicsr prepare {args.prepare_command}: stopped; the same command goes on.', file=sys.stderr)
            raise SystemExit(130) from None

    return run_stoppably
