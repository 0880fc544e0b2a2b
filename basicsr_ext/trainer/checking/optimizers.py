"""Checks the options of optimizers and schedulers, by making them for one number."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

from basicsr_ext.errors import UserError
from basicsr_ext.models import optimizers as known
from basicsr_ext.trainer.checking.kinds import BLOCK, FLAG, NUMBER, WEIGHT, Kind, integer, list_of, whole
from basicsr_ext.trainer.checking.networks import quiet
from basicsr_ext.trainer.checking.problems import KeyPath, brief
from basicsr_ext.trainer.checking.report import Report
from basicsr_ext.trainer.checking.signatures import arguments_of, check_arguments

_NO_CLOSURE = inspect.Parameter('closure', inspect.Parameter.KEYWORD_ONLY, default=None)
_ITERATIONS = list_of(whole(0), empty=True)
_OF_SCHEDULERS: dict[str, Kind] = {
    'milestones': _ITERATIONS,
    'periods': list_of(whole(1)),
    'restarts': _ITERATIONS,
    'restart_weights': list_of(NUMBER),
    'gamma': NUMBER,
    'eta_min': NUMBER,
    'last_epoch': integer(-1),
}


def _one_parameter() -> list[torch.nn.Parameter]:
    return [torch.nn.Parameter(torch.zeros(1))]


def check_optimizer(report: Report, path: KeyPath, by: str) -> None:
    """Checks the block of an optimizer.

    Args:
        report: Takes the problems.
        path: Of the block.
        by: The model that needs it.
    """
    block = report.block(*path)
    if report.get(*path) is None or (not block and report.is_sound(*path)):
        report.missing(path, BLOCK, by)
        return
    if not report.is_sound(*path):
        return
    try:
        optimizer = known.find_optimizer(block['type'])
    except UserError as error:
        report.error((*path, 'type'), str(error))
        return
    if inspect.signature(optimizer.step).parameters.get('closure', _NO_CLOSURE).default is inspect.Parameter.empty:
        report.error((*path, 'type'), f'expected an optimizer that steps once a gradient, found {optimizer.__name__}.')
    also: dict[str, Any] = {
        name: FLAG for name in known.accepted_arguments(optimizer) if name not in arguments_of(optimizer).kinds
    }
    check_arguments(report, path, optimizer, given=['params'], also={**also, 'lr': WEIGHT})
    if 'lr' not in block:
        report.missing((*path, 'lr'), WEIGHT, optimizer.__name__)
    if not report.is_sound(*path):
        return
    arguments = {key: value for key, value in block.items() if key not in ('type', 'lr')}
    try:
        with quiet():
            known.build_optimizer(block['type'], _one_parameter(), block['lr'], **arguments)
    except UserError as error:
        report.error(path, str(error))
    except Exception as error:  # whatever else a library's constructor makes of wrong arguments
        report.error(path, f'{optimizer.__name__} cannot be made with these options ({brief(error)}).')


def check_scheduler(report: Report, path: KeyPath, by: str) -> None:
    """Checks the block of a scheduler; arguments as of :func:`check_optimizer`."""
    block = report.block(*path)
    if report.get(*path) is None or (not block and report.is_sound(*path)):
        report.missing(path, BLOCK, by)
        return
    if not report.is_sound(*path):
        return
    try:
        scheduler = known.find_scheduler(block['type'])
    except UserError as error:
        report.error((*path, 'type'), str(error))
        return
    kinds = {name: kind for name, kind in _OF_SCHEDULERS.items() if name in arguments_of(scheduler).kinds}
    check_arguments(report, path, scheduler, given=['optimizer'], also=kinds)
    if not report.is_sound(*path):
        return
    try:
        with quiet():
            known.build_scheduler(torch.optim.SGD(_one_parameter(), lr=1.0), block)
    except UserError as error:
        report.error(path, str(error))
    except Exception as error:  # as above
        report.error(path, f'{scheduler.__name__} cannot be made with these options ({brief(error)}).')


def state_tensors(options: Mapping[str, Any]) -> int:
    """Returns how many tensors as large as a parameter an optimizer keeps for it, by taking a step.

    Args:
        options: Block of an optimizer, known to be right.
    """
    arguments = {key: value for key, value in options.items() if key not in ('type', 'lr')}
    parameter = torch.nn.Parameter(torch.zeros(2, 3))
    parameter.grad = torch.ones(2, 3)
    try:
        with quiet():
            optimizer = known.build_optimizer(options['type'], [parameter], options['lr'], **arguments)
            optimizer.step()
    except Exception:  # a few want a closure, or more than one parameter
        return 2
    kept = optimizer.state[parameter].values()
    return sum(1 for value in kept if isinstance(value, torch.Tensor) and value.shape == parameter.shape)
