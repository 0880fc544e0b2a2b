"""Experiment 3: AIL against its parts, FSRCNN x2 on luminance from random weights.

    export BASICSR_EXT_BENCH_DIR=FOLDER
    python bench/results/ail.py --minutes 60 --seeds 3 --device cuda --jobs 4 --root results

Four rounds, each with a learning rate that goes to 0:

- ``plain``: squared errors, one annealing over the whole training.
- ``ones``: the restarts of AIL's rounds, and an importance of 1 everywhere.
- ``AIL``: the paper's form, with importance from the published teacher, VDSR (``weights/ail_tea_vdsr.pth``).
- ``L1``: as ``ones``, with absolute errors, which count large ones less, too.
- ``L1 twice as long``: for equal compute, since AIL runs two networks over all training images in every round.

Published weights are compared by ``published.py``. Rules and data: ``study.py``.
"""

from __future__ import annotations

import sys
from typing import Any

import study
from study import Run, Settings, Study

SCALE = 2
POINTS = 20
BATCH = 16
ROUNDS = 4
STEP = 1 / 3  # lambda: every map has reached 1 in the last round, as after the paper's ten updates of 0.15
TEACHER = {'type': 'VDSR', 'num_feat': 64, 'upscale': SCALE}
ARMS = ('plain', 'ones', 'AIL', 'L1')
LONG = 'L1 twice as long'
WEIGHTS = 'ail_tea_vdsr.pth'  # of the teacher


def runs(settings: Settings) -> list[Run]:
    """All arms seed by seed, then the longer trainings."""
    found = [Run(arm, seed, complete(arm, seed, settings)) for seed in range(settings.seeds) for arm in ARMS]
    return found + [Run(LONG, seed, complete(LONG, seed, settings)) for seed in range(settings.seeds)]


def complete(arm: str, seed: int, settings: Settings) -> dict[str, Any]:
    """Options of a run."""
    length = settings.iterations * (2 if arm == LONG else 1)
    options = study.common_options(f'ail_{arm.replace(" ", "_")}_seed{seed}', seed, settings, POINTS, length)
    images = study.train_set(48, BATCH, f'train_Yx{SCALE}', f'train_Yx{SCALE}_small')
    options |= {
        'model_type': 'TrainingModel' if arm == 'plain' else 'AILModel',
        'scale': SCALE,
        'network_g': {'type': 'FSRCNN', 'in_channels': 1, 'upscale': SCALE},
        'datasets': {'train': {**images, 'geometry': arm == 'AIL'}},
    }
    options['train'] |= {
        'optim_g': {'type': 'Adam', 'lr': 1e-3},
        'pixel_opt': {'type': 'L1Loss' if arm.startswith('L1') else 'MSELoss', 'reduction': 'sum'},
    }
    if arm != 'plain':
        options['train']['ail'] = {'rounds': ROUNDS - 1, 'round_iterations': length // ROUNDS, 'step': STEP}
        options['train']['scheduler'] = study.annealed(length // ROUNDS)
        if arm == 'AIL':
            teacher = {'network': TEACHER, 'weights': f'weights/{WEIGHTS}'}
            options['train']['ail'] |= {'form': 'recursive', 'teacher': teacher, 'pictures': []}
        else:
            options['train']['ail'] |= {'form': 'direct', 'initialization': 'ones'}
    return options


def prepare(settings: Settings) -> None:
    """Makes the stores, and links the published weights."""
    study.link_weights(settings, WEIGHTS)
    study.make_stores(settings, SCALE, luminance=True)


STUDY = Study('ail', __doc__.split('\n')[0], 3000, 3, POINTS, prepare, runs)

if __name__ == '__main__':
    sys.exit(study.main(STUDY))
