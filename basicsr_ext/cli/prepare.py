"""Command line of ``basicsr prepare``: only argparse is imported until a command runs."""

from __future__ import annotations

import argparse

from basicsr_ext.cli.prepare_centroids import add_centroids
from basicsr_ext.cli.prepare_check import add_check
from basicsr_ext.cli.prepare_lmdb import add_lmdb
from basicsr_ext.cli.prepare_lr import add_lr
from basicsr_ext.cli.prepare_luma import add_luma
from basicsr_ext.cli.prepare_noise import add_noise
from basicsr_ext.cli.prepare_subimages import add_subimages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of ``basicsr prepare``.

    The parsed arguments carry ``run``, a function of the arguments that does the work.
    """
    commands = parser.add_subparsers(title='commands', dest='prepare_command', metavar='COMMAND', required=True)
    for add in (add_lr, add_lmdb, add_subimages, add_centroids, add_luma, add_noise, add_check):
        add(commands)
