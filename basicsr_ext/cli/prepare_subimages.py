"""Command line of ``basicsr prepare subimages``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_compress_level, add_num_workers, add_paths, number
from basicsr_ext.cli.stopping import stoppable
from basicsr_ext.prepare.counting import pluralize


def add_subimages(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``subimages``."""
    parser = commands.add_parser(
        'subimages',
        help='cut large images into overlapping sub-images',
        description='Cuts images into overlapping sub-images NAME_s001 and so on, as BasicSR does. Stores of whole images '
        'are smaller and are read as fast: this is for those who want sub-images as files.',
    )
    add_paths(parser, 'folder or store of images', 'a path ending in .lmdb: a raw LMDB store; else a folder of PNGs')
    parser.add_argument(
        '--input_lq',
        '--input-lq',
        metavar='PATH',
        help='folder or store of LR images, to be cut at the same places, so that pairs fit; with --output_lq and --scale',
    )
    parser.add_argument('--output_lq', '--output-lq', metavar='PATH', help='as --output, for the LR images')
    parser.add_argument(
        '-s',
        '--scale',
        type=number,
        help='crop images to a multiple of it first, as LR images are made of them; with --input_lq HR pixels per LR pixel',
    )
    parser.add_argument(
        '--filename_tmpl',
        '--filename-tmpl',
        metavar='TEMPLATE',
        help='name of an LR image, with {} in place of that of its HR image (default: equal names, but for an x2, x3, x4 or '
        'x8 at the end)',
    )
    parser.add_argument(
        '--size',
        '--crop_size',
        '--crop-size',
        type=number,
        default=480,
        metavar='PIXELS',
        help='height and width of a sub-image (default: 480; the scale-th part for LR images that are cut alone)',
    )
    parser.add_argument('--step', type=number, default=240, metavar='PIXELS', help='between neighbours (default: 240)')
    parser.add_argument(
        '--threshold',
        '--thresh_size',
        '--thresh-size',
        type=number,
        default=0,
        metavar='PIXELS',
        help='one more sub-image at the border where more pixels than this would be lost (default: 0)',
    )
    parser.add_argument(
        '--skip_small',
        '--skip-small',
        action='store_true',
        help='leave out images that are smaller than a sub-image, with a note (default: they are an error)',
    )
    add_compress_level(parser, 'of PNGs', 3)
    add_num_workers(parser)
    parser.set_defaults(run=stoppable(_run))


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.subimages import make_subimages

    count = make_subimages(
        args.input,
        args.output,
        input_lq=args.input_lq,
        output_lq=args.output_lq,
        scale=args.scale,
        filename_tmpl=args.filename_tmpl,
        size=args.size,
        step=args.step,
        threshold=args.threshold,
        skip_small=args.skip_small,
        compress_level=args.compress_level,
        num_workers=args.num_workers,
    )
    if args.output_lq is None:
        print(f'{args.output}: {pluralize(count, "sub-image")}')
    else:
        print(f'{args.output}, {args.output_lq}: {pluralize(count, "pair")} of sub-images')
