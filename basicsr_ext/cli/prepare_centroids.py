"""Command line of ``basicsr prepare centroids``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse
import os

from basicsr_ext.cli.arguments import (
    add_forward_arguments,
    add_network_files,
    add_num_workers,
    add_paths,
    number,
)
from basicsr_ext.cli.stopping import stoppable
from basicsr_ext.prepare.counting import pluralize


def add_centroids(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``centroids``."""
    parser = commands.add_parser(
        'centroids',
        help='make the centroids of ECO with a trained network',
        description="Runs a trained network (the teacher) over LR images. Writes what it gives, the centroids of ECO's "
        'objective, into one raw LMDB store and their MATLAB bicubic downsampling into another. What is done lies beside the '
        'first in OUTPUT.parts until all is done: after a stop, even a kill, the same command goes on. On several ranks: '
        'torchrun --nproc_per_node N -m basicsr_ext prepare centroids ...',
    )
    add_paths(parser, 'folder or store of LR images', 'raw LMDB store of centroids to write')
    parser.add_argument(
        '--output_lq',
        '--output-lq',
        required=True,
        metavar='PATH',
        help='raw LMDB store of downsampled centroids to write',
    )
    teacher = parser.add_argument_group(
        'teacher',
        'A checkpoint of this package says itself what network it belongs to, and by which factor that enlarges. -opt and '
        '--network come before what it says. For other files give one of these, or the library spandrel (extra "spandrel") '
        'recognises the network by its weights.',
    )
    network = teacher.add_mutually_exclusive_group()
    network.add_argument(
        '-opt',
        '--opt',
        metavar='FILE',
        help='option file whose network_g and scale are taken (default: what the file of weights says)',
    )
    network.add_argument(
        '--network', metavar='YAML', help="network option, such as '{type: EDSR, num_in_ch: 3, num_out_ch: 3}'"
    )
    teacher.add_argument('-s', '--scale', type=number, help='factor; required with --network')
    add_network_files(teacher, 'trained weights, such as net_g_latest.pth (.pth, .safetensors)')
    add_forward_arguments(parser, 'how the teacher runs')
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
    add_num_workers(parser, 'processes that look for damaged images first')
    parser.set_defaults(run=stoppable(_run))


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.centroids import make_centroids
    from basicsr_ext.prepare.teacher import teacher_from_file, teacher_from_text

    if args.opt is not None:
        network, scale = teacher_from_file(args.opt, args.scale)
    elif args.network is not None:
        network, scale = teacher_from_text(args.network, args.scale)
    else:
        network, scale = None, args.scale  # the file of weights says it, or spandrel does
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
        print(f'{args.output}, {args.output_lq}: {pluralize(count, "centroid")}')
