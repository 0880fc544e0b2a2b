"""What tests of AIL share: a tiny image set with a teacher, and options."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import torch
from basicsr.archs import build_network
from run_helpers import TINY_EDSR, forked, run, sr_options, write_options, write_pairs


def write_ail_images(root: Path, photos: dict) -> Path:
    """Writes images and a random teacher, whose output is near the bicubic image."""
    write_pairs(root, photos)
    torch.manual_seed(3)
    torch.save({'params': build_network(TINY_EDSR).state_dict()}, root / 'teacher.pth')
    return root


def ail_options(images: Path, **ail) -> dict:
    """Three rounds of two iterations."""
    options = sr_options(images, model_type='AILModel')
    train = options['datasets']['train']
    train.pop('io_backend')
    train.update(type='PairedStoreDataset', geometry=True, output='uint8', dataset_enlarge_ratio=2)
    options['train'].update(
        total_iter=7,
        pixel_opt={'type': 'MSELoss', 'reduction': 'sum'},
        optim_g={'type': 'SGD', 'lr': 1e-3, 'momentum': 0.9},
        scheduler={'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1},
        grad_clip={'norm': 0.4},
        ail={
            'rounds': 2,
            'round_iterations': 2,
            'teacher': {'network': dict(TINY_EDSR), 'weights': str(images / 'teacher.pth')},
            **ail,
        },
    )
    options['val']['val_freq'] = 3
    options['logger'].update(print_freq=1, save_checkpoint_freq=1)
    return options


def train(root: Path, options: dict, *arguments: str) -> int:
    return forked(run, root, write_options(root / 'o.yml', options), *arguments)


def at_call(target: str, call: int, act: Callable[[], None]) -> None:
    """Does something right before a call of a method, ``module.Class.method``; for forked processes: nothing is put back."""
    module, cls, name = target.rsplit('.', 2)
    owner = getattr(importlib.import_module(module), cls)
    original, calls = getattr(owner, name), []

    def counted(*arguments, **keywords):
        calls.append(name)
        if len(calls) == call:
            act()
        return original(*arguments, **keywords)

    setattr(owner, name, counted)
