"""Command line of ``basicsr export``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse
import re

from basicsr_ext.cli.arguments import add_network_files


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``basicsr export`` to its parser; the parsed ones carry ``run``."""
    parser.description = (
        'Writes a trained network as ONNX, or its weights as safetensors, for other programs. The ONNX network maps images '
        '(1, channels, H, W), RGB or luminance in [0, 1], to images (1, channels, H * scale, W * scale), which are not '
        'clipped. It is run by onnxruntime and compared with torch before it is written. Exit status: 0; 2: nothing was '
        'written.'
    )
    network = parser.add_argument_group('network')
    add_network_files(network, 'network file, such as net_g_latest.pth')
    network.add_argument(
        '-opt', '--opt', metavar='FILE', help="option file with network_g and scale (default: the network file's own)"
    )
    parser.add_argument('-o', '--output', required=True, metavar='FILE', help='file to write: .onnx or .safetensors')
    parser.add_argument(
        '--size',
        type=_size,
        metavar='HxW',
        help='height and width of the input, for networks that ONNX cannot describe for any size, such as transformers, and '
        'networks that enlarge their input first',
    )
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    parser.set_defaults(run=_run_export)


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r'([1-9]\d{0,5})x([1-9]\d{0,5})', text)
    if found is None:
        raise argparse.ArgumentTypeError(f'expected height and width such as 180x320, found {text!r}')
    return int(found[1]), int(found[2])


def _run_export(args: argparse.Namespace) -> None:
    from basicsr_ext.evaluation.export import export

    done = export(
        args.weights, args.output, options=args.opt, param_key=args.param_key, size=args.size, overwrite=args.overwrite
    )
    print(done)
