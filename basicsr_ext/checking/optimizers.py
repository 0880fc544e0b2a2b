"""Checks the options of optimizers and schedulers, by making them and taking steps with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch

from basicsr_ext.checking.networks import quiet
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.signatures import arguments_of, check_arguments
from basicsr_ext.errors import UserError
from basicsr_ext.models import optimizers as known
from basicsr_ext.options.kinds import BLOCK, FLAG, NUMBER, WEIGHT, Kind, integer, list_of, whole
from basicsr_ext.options.problems import KeyPath, brief

_Made = TypeVar('_Made')
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


_STEPS = 3  # of an optimizer: some fail in their first, some when they meet what they kept
_SCHEDULER_STEPS = 1000


def check_optimizer(report: Report, path: KeyPath, by: str) -> torch.optim.Optimizer | None:
    """Checks the block of an optimizer, and takes a few steps with it.

    Args:
        report: Takes the problems.
        path: Of the block.
        by: The model that needs it.

    Returns:
        The optimizer, over one small parameter; ``None`` where something is wrong.
    """
    optimizer = _find(report, path, by, known.find_optimizer)
    if optimizer is None:
        return None
    if inspect.signature(optimizer.step).parameters.get('closure', _NO_CLOSURE).default is inspect.Parameter.empty:
        report.error((*path, 'type'), f'expected an optimizer that steps once a gradient, found {optimizer.__name__}.')
    also: dict[str, Any] = {
        name: FLAG for name in known.accepted_arguments(optimizer) if name not in arguments_of(optimizer).kinds
    }
    block = report.block(*path)
    check_arguments(report, path, optimizer, given=['params'], also={**also, 'lr': WEIGHT})
    if 'lr' not in block:
        report.missing((*path, 'lr'), WEIGHT, optimizer.__name__)
    if block.get('capturable') is True and _on_cpu(report):
        report.error((*path, 'capturable'), 'expected false, since this run uses no GPU.')
    return _check_made(report, path, optimizer.__name__, lambda: stepped_optimizer(block))


def check_scheduler(
    report: Report, path: KeyPath, by: str, optimizers: Sequence[torch.optim.Optimizer | None] = ()
) -> None:
    """Checks the block of a scheduler, and steps it to the end of the run, or as far as that is quick.

    Args:
        report: Takes the problems.
        path: Of the block.
        by: The model that needs it.
        optimizers: Those whose learning rates it will set, as :func:`check_optimizer` gave them.
    """
    scheduler = _find(report, path, by, known.find_scheduler)
    if scheduler is None:
        return
    kinds = {name: kind for name, kind in _OF_SCHEDULERS.items() if name in arguments_of(scheduler).kinds}
    check_arguments(report, path, scheduler, given=['optimizer'], also=kinds)
    total = int(report.get('train', 'total_iter')) if report.has_no_problems('train', 'total_iter') else 1
    _check_periods(report, path, total)
    known_to_work = [made for made in optimizers if made is not None] or [stepped_optimizer({'type': 'Adam', 'lr': 1})]
    for optimizer in known_to_work:
        _check_made(
            report, path, scheduler.__name__, lambda made=optimizer: _step_to_the_end(made, report.block(*path), total)
        )


def _check_periods(report: Report, path: KeyPath, total: int) -> None:
    """Periods of BasicSR's cosine restarts that last longer than the training are a mistake; shorter ones fail."""
    periods = report.get(*path, 'periods')
    if report.has_no_problems(*path) and isinstance(periods, list) and sum(periods) > total:
        report.warn(
            (*path, 'periods'),
            f'they last {sum(periods):,} iterations and train.total_iter is {total:,}: the learning rate will not come to '
            'its end.',
        )


def stepped_optimizer(options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Builds an optimizer over the weights of a small convolution, and takes a few steps as training takes them.

    Args:
        options: Block of an optimizer.
    """
    parameter = torch.nn.Parameter(torch.linspace(-1, 1, 4 * 3 * 3 * 3).reshape(4, 3, 3, 3))
    # works on GPUs only, where the run is
    arguments = {key: value for key, value in options.items() if key not in ('type', 'lr', 'capturable')}
    optimizer = known.build_optimizer(options['type'], [parameter], options['lr'], **arguments)
    for _ in range(_STEPS):
        optimizer.zero_grad(set_to_none=True)
        parameter.square().mean().backward()
        optimizer.step()
    return optimizer


def state_tensors(options: Mapping[str, Any]) -> int:
    """Returns how many tensors as large as a parameter an optimizer keeps for it.

    Args:
        options: Block of an optimizer, known to be right.
    """
    with quiet():
        optimizer = stepped_optimizer(options)
    (parameter,) = (parameter for group in optimizer.param_groups for parameter in group['params'])
    kept = optimizer.state[parameter].values()
    return sum(1 for value in kept if isinstance(value, torch.Tensor) and value.shape == parameter.shape)


def _find(report: Report, path: KeyPath, by: str, find: Callable[[str], Any]) -> Any:
    """Looks up the class that a block names; notes a problem where the block is missing or names none."""
    block = report.block(*path)
    if report.get(*path) is None or (not block and report.has_no_problems(*path)):
        report.missing(path, BLOCK, by)
        return None
    if not report.has_no_problems(*path):
        return None
    try:
        return find(block['type'])
    except UserError as error:
        report.error((*path, 'type'), str(error))
        return None


def _check_made(report: Report, path: KeyPath, name: str, make: Callable[[], _Made]) -> _Made | None:
    """Makes and tries what a block describes, where nothing is known to be wrong with it."""
    if not report.has_no_problems(*path):
        return None
    try:
        with quiet():
            return make()
    except UserError as error:
        report.error(path, str(error))
    except Exception as error:  # whatever else a library makes of wrong arguments, or of being trained with
        reason = brief(str(error).strip().partition('\n')[0]) or 'no reason given'
        report.error(path, f'{name} does not work with these options ({type(error).__name__}: {reason}).')
    return None


def _step_to_the_end(optimizer: torch.optim.Optimizer, options: Mapping[str, Any], total: int) -> None:
    """Builds a scheduler and steps it as a run does, once before each iteration but the first.

    Of long runs, these are the first steps and the last one.
    """
    scheduler = known.build_scheduler(optimizer, options)
    last = total - 1
    for step in [*range(1, min(last, _SCHEDULER_STEPS) + 1), *([last] if last > _SCHEDULER_STEPS else [])]:
        scheduler.last_epoch = step - 1
        try:
            scheduler.step()
        except Exception as error:
            reason = brief(str(error).strip().partition('\n')[0])
            if isinstance(periods := options.get('periods'), list):
                reason = f'periods last {sum(periods):,} iterations'
            raise UserError(
                f'{type(scheduler).__name__} has no learning rate for iteration {step + 1:,}, and train.total_iter is '
                f'{total:,} ({reason}).'
            ) from None


def _on_cpu(report: Report) -> bool:
    num_gpu = report.get('num_gpu')
    return not torch.cuda.is_available() if num_gpu == 'auto' else num_gpu == 0
