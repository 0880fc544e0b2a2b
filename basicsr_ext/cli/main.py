"""The command ``basicsr``."""

from __future__ import annotations

import argparse
import io
import os
import select
import signal
import sys
from collections.abc import Sequence

from basicsr_ext import __version__
from basicsr_ext.cli.evaluate import add_evaluate_arguments
from basicsr_ext.cli.export import add_export_arguments
from basicsr_ext.cli.prepare import add_arguments as add_prepare_arguments
from basicsr_ext.cli.shipped import add_options_arguments, add_recipe_arguments
from basicsr_ext.cli.upscale import add_upscale_arguments
from basicsr_ext.errors import RankLost, Stopped, UserError
from basicsr_ext.trainer import failing


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        argv: Arguments without the program's name; default: those of this process.

    Returns:
        Exit status: 0; 2 where the user has something to mend; 128 and the signal's number where a signal ended a run,
        which was saved first, and where nobody reads what is printed any more.
    """
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')  # names of files are not always text
    # Of a damaged image our own message tells more; set before OpenCV is imported, here or in a worker.
    os.environ.setdefault('OPENCV_LOG_LEVEL', 'ERROR')
    try:
        args.run(args)
        sys.stdout.flush()
    except UserError as error:
        if failing.is_told_by_this_rank(error):
            print(f'basicsr {args.command}: error: {error}', file=sys.stderr)
        return failing.LOST if isinstance(error, RankLost) else 2
    except Stopped as stopped:
        print(f'basicsr {args.command}: {stopped}', file=sys.stderr)
        return 128 + (stopped.signal_number or signal.SIGTERM)
    except KeyboardInterrupt:
        print(f'basicsr {args.command}: interrupted', file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        return 128 + signal.SIGPIPE
    return 0


def _reader_is_gone() -> bool:
    """Says whether standard output leads nowhere, as behind ``head``; then nothing more is written to it."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    if not output.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
    return True


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog='basicsr', description='Trains and tests super-resolution networks with BasicSR.'
    )
    parser.add_argument('--version', action='version', version=f'basicsr-ext {__version__}')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

    train = commands.add_parser(
        'train',
        help='train from an option file',
        description='Trains from an option file, after checking all of it. Networks, training states, logs and the options as '
        'they were used go to experiments/NAME, and curves to tb_logger/NAME where logger.use_tb_logger is true. An earlier '
        'run of that name is renamed, not replaced; --auto_resume goes on with it. Ctrl-C or SIGTERM: the iteration is '
        'finished and saved. Exit status: 0; 2: something is to be mended; 130 (Ctrl-C), 143 (SIGTERM): stopped and saved.',
    )
    _add_run_arguments(train)
    train.add_argument('--auto_resume', action='store_true', help="go on from the experiment's newest state")
    train.add_argument('--nproc', type=int, metavar='N', help='start N ranks on this machine (torchrun does it)')
    train.set_defaults(run=_train)

    test = commands.add_parser(
        'test',
        help='test from an option file',
        description='Runs networks over the sets of an option file and scores every image by val.metrics. Prints the scores '
        'and writes them to results/NAME as metrics.json, metrics.md and metrics.csv when the test is done, beside its log '
        'and, with val.save_img, its images; with --weights, each checkpoint has a folder in there. Earlier results are '
        'renamed, not replaced. Exit status: 0; 2: something is to be mended.',
    )
    _add_run_arguments(test)
    test.add_argument(
        '--weights',
        nargs='+',
        default=[],
        metavar='FILE',
        help='network files to test, one after the other, each into a folder of its own (default: path.pretrain_network_g)',
    )
    test.set_defaults(run=_test)

    check = commands.add_parser(
        'check',
        help='look for mistakes in an option file, without training',
        description='Checks an option file as train does, or test where it has no block train, and names all mistakes. Then '
        'builds the networks, counts parameters and multiply-adds, runs the metrics once, and estimates the disk space of '
        'checkpoints. Reads one sample of each dataset; "basicsr prepare check" looks at every image. Writes no file. Exit '
        'status: 0: nothing wrong; 2: mistakes.',
    )
    _add_option_arguments(check)
    check.set_defaults(run=_check)

    add_export_arguments(
        commands.add_parser('export', help='write a trained network as ONNX, or its weights as safetensors')
    )
    add_upscale_arguments(commands.add_parser('upscale', help='enlarge images by a trained network'))
    add_evaluate_arguments(commands.add_parser('evaluate', help='score images that anything may have made'))
    add_prepare_arguments(commands.add_parser('prepare', help='make datasets: LR images, stores, centroids'))
    add_options_arguments(commands.add_parser('options', help='option files that come with the package: list, copy'))
    add_recipe_arguments(
        commands.add_parser('recipe', help='make the data of a published set, as the option files expect it')
    )
    return parser


def _add_option_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('-opt', '--opt', required=True, metavar='FILE', help='option file (YAML)')
    parser.add_argument(
        '--force_yml', nargs='+', default=[], metavar='KEY:KEY=VALUE', help='set options, e.g. train:total_iter=1000'
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_option_arguments(parser)
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm'], default='none', help='pytorch: started by torchrun'
    )
    parser.add_argument('--debug', action='store_true', help="BasicSR's debug mode: short intervals")
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0, help=argparse.SUPPRESS)


def _check_at_once(args: argparse.Namespace, is_train: bool | None) -> None:
    """Refuses what can be seen at once; then says that torch and BasicSR are loaded, which takes seconds.

    Args:
        args: Parsed arguments, with ``opt`` and ``force_yml``.
        is_train: Whether it is a training; ``None``: the options say so.
    """
    if 'torch' in sys.modules:  # nothing would be faster, and all mistakes are told together
        return
    from basicsr_ext.checking import check_at_once
    from basicsr_ext.options.source import read_source

    source = read_source(args.opt, args.force_yml)
    is_train = source.values.get('train') is not None if is_train is None else is_train
    check_at_once(source if is_train else source.for_test(), is_train=is_train)
    if all(os.environ.get(rank, '0') == '0' for rank in ('RANK', 'SLURM_PROCID')):
        print(f'basicsr {args.command}: {args.opt}: loading torch and BasicSR ...', file=sys.stderr, flush=True)


def _train(args: argparse.Namespace) -> None:
    _check_at_once(args, is_train=True)
    if args.nproc is not None:
        from basicsr_ext.trainer.launching import launch

        launch(args)
        return
    from basicsr_ext.trainer.run import train

    train(args.opt, launcher=args.launcher, auto_resume=args.auto_resume, debug=args.debug, force_yml=args.force_yml)


def _test(args: argparse.Namespace) -> None:
    _check_at_once(args, is_train=False)
    from basicsr_ext.evaluation.testing import run_test

    run_test(args.opt, args.weights, launcher=args.launcher, debug=args.debug, force_yml=args.force_yml)


def _check(args: argparse.Namespace) -> None:
    _check_at_once(args, is_train=None)
    from basicsr_ext.checking.check import check

    print(check(args.opt, force_yml=args.force_yml))
