"""Command line of ``basicsr prepare lmdb``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_compress_level, add_num_workers, add_paths
from basicsr_ext.cli.stopping import stoppable
from basicsr_ext.prepare.counting import pluralize


def add_lmdb(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``lmdb``."""
    parser = commands.add_parser(
        'lmdb',
        aliases=['store'],
        help='put a folder of images into an LMDB',
        description='Puts a folder of images into an LMDB.',
    )
    add_paths(parser, 'folder or store of images', 'LMDB to write; its name ends in .lmdb')
    parser.add_argument(
        '--layout',
        choices=('raw', 'basicsr'),
        default='raw',
        help='raw: pixels as they are, so that crops need no decoding; basicsr: PNGs, as BasicSR reads them '
        '(default: raw)',
    )
    parser.add_argument(
        '--channels',
        type=int,
        choices=(1, 3),
        help='1: grey images only, 3: RGB, grey repeated (default: 1 where all images are grey)',
    )
    add_compress_level(parser, 'of the basicsr layout')
    add_num_workers(parser)
    parser.set_defaults(run=stoppable(_run))


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.stores import make_store

    count = make_store(
        args.input,
        args.output,
        layout=args.layout,
        channels=args.channels,
        compress_level=args.compress_level,
        num_workers=args.num_workers,
    )
    print(f'{args.output}: {pluralize(count, "image")}')
