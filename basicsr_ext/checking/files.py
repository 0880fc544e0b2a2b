"""Third pass: files and folders that options name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from basicsr_ext.checking.report import Report
from basicsr_ext.options.problems import KeyPath, shown_path


def check_files(report: Report, root: Path, resumes: bool) -> None:
    """Checks that everything that options name is there.

    Args:
        report: Knows which options are paths.
        root: Folder in which the run makes its folders.
        resumes: Whether the run goes on from a checkpoint, so that it starts from no other weights.
    """
    for path, value in report.paths.items():
        key = str(path[-1])
        if key == 'root':
            continue  # checked below
        if key.startswith('dataroot'):
            _check_data(report, path, value)
        elif key == 'resume_state':
            if not resumes:
                _check_file(report, path, value, 'a training state')
        elif key.startswith('pretrain_network_'):
            if not resumes and report.get('path', 'resume_state') is None:
                _check_file(report, path, value, 'a file of weights')
        else:
            _check_file(report, path, value, 'a file')
    _check_root(report, root)


def is_lmdb(report: Report, path: KeyPath) -> bool:
    """Whether a stock dataset reads LMDBs."""
    return report.get(*path, 'io_backend', 'type') == 'lmdb'


def _check_file(report: Report, path: KeyPath, value: str, what: str) -> None:
    file = os.path.expanduser(value)
    if os.path.isdir(file):
        report.error(path, f'expected {what}, found the folder {shown_path(value)}.')
    elif not os.path.isfile(file):
        report.error(path, f'expected {what}, found nothing at {shown_path(value)}{_seen_from(value)}.')


def _check_data(report: Report, path: KeyPath, value: str) -> None:
    folder = os.path.expanduser(value)
    block = path[:-1]
    if os.path.isfile(folder):
        report.error(path, f'expected a folder of images or an LMDB, found the file {shown_path(value)}.')
    elif not os.path.isdir(folder):
        report.error(
            path, f'expected a folder of images or an LMDB, found nothing at {shown_path(value)}{_seen_from(value)}.'
        )
    elif is_lmdb(report, block):
        missing = [name for name in ('data.mdb', 'meta_info.txt') if not os.path.isfile(os.path.join(folder, name))]
        if not value.endswith('.lmdb') or missing:
            lacks = f', which lacks {" and ".join(missing)}' if missing else ''
            report.error(
                path, f'expected an LMDB of BasicSR, whose name ends with .lmdb, found {shown_path(value)}{lacks}.'
            )
    elif report.get(*block, 'io_backend') is not None and os.path.isfile(os.path.join(folder, 'data.mdb')):
        report.error((*block, 'io_backend', 'type'), f'expected lmdb, since {shown_path(value)} is an LMDB.')


def _check_root(report: Report, root: Path) -> None:
    given: Any = report.get('path', 'root')
    path = ('path', 'root') if given is not None else ()
    if not report.has_no_problems('path', 'root'):
        return
    if not root.is_dir():
        report.error(
            path, f'expected a folder in which to make the folders of the run, found none at {shown_path(root)}.'
        )
    elif not os.access(root, os.W_OK | os.X_OK):
        report.error(path, f'expected a folder that can be written to, found {shown_path(root)}, which cannot.')


def _seen_from(value: str) -> str:
    return '' if os.path.isabs(os.path.expanduser(value)) else f', seen from {shown_path(os.getcwd())}'
