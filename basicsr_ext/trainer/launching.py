"""``basicsr train --nproc N``: several ranks on this machine."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from basicsr_ext.errors import Stopped, UserError

# Where they may come from: Ctrl-C, kill, a terminal that is closed.
_SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGHUP') if hasattr(signal, name))
_TOLD = 2  # exit status of a rank that has said what is wrong
_ALWAYS_ALLOWED = 8  # ranks on the CPU, also where it has fewer cores


def rank_command(args: argparse.Namespace) -> list[str]:
    """Returns the torchrun command for the arguments of ``basicsr train``.

    Args:
        args: Parsed arguments, with ``nproc``.
    """
    command = [
        sys.executable,
        '-m',
        'basicsr_ext.trainer.torchrun',
        str(os.getpid()),
        '--standalone',
        '--nproc_per_node',
        str(args.nproc),
    ]
    command += ['-m', 'basicsr_ext', 'train', '-opt', args.opt, '--launcher', 'pytorch']
    command += ['--auto_resume'] * args.auto_resume + ['--debug'] * args.debug
    return command + (['--force_yml', *args.force_yml] if args.force_yml else [])


def launch(args: argparse.Namespace) -> None:
    """Checks the options once, then runs the ranks to their end; Ctrl-C and SIGTERM reach them, and they save first.

    Raises:
        UserError: The number is no count of ranks that this machine can run, a launcher is given too, the options are
            wrong, or a rank failed (it has said why).
        Stopped: A signal ended the ranks.
    """
    if args.launcher != 'none':
        raise UserError(f'--nproc starts the ranks itself: leave out --launcher {args.launcher}, or --nproc.')
    if args.nproc < 1:
        raise UserError(f'--nproc: expected a number of ranks from 1 on, found {args.nproc}.')
    _check(args)
    # in a session of its own, so that a terminal's Ctrl-C reaches it once, and from here
    process = subprocess.Popen(rank_command(args), start_new_session=True)
    with _forwarding(process) as received:
        status = process.wait()
    if status != 0 and received:
        raise Stopped(None, received[0])
    if status == _TOLD:
        raise SystemExit(_TOLD)
    if status != 0:
        raise UserError(_reason(status))


def _reason(status: int) -> str:
    """Says what an exit status of :mod:`basicsr_ext.trainer.torchrun` means."""
    if 0 < status <= 128:
        return f'The ranks ended with status {status}; what went wrong is printed above.'
    number = -status if status < 0 else status - 128
    name = signal.Signals(number).name if number in set(signal.Signals) else f'signal {number}'
    if status < 0:
        return f'torchrun was ended by {name}. The ranks save and end by themselves; go on with --auto_resume.'
    likely = ' Most likely the memory did not suffice.' if name == 'SIGKILL' else ''
    return f'A rank was ended by {name}.{likely} Go on with --auto_resume.'


def _check(args: argparse.Namespace) -> None:
    """Finds mistakes before any rank is started, so that they are told once."""
    from basicsr_ext.checking import check_options
    from basicsr_ext.options.resolve import find_root
    from basicsr_ext.options.source import read_source
    from basicsr_ext.registration import register

    source = read_source(args.opt, args.force_yml)
    register()
    from basicsr_ext.distributed import resolve_num_gpu

    report = check_options(
        source,
        is_train=True,
        root=find_root(source.values),
        launcher='pytorch',
        auto_resume=args.auto_resume,
        ranks=args.nproc,
    )
    report.raise_problems()
    most, what = max(_ALWAYS_ALLOWED, os.cpu_count() or 1), 'make sense on the CPU of this machine'
    if resolve_num_gpu(report.get('num_gpu'), 'pytorch') > 0:
        import torch

        most, what = torch.cuda.device_count(), 'GPUs are there, of which each rank needs one'
    if args.nproc > most:
        raise UserError(f'--nproc: expected at most {most} ranks, since no more {what}; found {args.nproc}.')


@contextmanager
def _forwarding(process: subprocess.Popen) -> Iterator[list[int]]:
    """Passes the first signal on to the ranks; those that follow are left out, since the ranks are saving by then.

    Yields:
        The number of the signal that was passed on, once there was one.
    """
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        if not received:
            received.append(number)
            # a terminal that is closed would end the ranks before they save
            process.send_signal(number if number == signal.SIGINT else signal.SIGTERM)

    kept = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup ignores SIGHUP
    previous = {number: signal.signal(number, forward) for number in kept}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
