"""Command line of ``basicsr prepare lr``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_compress_level, add_num_workers, add_paths, number
from basicsr_ext.cli.stopping import stoppable
from basicsr_ext.prepare.counting import pluralize


def add_lr(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``lr``."""
    parser = commands.add_parser(
        'lr',
        help='make LR images by exact MATLAB bicubic downsampling',
        description='Makes LR images from HR images by MATLAB bicubic downsampling, bit-exact. HR images are cropped '
        'at their right and lower borders to a multiple of the scale first.',
    )
    add_paths(parser, 'folder or store of HR images', 'a path ending in .lmdb: a raw LMDB store; else a folder of PNGs')
    parser.add_argument('-s', '--scale', type=number, required=True, help='factor, such as 4')
    parser.add_argument(
        '--double',
        action='store_true',
        help='as MATLAB does it after im2double: rounded once at the end, not between the two passes',
    )
    parser.add_argument('--suffix', default='', help='appended to the names of the images, such as x4')
    parser.add_argument(
        '--noise_sigma',
        '--noise-sigma',
        type=float,
        default=0.0,
        metavar='SIGMA',
        help='standard deviation, on [0, 1], of Gaussian noise added to the LR images (default: 0)',
    )
    parser.add_argument(
        '--noise_seed',
        '--noise-seed',
        type=number,
        default=0,
        metavar='SEED',
        help='seed of the noise; the noise of an image depends on it and on the name of the image only (default: 0)',
    )
    parser.add_argument(
        '--dtype',
        choices=('uint8', 'uint16', 'float32'),
        help='of the LR images; float32 needs a store, and with --double keeps what is computed unrounded (default: that '
        'of the HR images)',
    )
    parser.add_argument(
        '--enlarge',
        action='store_true',
        help='enlarge LR images again by MATLAB bicubic, for networks that keep the size',
    )
    parser.add_argument(
        '--resizer',
        choices=('matlab', 'pillow'),
        default='matlab',
        help="pillow: Pillow's bicubic; HR images are resized to a multiple of the scale, not cropped, as for PSPL's "
        'published scores (default: %(default)s)',
    )
    parser.add_argument(
        '--output_hr',
        '--output-hr',
        metavar='PATH',
        help='store or folder for the HR images that the LR images belong to, cropped or resized',
    )
    add_compress_level(parser, 'of PNGs')
    add_num_workers(parser)
    parser.set_defaults(run=stoppable(_run))


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.lr import make_lr

    count = make_lr(
        args.input,
        args.output,
        args.scale,
        double=args.double,
        noise_sigma=args.noise_sigma,
        noise_seed=args.noise_seed,
        suffix=args.suffix,
        dtype=args.dtype,
        enlarge=args.enlarge,
        resizer=args.resizer,
        output_hr=args.output_hr,
        compress_level=args.compress_level,
        num_workers=args.num_workers,
    )
    print(f'{args.output}: {pluralize(count, "LR image")}')
