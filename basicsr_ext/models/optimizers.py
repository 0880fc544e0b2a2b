"""Optimizers and schedulers by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from basicsr.models import lr_scheduler as basicsr_schedulers

from basicsr_ext.errors import UserError
from basicsr_ext.options.closest import closest_names

# What every optimizer of pytorch_optimizer reads from its groups, though signatures hide it behind **kwargs.
_HIDDEN = {'pytorch_optimizer': ['adam_debias', 'adanorm', 'adanorm_r']}

SCHEDULERS = {
    'MultiStepLR': basicsr_schedulers.MultiStepRestartLR,
    'MultiStepRestartLR': basicsr_schedulers.MultiStepRestartLR,
    'CosineAnnealingRestartLR': basicsr_schedulers.CosineAnnealingRestartLR,
}


def find_optimizer(name: str) -> type[torch.optim.Optimizer]:
    """Looks a class up in torch.optim, then in pytorch_optimizer; upper and lower case are alike."""
    import pytorch_optimizer

    candidates: dict[str, type[torch.optim.Optimizer]] = {}
    for library in (pytorch_optimizer, torch.optim):  # torch's own win
        for key, value in vars(library).items():
            if inspect.isclass(value) and issubclass(value, torch.optim.Optimizer) and not inspect.isabstract(value):
                candidates[key.lower()] = value
    if name.lower() in candidates:
        return candidates[name.lower()]
    close = closest_names(name, [cls.__name__ for cls in candidates.values()])
    hint = f' Close names: {", ".join(close)}.' if close else ''
    raise UserError(f'Optimizer {name}: expected a class of torch.optim or pytorch_optimizer, found none.{hint}')


def accepted_arguments(cls: type[torch.optim.Optimizer]) -> list[str]:
    """Names of the options that an optimizer takes."""
    accepted = [key for key in inspect.signature(cls).parameters if key not in ('params', 'kwargs')]
    return accepted + _HIDDEN.get(cls.__module__.partition('.')[0], [])


def build_optimizer(name: str, params: Iterable, lr: float, **arguments: Any) -> torch.optim.Optimizer:
    """Builds an optimizer of torch.optim or pytorch_optimizer.

    Args:
        name: Class name, such as ``Adam`` or ``Lamb``.
        params: Parameters or parameter groups.
        lr: Learning rate.
        **arguments: What else the class takes; ``betas`` may be a list, as YAML gives it. pytorch_optimizer's ``Lamb``
            corrects the bias of the first moment unless ``adam_debias: true`` is given; the LAMB that ECO was published
            with corrects none.

    Raises:
        UserError: No such class, or an argument that it does not take.
    """
    cls = find_optimizer(name)
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()}
    accepted = accepted_arguments(cls)
    unknown = [key for key in arguments if key not in accepted]
    if unknown:
        raise UserError(f'Optimizer {cls.__name__} takes no {", ".join(unknown)}; it takes {", ".join(accepted)}.')
    try:
        return cls(params, lr=float(lr), **arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f'Optimizer {cls.__name__}: {error}') from None


def build_scheduler(optimizer: torch.optim.Optimizer, options: Mapping[str, Any]) -> Any:
    """Builds a scheduler that steps once an iteration: one of BasicSR's, of torch or of pytorch_optimizer.

    Args:
        optimizer: Whose learning rates it sets.
        options: ``type`` and the class's arguments; not changed.

    Raises:
        UserError: Unknown type or arguments.
    """
    arguments = dict(options)
    name = str(arguments.pop('type', None))
    cls = find_scheduler(name)
    try:
        return cls(optimizer, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f'Scheduler {name}: {error}') from None


def find_scheduler(name: str) -> Any:
    """BasicSR's names come first: its MultiStepLR takes restarts."""
    import pytorch_optimizer.lr_scheduler

    if name in SCHEDULERS:
        return SCHEDULERS[name]
    known = {}
    for library in (pytorch_optimizer.lr_scheduler, torch.optim.lr_scheduler):
        for key, value in vars(library).items():
            if inspect.isclass(value) and issubclass(value, torch.optim.lr_scheduler.LRScheduler):
                known[key] = value
    for unfit in ('ReduceLROnPlateau', 'LRScheduler', 'SequentialLR', 'ChainedScheduler'):  # need more than numbers
        known.pop(unfit, None)
    if name not in known:
        close = closest_names(name, [*SCHEDULERS, *known]) or list(SCHEDULERS)
        raise UserError(
            f'Scheduler {name}: expected one of BasicSR, torch or pytorch_optimizer, such as {", ".join(close)}.'
        )
    return known[name]
