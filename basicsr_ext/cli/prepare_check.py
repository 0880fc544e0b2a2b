"""Command line of ``basicsr prepare check``: only argparse is imported until it runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.arguments import add_num_workers, number
from basicsr_ext.prepare.counting import pluralize
from basicsr_ext.prepare.distances import DISTANCE


def add_check(commands: argparse._SubParsersAction) -> None:
    """Adds the command ``check``."""
    parser = commands.add_parser(
        'check',
        help='look for mistakes in sets of images',
        description='Decodes all images, compares GT and LQ images, and looks for test images and for copies among the GT '
        'images. Prints a table of problems. Exit status: 0: no problems, or only warnings (of copies, of pairs that show '
        'different places); 1: problems; 2: the '
        'check cannot be made.',
    )
    parser.add_argument('--gt', required=True, metavar='PATH', help='folder or store of GT images')
    parser.add_argument('--lq', metavar='PATH', help='folder or store of LQ images')
    parser.add_argument('-s', '--scale', type=number, help='GT pixels per LQ pixel; required with --lq')
    parser.add_argument(
        '--filename_tmpl',
        '--filename-tmpl',
        default='{}',
        metavar='TEMPLATE',
        help='name of an LQ image, with {} in place of that of its GT image, such as {}x4 (default: {})',
    )
    parser.add_argument(
        '--test',
        nargs='+',
        default=(),
        metavar='PATH',
        help='test sets of which nothing may be among the GT images: copies are recognised, also flipped, rotated, rescaled, '
        'JPEG compressed or a little brighter; images of which more than a narrow border was cropped are not',
    )
    parser.add_argument(
        '--distance',
        type=number,
        default=DISTANCE,
        metavar='BITS',
        help='of 256 in which the perceptual hashes of two versions of an image may differ (default: %(default)s)',
    )
    parser.add_argument(
        '--all',
        action='store_true',
        help='compare what all pairs show, and not 50 of them: a warning says where an LQ image fits its GT image 3 dB better '
        'when it is moved by up to 3 pixels',
    )
    add_num_workers(parser)
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> None:
    from basicsr_ext.prepare.check import check_sets, table

    problems = check_sets(
        args.gt,
        args.lq,
        scale=args.scale,
        filename_tmpl=args.filename_tmpl,
        tests=args.test,
        distance=args.distance,
        every_pair=args.all,
        num_workers=args.num_workers,
    )
    if problems:
        print(table(problems))
    warnings = sum(problem.is_warning for problem in problems)
    wrong = len(problems) - warnings
    print(
        (pluralize(wrong, 'problem') if wrong else 'no problems')
        + (f', {pluralize(warnings, "warning")}' if warnings else '')
    )
    if wrong:
        raise SystemExit(1)
