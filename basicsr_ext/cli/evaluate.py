"""Command line of ``basicsr evaluate``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of ``basicsr evaluate`` to its parser; the parsed ones carry ``run``."""
    parser.description = (
        'Scores images that anything may have made. An image is named as its GT image; one ending may follow on all '
        'names, such as _RCAN_x4. With --scale, as benchmarks do it: GT images are cropped to a multiple of the scale, '
        'and as many border pixels left out; PSNR and SSIM are measured on luminance, not rounded. '
        'Exit status: 0; 2: something is to be mended.'
    )
    parser.add_argument('--gt', metavar='PATH', help='folder or store of GT images; not needed for niqe, nrqm and pi')
    parser.add_argument(
        '--sr',
        required=True,
        nargs='+',
        action='extend',
        metavar='[NAME=]PATH',
        help='folder or store of the images of a method; several may be given',
    )
    parser.add_argument(
        '-s', '--scale', type=int, metavar='N', help='crop GT images to a multiple of it; sets --crop_border too'
    )
    parser.add_argument(
        '--crop_border',
        '--crop-border',
        type=int,
        metavar='N',
        help='border pixels to leave out, for all metrics but LPIPS and DISTS (default: the scale, else 0)',
    )
    parser.add_argument(
        '--rgb', action='store_true', help='PSNR and SSIM on RGB, as for real scenes (default: on luminance)'
    )
    parser.add_argument(
        '--metrics',
        nargs='+',
        metavar='METRIC',
        help='psnr, ssim, lpips, dists, niqe, nrqm, pi or any registered one, or a block of options such as "{type: '
        'LPIPS, net: vgg}"; weights are downloaded once, or named: "{type: LPIPS, backbone_path: FILE}", "{type: NRQM, '
        'model_path: FILE}" (default: psnr ssim)',
    )
    parser.add_argument('--name', metavar='NAME', help='of the set (default: after the folder of GT images)')
    parser.add_argument(
        '-o',
        '--output',
        metavar='DIR',
        help='folder to write metrics.json, metrics.md and metrics.csv to; holds no earlier ones',
    )
    parser.add_argument(
        '--num_workers', '--num-workers', type=int, metavar='N', help='processes (default: one for each processor)'
    )
    parser.set_defaults(run=_run_evaluate)


def _run_evaluate(args: argparse.Namespace) -> None:
    from basicsr_ext import __version__
    from basicsr_ext.errors import UserError
    from basicsr_ext.evaluation.evaluate import evaluate, name_methods, open_methods
    from basicsr_ext.evaluation.metric_options import DEFAULT, describe, metric_blocks
    from basicsr_ext.registration import register
    from basicsr_ext.report.results import as_text, check_new_report, write_results

    if args.scale is not None and args.scale < 1:
        raise UserError(f'--scale: expected an integer of at least 1, found {args.scale}.')
    if args.output is not None:
        check_new_report(args.output)
    scale = args.scale or 1
    methods = open_methods(name_methods(args.sr), args.gt, scale)
    register()
    crop_border = args.crop_border if args.crop_border is not None else args.scale or 0
    blocks = metric_blocks(args.metrics or DEFAULT, crop_border, not args.rgb)
    results = evaluate(methods, blocks, dataset=args.name, num_workers=args.num_workers)
    print(as_text(results))
    print(f'\n{describe(blocks)}' + (f'; GT images cropped to multiples of {scale}' if scale > 1 else ''))
    if args.gt is not None and args.scale is None and args.crop_border is None:
        print('Without --scale no border is left out; published numbers leave out as many pixels as the scale.')
    if args.output is not None:
        write_results(results, args.output, {'metrics': blocks, 'scale': scale, 'tool_version': __version__})
        print(f'{args.output}: metrics.json, metrics.md, metrics.csv')
