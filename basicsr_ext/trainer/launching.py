"""``basicsr train --nproc N``: several ranks on this machine."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys

from basicsr_ext.errors import UserError


def rank_command(args: argparse.Namespace) -> list[str]:
    """Returns the torchrun command for the arguments of ``basicsr train``.

    Args:
        args: Parsed arguments, with ``nproc``.
    """
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', str(args.nproc)]
    command += ['-m', 'basicsr_ext', 'train', '-opt', args.opt, '--launcher', 'pytorch']
    command += ['--auto_resume'] * args.auto_resume + ['--debug'] * args.debug
    return command + (['--force_yml', *args.force_yml] if args.force_yml else [])


def launch(args: argparse.Namespace) -> None:
    """Runs the ranks to their end; Ctrl-C and SIGTERM reach them, and they save first.

    Raises:
        UserError: The number is no count of ranks, a launcher is given too, or a rank failed (it has said why).
    """
    if args.nproc < 1 or args.launcher != 'none':
        raise UserError(
            f'--nproc: expected a number from 1 on, without --launcher; found {args.nproc}, {args.launcher}.'
        )
    process = subprocess.Popen(rank_command(args))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    status = process.wait()
    if status != 0:
        raise UserError(f'The ranks ended with status {status}; what went wrong, or how to go on, is printed above.')
