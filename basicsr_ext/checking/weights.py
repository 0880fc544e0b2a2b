"""Checks files of weights against the networks that they are for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from basicsr_ext.checking.networks import build_whole
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.structure import network_keys
from basicsr_ext.errors import UserError
from basicsr_ext.networks.weights import match_weights, read_weights
from basicsr_ext.options.problems import KeyPath, brief, shown_path


def check_weights(report: Report, resumes: bool) -> None:
    """Checks that files hold weights, and those of their networks.

    These are every ``path.pretrain_network_<name>``, and ``weights`` of each block that has a ``network`` too.

    Args:
        report: Takes the problems.
        resumes: Whether the run goes on from a checkpoint, so that its own networks start from no other weights.
    """
    for key in [] if resumes else network_keys(report):
        _check_pretrained(report, key)
    for path in [path for path in report.paths if path[-1] == 'weights']:
        if isinstance(report.get(*path[:-1], 'network'), Mapping) and report.has_no_problems(*path[:-1]):
            param_key = report.get(*path[:-1], 'param_key')
            _check_file(report, path, (*path[:-1], 'network'), param_key, exact_key=True)


def _check_pretrained(report: Report, key: str) -> None:
    path, letter = ('path', f'pretrain_{key}'), key.removeprefix('network_')
    settings = (f'pretrain_{key}_leave_out', f'strict_load_{letter}', f'param_key_{letter}')
    if report.get(*path) is None or not all(report.has_no_problems('path', name) for name in (path[-1], *settings)):
        return
    leave_out, strict, param_key = (report.get('path', name) for name in settings)
    _check_file(report, path, (key,), param_key or 'params', False, strict is not False, leave_out or ())


def _check_file(
    report: Report,
    path: KeyPath,
    network: KeyPath,
    param_key: str | None,
    exact_key: bool,
    strict: bool = True,
    leave_out: Sequence[str] = (),
) -> None:
    """Reads a file as a run does, and compares it with a network without memory, where one can be built."""
    file = os.path.expanduser(report.get(*path))
    try:
        weights = read_weights(file, param_key, exact_key)
        built = build_whole(report, network) if report.has_no_problems(*network) else None
        if built is not None:
            start_of = network[0] if path[0] == 'path' else None
            match_weights(built, weights, file, strict, leave_out, start_of)
    except UserError as error:
        report.error(path, str(error))
    except Exception as error:  # whatever published_keys() of a network makes of names that it does not expect
        reason = f'{type(error).__name__}: {brief(error)}'
        expected = report.get(*network, 'type')
        report.error(path, f'expected weights of {expected}, found others in {shown_path(file)} ({reason}).')
