"""Command line of ``basicsr prepare``: only argparse is imported until a command runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands ``subimages``, ``lr``, ``lmdb``, ``centroids``, ``luma`` and ``check`` to ``basicsr prepare``.

    The parsed arguments carry ``run``, a function of the arguments that does the work.
    """
    commands = parser.add_subparsers(title='commands', dest='prepare_command', metavar='COMMAND', required=True)
    _add_lr(commands)
    _add_lmdb(commands)
    _add_subimages(commands)
    _add_centroids(commands)
    _add_luma(commands)
    _add_check(commands)


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
    _add_compress_level(parser, 'of PNGs')
    _add_num_workers(parser)
    parser.set_defaults(run=_stoppable(_run_lr))


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
    _add_compress_level(parser, 'of the basicsr layout')
    _add_num_workers(parser)
    parser.set_defaults(run=_stoppable(_run_lmdb))


def _add_subimages(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'subimages',
        help='cut large images into overlapping sub-images',
        description='Cuts images into overlapping sub-images NAME_s001 and so on, as BasicSR does. Stores of whole images '
        'are smaller and are read as fast: this is for those who want sub-images as files.',
    )
    _add_paths(parser, 'folder or store of images', 'a path ending in .lmdb: a raw LMDB store; else a folder of PNGs')
    parser.add_argument(
        '--size',
        '--crop_size',
        '--crop-size',
        type=int,
        default=480,
        metavar='PIXELS',
        help='height and width of a sub-image (default: 480; the scale-th part for LR images)',
    )
    parser.add_argument('--step', type=int, default=240, metavar='PIXELS', help='between neighbours (default: 240)')
    parser.add_argument(
        '--threshold',
        '--thresh_size',
        '--thresh-size',
        type=int,
        default=0,
        metavar='PIXELS',
        help='one more sub-image at the border where more pixels than this would be lost (default: 0)',
    )
    _add_compress_level(parser, 'of PNGs', 3)
    _add_num_workers(parser)
    parser.set_defaults(run=_stoppable(_run_subimages))


def _add_centroids(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'centroids',
        help='make the centroids of ECO with a trained network',
        description="Runs a trained network (the teacher) over LR images. Writes what it gives, the centroids of ECO's "
        'objective, into one raw LMDB store and their MATLAB bicubic downsampling into another. What is done lies beside the '
        'first in OUTPUT.parts until all is done: after a stop, even a kill, the same command goes on. On several ranks: '
        'torchrun --nproc_per_node N -m basicsr_ext prepare centroids ...',
    )
    _add_paths(parser, 'folder or store of LR images', 'raw LMDB store of centroids to write')
    parser.add_argument(
        '--output_lq',
        '--output-lq',
        required=True,
        metavar='PATH',
        help='raw LMDB store of downsampled centroids to write',
    )
    teacher = parser.add_argument_group(
        'teacher', 'Without -opt and --network, the library spandrel (extra "teachers") recognises the weights.'
    )
    network = teacher.add_mutually_exclusive_group()
    network.add_argument('-opt', '--opt', metavar='FILE', help='option file whose network_g and scale are taken')
    network.add_argument(
        '--network', metavar='YAML', help="network option, such as '{type: EDSR, num_in_ch: 3, num_out_ch: 3}'"
    )
    teacher.add_argument('-s', '--scale', type=int, help='factor; required with --network')
    teacher.add_argument('--weights', required=True, metavar='FILE', help='trained weights (.pth, .safetensors)')
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
        help='run on tiles of this size, in LR pixels, rounded up to whole windows where the network has some (default: '
        'whole images)',
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
    parser.add_argument(
        '--launcher',
        choices=('none', 'pytorch', 'slurm'),
        help='what started the ranks that share the work (default: pytorch under torchrun, else none)',
    )
    _add_num_workers(parser, 'processes that look for damaged images first')
    parser.set_defaults(run=_stoppable(_run_centroids))


def _add_luma(commands: argparse._SubParsersAction) -> None:
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
        '-s', '--scale', type=int, required=True, nargs='+', help='one factor, or several for a network of all scales'
    )
    parser.add_argument(
        '--factors',
        type=float,
        nargs='+',
        default=(1.0, 0.7, 0.5),
        help='by which copies are shrunk first (default: 1.0 0.7 0.5)',
    )
    parser.add_argument(
        '--patch_size',
        '--patch-size',
        type=int,
        default=41,
        metavar='PIXELS',
        help='copies that are smaller are left out (default: 41)',
    )
    _add_num_workers(parser)
    parser.set_defaults(run=_stoppable(_run_luma))


