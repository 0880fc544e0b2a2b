"""Command line of ``basicsr prepare``: only argparse is imported until a command runs."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands ``lr``, ``lmdb`` and ``centroids`` to the parser of ``basicsr prepare``.

    The parsed arguments carry ``run``, a function of the arguments that does the work.
    """
    commands = parser.add_subparsers(title='commands', dest='prepare_command', metavar='COMMAND', required=True)
    _add_lr(commands)
    _add_lmdb(commands)
    _add_centroids(commands)


def _add_lr(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'lr',
        help='make LR images by exact MATLAB bicubic downsampling',
        description='Makes LR images from HR images by MATLAB bicubic downsampling, bit-exact. HR images are cropped '
        'at their right and lower borders to a multiple of the scale first.',
    )
    _add_paths(
        parser, 'folder or store of HR images', 'a path ending in .lmdb: a raw LMDB store; else a folder of PNGs'
    )
    parser.add_argument('-s', '--scale', type=int, required=True, help='factor, such as 4')
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
        type=int,
        default=0,
        metavar='SEED',
        help='seed of the noise; the noise of an image depends on it and on the name of the image only (default: 0)',
    )
    parser.set_defaults(run=_run_lr)


def _add_lmdb(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'lmdb',
        aliases=['store'],
        help='put a folder of images into an LMDB',
        description='Puts a folder of images into an LMDB.',
    )
    _add_paths(parser, 'folder or store of images', 'LMDB to write; its name ends in .lmdb')
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
    parser.add_argument(
        '--compress_level',
        '--compress-level',
        type=int,
        choices=range(10),
        default=1,
        metavar='0-9',
        help='PNG compression of the basicsr layout (default: 1)',
    )
    parser.set_defaults(run=_run_lmdb)


def _add_centroids(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'centroids',
        help='make the centroids of ECO with a trained network',
        description="Runs a trained network (the teacher) over LR images. Writes what it gives, the centroids of ECO's "
        'objective, into one raw LMDB store and their MATLAB bicubic downsampling into another.',
    )
    _add_paths(parser, 'folder or store of LR images', 'raw LMDB store of centroids to write')
    parser.add_argument(
        '--output_lq',
        '--output-lq',
        required=True,
        metavar='PATH',
        help='raw LMDB store of downsampled centroids to write',
    )
    teacher = parser.add_argument_group('teacher')
    network = teacher.add_mutually_exclusive_group(required=True)
    network.add_argument('-opt', '--opt', metavar='FILE', help='option file whose network_g and scale are taken')
    network.add_argument(
        '--network', metavar='YAML', help="network option, such as '{type: EDSR, num_in_ch: 3, num_out_ch: 3}'"
    )
    teacher.add_argument('-s', '--scale', type=int, help='factor; required with --network')
    teacher.add_argument('--weights', required=True, metavar='FILE', help='trained weights (.pth)')
    teacher.add_argument(
        '--param_key',
        '--param-key',
        metavar='KEY',
        help='entry of the weights file (default: params_ema, params, or the file itself)',
    )
    forward = parser.add_argument_group('how the teacher runs')
    forward.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='run on tiles of this size, in LR pixels (default: whole images). Networks that work in windows need a '
        'multiple of their window',
    )
    forward.add_argument(
        '--overlap',
        type=int,
        default=16,
        metavar='PIXELS',
        help='of neighbouring tiles, in LR pixels; tiling is exact where half of it covers the receptive field '
        '(default: 16)',
    )
    forward.add_argument(
        '--batch_size',
        '--batch-size',
        type=int,
        default=1,
        metavar='N',
        help='tiles, or without tiles consecutive images of equal size, in one forward (default: 1)',
    )
    forward.add_argument('--precision', choices=('fp32', 'bf16', 'fp16'), default='fp32', help='(default: fp32)')
    forward.add_argument(
        '--self_ensemble',
        '--self-ensemble',
        action='store_true',
        help='average over the eight flips and transpositions; eight times the work',
    )
    forward.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, ... (default: cuda where there is one)')
    parser.add_argument(
        '--dtype',
        choices=('uint8', 'uint16', 'float32'),
        default='uint8',
        help='of the stored images (default: uint8, as published)',
    )
    parser.set_defaults(run=_run_centroids)


def _add_paths(parser: argparse.ArgumentParser, input_help: str, output_help: str) -> None:
    parser.add_argument('-i', '--input', required=True, metavar='PATH', help=input_help)
    parser.add_argument('-o', '--output', required=True, metavar='PATH', help=f'{output_help}; must not exist')


def _run_lr(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.lr import make_lr

    count = make_lr(
        args.input,
        args.output,
        args.scale,
        double=args.double,
        noise_sigma=args.noise_sigma,
        noise_seed=args.noise_seed,
        suffix=args.suffix,
    )
    print(f'{args.output}: {count} LR images')


def _run_lmdb(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.stores import make_store

    count = make_store(
        args.input, args.output, layout=args.layout, channels=args.channels, compress_level=args.compress_level
    )
    print(f'{args.output}: {count} images')


def _run_centroids(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.centroids import make_centroids
    from basicsr_ext.prepare.teacher import teacher_from_file, teacher_from_text

    if args.opt is not None:
        network, scale = teacher_from_file(args.opt, args.scale)
    else:
        network, scale = teacher_from_text(args.network, args.scale)
    count = make_centroids(
        args.input,
        args.output,
        args.output_lq,
        network=network,
        weights=args.weights,
        scale=scale,
        param_key=args.param_key,
        tile=args.tile,
        overlap=args.overlap,
        batch_size=args.batch_size,
        precision=args.precision,
        self_ensemble=args.self_ensemble,
        dtype=args.dtype,
        device=args.device,
    )
    print(f'{args.output}, {args.output_lq}: {count} centroids')
