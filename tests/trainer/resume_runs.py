"""What runs that are stopped and resumed share."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from run_helpers import eco_options, gan_options, real_esrgan_options, sr_options

from basicsr_ext.cli.main import main
from basicsr_ext.trainer.stopping import StopRequests


def make_options(images: Path, model: str) -> dict:
    """A run of 7 iterations in epochs of 5, validated and saved every 3 and 2, with EMA and a guard."""
    if model == 'ECOModel':
        options = eco_options(images, noise_sigma=0.01)
        options['train'].update(guard={}, grad_clip={'value': 0.1})
    elif model == 'SRModel':
        options = sr_options(images)
    elif model == 'RealESRGANModel':
        options = real_esrgan_options(images)
    else:
        options = gan_options(images, model)
    options['train'].update(total_iter=7, ema_decay=0.9)
    options['train']['scheduler'] = {'type': 'MultiStepLR', 'milestones': [2, 5], 'gamma': 0.5}
    options['val']['val_freq'] = 3
    options['datasets']['train']['dataset_enlarge_ratio'] = 2
    options['logger'].update(print_freq=1, save_checkpoint_freq=2)
    return options


def at_call(hook: str, call: int, act: Callable[[], None]) -> None:
    """Does something right before a call of a function in training; for forked processes, since nothing is put back.

    Args:
        hook: ``module.function`` or ``module.Class.method``.
        call: Which one, counted from 1 since the options were checked: that builds and tries much of a run, too.
        act: What to do.
    """
    owner_name, _, name = hook.rpartition('.')
    try:
        owner = importlib.import_module(owner_name)
    except ImportError:
        module, _, cls = owner_name.rpartition('.')
        owner = getattr(importlib.import_module(module), cls)
    original, enter, calls = getattr(owner, name), StopRequests.__enter__, []

    def counted(*arguments, **keywords):
        if calls:
            calls.append(hook)
            if len(calls) == call + 1:
                act()
        return original(*arguments, **keywords)

    def start_counting(self):
        calls.append('start')
        return enter(self)

    setattr(owner, name, counted)
    StopRequests.__enter__ = start_counting


def train_rank(path: str, *arguments: str) -> None:
    """One rank of a training, to its end."""
    torch.set_num_threads(1)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', *arguments]) == 0
