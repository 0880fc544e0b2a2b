"""Experiment 2: PSPL and what it does besides, EDSR with 4 blocks of 16 features, x2, batches of 16.

    export BASICSR_EXT_BENCH_DIR=FOLDER
    python bench/results/pspl.py --minutes 60 --seeds 3 --device cuda --jobs 4 --root results

- ``plain``: L1.
- ``PSPL``: a step is as large a part of the training as the published 1000 iterations of 300,000.
- ``PSPL, slow``: a step is a third of the training, 1000 iterations of 3000: the attention fades until the end, and the
  training starts late, since the loss is almost 0 before.
- ``plain, late``: L1 that counts from the iteration on at which the slow PSPL starts, and is 0 before.
- ``no fading``: attention of a constant width, that of step 1.

Rules and data: ``study.py``.
"""

from __future__ import annotations

import sys
from typing import Any

import study
from study import Run, Settings, Study

SCALE = 2
POINTS = 40
BATCH = 16
PUBLISHED_STEPS = 300  # in a training
SLOW_STEPS = 3
# Part of a step after which PSPL starts: with seed 100 and steps of 1000 iterations, iteration 215 was the first of which the
# median weight moved by half its learning rate. Before, Adam's eps holds gradients down that are smaller still.
START = 0.215


def register() -> None:
    """Registers the loss of ``plain, late``."""
    import torch
    from basicsr.losses.basic_loss import L1Loss
    from basicsr.utils.registry import LOSS_REGISTRY

    class LateL1Loss(L1Loss):
        """L1 that is 0 before an iteration, counted from 1."""

        def __init__(self, start: int, loss_weight: float = 1.0, reduction: str = 'mean'):
            super().__init__(loss_weight, reduction)
            self.start, self.iteration = start, 0

        def set_iteration(self, iteration: int) -> None:
            self.iteration = iteration

        def forward(self, pred: torch.Tensor, target: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(pred, target, weight) * float(self.iteration >= self.start)

    if 'LateL1Loss' not in LOSS_REGISTRY:
        LOSS_REGISTRY.register(LateL1Loss)


def losses(iterations: int) -> dict[str, dict[str, Any]]:
    """``pixel_opt`` of each arm."""
    slow = iterations / SLOW_STEPS
    paced = {'type': 'PSPLLoss', 'data_range': 1 / 255}
    arms = {
        'plain': {'type': 'L1Loss'},
        'PSPL': {**paced, 'step_iters': iterations / PUBLISHED_STEPS},
        'PSPL, slow': {**paced, 'step_iters': slow},
        'plain, late': {'type': 'LateL1Loss', 'start': round(START * slow)},
        'no fading': {**paced, 'alpha': 0.0, 'beta': 1.0},
    }
    return {arm: {**loss, 'loss_weight': 255.0} for arm, loss in arms.items()}


def runs(settings: Settings) -> list[Run]:
    """All arms, seed by seed."""
    return [
        Run(arm, seed, complete(arm, loss, seed, settings))
        for seed in range(settings.seeds)
        for arm, loss in losses(settings.iterations).items()
    ]


def complete(arm: str, loss: dict[str, Any], seed: int, settings: Settings) -> dict[str, Any]:
    """Options of a run."""
    options = study.common_options(
        f'pspl_{arm.replace(", ", "_").replace(" ", "_")}_seed{seed}', seed, settings, POINTS
    )
    options |= {
        'model_type': 'TrainingModel',
        'scale': SCALE,
        'network_g': study.edsr(4, 16, SCALE),
        'datasets': {'train': {**study.train_set(96, BATCH, 'train_HR', f'train_LRx{SCALE}'), 'output': 'uint8'}},
    }
    options['train'] |= {'optim_g': {'type': 'Adam', 'lr': 1e-3}, 'pixel_opt': loss}
    return options


def prepare(settings: Settings) -> None:
    """Makes the stores."""
    study.make_stores(settings, SCALE)


STUDY = Study('pspl', __doc__.split('\n')[0], 3000, 3, POINTS, prepare, runs, register)

if __name__ == '__main__':
    sys.exit(study.main(STUDY))
