"""Command line of ``basicsr upscale``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse


def add_upscale_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``basicsr upscale`` to its parser; the parsed ones carry ``run``."""
    parser.description = (
        'Enlarges images by a trained network. Alpha (enlarged by exact bicubic) and 16 bits are kept where the format '
        'has them, grey stays grey. A network of one channel gets the luminance; the chroma is enlarged by exact bicubic.'
    )
    parser.add_argument('-i', '--input', required=True, metavar='PATH', help='image, or folder of images')
    parser.add_argument('-o', '--output', required=True, metavar='DIR', help='folder for the results')
    network = parser.add_argument_group('network')
    network.add_argument('--weights', required=True, metavar='FILE', help='network file, such as net_g_latest.pth')
    network.add_argument(
        '-opt', '--opt', metavar='FILE', help="option file with network_g and scale (default: the network file's own)"
    )
    network.add_argument(
        '-s', '--scale', type=int, metavar='N', help='for networks of scale 1: enlarge by exact bicubic before'
    )
    network.add_argument(
        '--param_key',
        '--param-key',
        metavar='KEY',
        help='entry of the network file (default: params_ema, params, or the file itself)',
    )
    forward = parser.add_argument_group('how it runs')
    add_forward_arguments(forward)
    forward.add_argument(
        '--batch_size', '--batch-size', type=int, default=1, metavar='N', help='tiles in one forward (default: 1)'
    )
    forward.add_argument('--device', default='auto', help='cpu, cuda, cuda:1, ... (default: cuda where there is one)')
    files = parser.add_argument_group('files')
    files.add_argument('--suffix', default='', help='appended to the names of the results')
    files.add_argument(
        '--ext',
        default='png',
        choices=('png', 'tif', 'webp', 'bmp', 'jpg'),
        help='format: png holds all, tif 16 bits, webp alpha (default: png)',
    )
    files.add_argument('--overwrite', action='store_true', help='replace results that are there')
    parser.set_defaults(run=_run_upscale)


def add_forward_arguments(forward: argparse._ArgumentGroup) -> None:
    """Adds ``--tile``, ``--overlap``, ``--self_ensemble`` and ``--precision``."""
    forward.add_argument(
        '--tile', type=int, metavar='PIXELS', help='run on tiles of this size, in pixels of the input (default: whole)'
    )
    forward.add_argument(
        '--overlap',
        type=int,
        default=16,
        metavar='PIXELS',
        help='of neighbouring tiles, in pixels of the input; tiling is exact where it is as wide as the receptive field '
        '(default: 16)',
    )
    forward.add_argument(
        '--self_ensemble',
        '--self-ensemble',
        action='store_true',
        help='average over the eight flips and transpositions; eight times the work',
    )
    forward.add_argument('--precision', choices=('fp32', 'bf16', 'fp16'), default='fp32', help='(default: fp32)')


def _run_upscale(args: argparse.Namespace) -> None:
    import sys

    from basicsr_ext.evaluation.upscale import upscale

    done = upscale(
        args.input,
        args.output,
        args.weights,
        options=args.opt,
        scale=args.scale,
        param_key=args.param_key,
        tile=args.tile,
        overlap=args.overlap,
        batch_size=args.batch_size,
        self_ensemble=args.self_ensemble,
        precision=args.precision,
        device=args.device,
        suffix=args.suffix,
        ext=args.ext,
        overwrite=args.overwrite,
    )
    if done.lossy:
        print(
            f'Warning: {args.ext} lacks alpha or 16 bits, which {len(done.lossy)} of the images have; png has both.',
            file=sys.stderr,
        )
    print(f'{args.output}: {len(done.files)} images')
