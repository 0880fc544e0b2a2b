"""Command line of ``basicsr upscale``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_forward_arguments, add_network_files


def add_upscale_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``basicsr upscale`` to its parser; the parsed ones carry ``run``."""
    parser.description = (
        'Enlarges images by a trained network. Alpha (enlarged by exact bicubic) and 16 bits are kept where the format '
        'has them, grey stays grey. A network of one channel gets the luminance; the chroma is enlarged by exact bicubic. '
        'Images that cannot be enlarged are left out and listed at the end. Exit status: 0; 1: images were left out; 2: '
        'nothing could be done.'
    )
    parser.add_argument('-i', '--input', required=True, metavar='PATH', help='image, or folder of images')
    parser.add_argument(
        '-o',
        '--output',
        required=True,
        metavar='DIR',
        help='folder for the results, which have the names of the images',
    )
    network = parser.add_argument_group('network')
    add_network_files(network, 'network file, such as net_g_latest.pth')
    network.add_argument(
        '-opt', '--opt', metavar='FILE', help="option file with network_g and scale (default: the network file's own)"
    )
    network.add_argument(
        '-s', '--scale', type=int, metavar='N', help='for networks of scale 1: enlarge by exact bicubic before'
    )
    add_forward_arguments(parser, 'how it runs')
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
    if done.skipped:
        reasons = '\n'.join(done.skipped.values())
        total = len(done.files) + len(done.skipped)
        print(f'{len(done.skipped)} of {total} images were left out:\n{reasons}', file=sys.stderr)
        raise SystemExit(1)
