"""Command line of ``basicsr prepare``: only argparse is imported until a command runs."""

from __future__ import annotations

import argparse

from basicsr_ext.prepare.centroids_arguments import add_centroids
from basicsr_ext.prepare.check_arguments import add_check
from basicsr_ext.prepare.lmdb_arguments import add_lmdb
from basicsr_ext.prepare.lr_arguments import add_lr
from basicsr_ext.prepare.luma_arguments import add_luma
from basicsr_ext.prepare.noise_arguments import add_noise
from basicsr_ext.prepare.subimages_arguments import add_subimages


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the commands of ``basicsr prepare``.

    The parsed arguments carry ``run``, a function of the arguments that does the work.
    """
    commands = parser.add_subparsers(title='commands', dest='prepare_command', metavar='COMMAND', required=True)
    for add in (add_lr, add_lmdb, add_subimages, add_centroids, add_luma, add_noise, add_check):
        add(commands)
