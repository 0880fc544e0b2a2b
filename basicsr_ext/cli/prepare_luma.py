"""Command line of ``basicsr prepare luma``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_num_workers, number
from basicsr_ext.cli.stopping import stoppable
from basicsr_ext.prepare.counting import pluralize

FACTORS = (1.0, 0.7, 0.5)  # of VDSR's training
PATCH_SIZE = 41


def add_luma(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``luma``."""
    parser = commands.add_parser(
        'luma',
        help='make training images of luminance, and their bicubic enlargement, as for VDSR',
        description='Writes luminance of images and of shrunk copies into one raw LMDB store, and what is left of it after '
        'bicubic downsampling and enlargement into another; both in double precision, stored as float32. A dataset draws '
        'patches from them at scale 1.',
    )
    parser.add_argument(
        '-i', '--input', required=True, nargs='+', metavar='PATH', help='folders or stores of RGB images'
    )
    parser.add_argument(
        '-o', '--output', required=True, metavar='PATH', help='raw LMDB store of luminance to write; must not exist'
    )
    parser.add_argument(
        '--output_lq',
        '--output-lq',
        required=True,
        metavar='PATH',
        help='raw LMDB store of enlarged luminance to write; must not exist',
    )
    parser.add_argument(
        '--output_small',
        '--output-small',
        metavar='PATH',
        help='raw LMDB store of the luminance before it is enlarged, for networks that enlarge it themselves (FSRCNN)',
    )
    parser.add_argument(
        '-s',
        '--scale',
        type=number,
        required=True,
        nargs='+',
        help='one factor, or several for a network of all scales',
    )
    parser.add_argument(
        '--factors',
        type=float,
        nargs='+',
        default=FACTORS,
        help=f'by which copies are shrunk first (default: {" ".join(map(str, FACTORS))})',
    )
    parser.add_argument(
        '--patch_size',
        '--patch-size',
        type=number,
        default=PATCH_SIZE,
        metavar='PIXELS',
        help='copies that are smaller are left out (default: %(default)s)',
    )
    parser.add_argument(
        '--round_luma',
        '--round-luma',
        action='store_true',
        help='round luminance to 8 bits before it is shrunk, as MATLAB does with 8-bit images and as was published',
    )
    add_num_workers(parser)
    parser.set_defaults(run=stoppable(_run))


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.luma import make_luma

    count = make_luma(
        args.input,
        args.output,
        args.output_lq,
        args.scale,
        factors=args.factors,
        patch_size=args.patch_size,
        output_small=args.output_small,
        round_luma=args.round_luma,
        num_workers=args.num_workers,
    )
    print(f'{args.output}, {args.output_lq}: {pluralize(count, "image")}')
