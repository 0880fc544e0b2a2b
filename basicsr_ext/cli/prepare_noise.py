"""Command line of ``basicsr prepare noise``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_num_workers, add_paths, number
from basicsr_ext.cli.stopping import stoppable
from basicsr_ext.prepare.counting import pluralize


def add_noise(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``noise``."""
    parser = commands.add_parser(
        'noise',
        help='collect noise: windows of noisy images without structure, for training on noisy LR images',
        description='Cuts windows out of noisy images in which there is noise and nothing else. A MixedStoreDataset adds '
        'them, less their means, to LR crops.',
    )
    add_paths(parser, 'folder or store of noisy images', 'raw LMDB store to write; its name ends in .lmdb')
    parser.add_argument(
        '--size',
        type=number,
        default=64,
        metavar='PIXELS',
        help='height and width of a window; at least an LR crop (default: 64)',
    )
    parser.add_argument(
        '--least', type=float, default=1.0, metavar='SIGMA', help='lowest standard deviation, on [0, 255] (default: 1)'
    )
    parser.add_argument(
        '--most',
        type=float,
        default=20.0,
        metavar='SIGMA',
        help='highest standard deviation, on [0, 255] (default: 20)',
    )
    parser.add_argument(
        '--flatness',
        type=float,
        default=0.3,
        metavar='RATIO',
        help='how much the means of 4x4 blocks may deviate, in relation to the pixels, and how unevenly (default: 0.3)',
    )
    add_num_workers(parser)
    parser.set_defaults(run=stoppable(_run))


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.noise import make_noise

    count = make_noise(
        args.input,
        args.output,
        size=args.size,
        least=args.least,
        most=args.most,
        flatness=args.flatness,
        num_workers=args.num_workers,
    )
    print(f'{args.output}: {pluralize(count, "window")}')