def _add_check(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        'check',
        help='look for mistakes in sets of images',
        description='Decodes all images, compares GT and LQ images, and looks for test images among the GT images. Prints a '
        'table of problems. Exit status: 0: no problems; 1: problems; 2: the check cannot be made.',
    )
    parser.add_argument('--gt', required=True, metavar='PATH', help='folder or store of GT images')
    parser.add_argument('--lq', metavar='PATH', help='folder or store of LQ images')
    parser.add_argument('-s', '--scale', type=int, help='GT pixels per LQ pixel; required with --lq')
    parser.add_argument(
        '--filename_tmpl',
        '--filename-tmpl',
        default='{}',
        metavar='TEMPLATE',
        help='name of an LQ image, with {} in place of that of its GT image, such as {}x4 (default: {})',
    )
    parser.add_argument(
        '--test', nargs='+', default=(), metavar='PATH', help='test sets of which nothing may be among the GT images'
    )
    parser.add_argument(
        '--distance',
        type=int,
        default=60,
        metavar='BITS',
        help='of 256 in which the perceptual hashes of two versions of an image may differ (default: 60)',
    )
    _add_num_workers(parser)
    parser.set_defaults(run=_stoppable(_run_check))


def _add_paths(parser: argparse.ArgumentParser, input_help: str, output_help: str) -> None:
    parser.add_argument('-i', '--input', required=True, metavar='PATH', help=input_help)
    parser.add_argument('-o', '--output', required=True, metavar='PATH', help=f'{output_help}; must not exist')


def _add_compress_level(parser: argparse.ArgumentParser, of_what: str, default: int = 1) -> None:
    parser.add_argument(
        '--compress_level',
        '--compress-level',
        type=int,
        choices=range(10),
        default=default,
        metavar='0-9',
        help=f'PNG compression {of_what} (default: {default})',
    )


def _add_num_workers(parser: argparse.ArgumentParser, what: str = 'processes') -> None:
    parser.add_argument(
        '--num_workers', '--num-workers', type=int, metavar='N', help=f'{what} (default: one for each processor)'
    )


def _stoppable(run: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """Ends with a line instead of a traceback on Ctrl-C."""

    def stoppable(args: argparse.Namespace) -> None:
        try:
            run(args)
        except KeyboardInterrupt:
            print(f'basicsr prepare {args.prepare_command}: stopped; the same command goes on.', file=sys.stderr)
            raise SystemExit(130) from None

    return stoppable


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
        dtype=args.dtype,
        enlarge=args.enlarge,
        compress_level=args.compress_level,
        num_workers=args.num_workers,
    )
    print(f'{args.output}: {count} LR images')


def _run_lmdb(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.stores import make_store

    count = make_store(
        args.input,
        args.output,
        layout=args.layout,
        channels=args.channels,
        compress_level=args.compress_level,
        num_workers=args.num_workers,
    )
    print(f'{args.output}: {count} images')


def _run_subimages(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.subimages import make_subimages

    count = make_subimages(
        args.input,
        args.output,
        size=args.size,
        step=args.step,
        threshold=args.threshold,
        compress_level=args.compress_level,
        num_workers=args.num_workers,
    )
    print(f'{args.output}: {count} sub-images')


def _run_centroids(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.centroids import make_centroids
    from basicsr_ext.prepare.teacher import teacher_from_file, teacher_from_text

    if args.opt is not None:
        network, scale = teacher_from_file(args.opt, args.scale)
    elif args.network is not None:
        network, scale = teacher_from_text(args.network, args.scale)
    else:
        network, scale = None, args.scale  # recognised by its weights
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
        launcher=args.launcher,
        num_workers=args.num_workers,
    )
    if os.environ.get('RANK', '0') == '0':
        print(f'{args.output}, {args.output_lq}: {count} centroids')


def _run_luma(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.luma import make_luma

    count = make_luma(
        args.input,
        args.output,
        args.output_lq,
        args.scale,
        factors=args.factors,
        patch_size=args.patch_size,
        output_small=args.output_small,
        num_workers=args.num_workers,
    )
    print(f'{args.output}, {args.output_lq}: {count} images')


def _run_check(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.check import check_sets, table

    problems = check_sets(
        args.gt,
        args.lq,
        scale=args.scale,
        filename_tmpl=args.filename_tmpl,
        tests=args.test,
        distance=args.distance,
        num_workers=args.num_workers,
    )
    if problems:
        print(table(problems))
        print(f'{len(problems)} problems')
        raise SystemExit(1)
    print('no problems')
