"""Experiment 1: ECO against its objectives' parts, EDSR with 4 blocks of 16 features, x4.

    export BASICSR_EXT_BENCH_DIR=FOLDER
    python bench/results/eco.py --minutes 60 --seeds 5 --device cuda --jobs 6 --root results

Batches of 4: plain training ("vanilla"), towards centroids ("kd"), between noise-free pairs ("noise_free"), and ECO.
Batches of 16, three seeds: vanilla, kd and ECO. For more equal compute, since a teacher costs more than a training:
vanilla twice as long. The teacher is EDSR with 16 blocks of 64 features, trained plainly on the same images from
another seed; its centroids are made once. Rules and data: ``study.py``.
"""

from __future__ import annotations

import sys
from typing import Any

import study
from study import Run, Settings, Study

SCALE = 4
POINTS = 20
BATCHES = {4: ('vanilla', 'kd', 'noise_free', 'eco'), 16: ('vanilla', 'kd', 'eco')}
SEEDS_OF_LARGE = 3  # of the large batch
LONG = 'vanilla twice as long'
TEACHER = {'name': 'eco_teacher', 'seed': 1000, 'blocks': 16, 'features': 64, 'batch': 16, 'lr': 4e-4}
STUDENT = {'blocks': 4, 'features': 16, 'lr': 1e-3}


def runs(settings: Settings) -> list[Run]:
    """The teacher, then all arms seed by seed, then the longer trainings."""
    teacher_options = complete(TEACHER['name'], 'vanilla', TEACHER['seed'], TEACHER['batch'], settings, TEACHER)
    found = [Run('teacher', TEACHER['seed'], teacher_options, finish=make_centroids)]
    for seed in range(settings.seeds):
        for batch, objectives in BATCHES.items():
            for objective in objectives if batch == 4 or seed < SEEDS_OF_LARGE else ():
                name = f'eco_b{batch}_{objective}_seed{seed}'
                options = complete(name, objective, seed, batch, settings, STUDENT)
                after = '' if objective == 'vanilla' else TEACHER['name']
                found.append(Run(f'batch {batch}, {objective}', seed, options, after))
    for seed in range(settings.seeds):
        options = complete(
            f'eco_b4_long_seed{seed}', 'vanilla', seed, 4, settings, STUDENT, length=2 * settings.iterations
        )
        found.append(Run(f'batch 4, {LONG}', seed, options))
    return found


def complete(
    name: str,
    objective: str,
    seed: int,
    batch: int,
    settings: Settings,
    network: dict[str, Any],
    length: int | None = None,
) -> dict[str, Any]:
    """Options of a run."""
    options = study.common_options(name, seed, settings, POINTS, length)
    images = study.train_set(96, batch, 'train_HR', f'train_LRx{SCALE}')
    if objective != 'vanilla':
        images |= {
            'type': 'PairedCentroidDataset',
            'dataroot_centroid': 'datasets/centroid.lmdb',
            'dataroot_centroid_lq': f'datasets/centroid_LRx{SCALE}.lmdb',
        }
    options |= {
        'model_type': 'ECOModel',
        'scale': SCALE,
        'network_g': study.edsr(network['blocks'], network['features'], SCALE),
        'datasets': {'train': {**images, 'output': 'uint8'}},
    }
    options['train'] |= {
        'eco': {'objective': objective},
        'optim_g': {'type': 'Adam', 'lr': network['lr']},
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 255},
    }
    return options


def make_centroids(settings: Settings) -> None:
    """Runs the trained teacher over the training images."""
    from basicsr_ext.prepare.centroids import make_centroids

    datasets = settings.root / 'datasets'
    output = datasets / 'centroid.lmdb'
    if not output.exists():
        make_centroids(
            datasets / f'train_LRx{SCALE}.lmdb',
            output,
            datasets / f'centroid_LRx{SCALE}.lmdb',
            network=None,
            weights=settings.root / f'experiments/{TEACHER["name"]}/models/net_g_latest.pth',
            scale=SCALE,
            device=settings.device,
            num_workers=1,  # a process that trains may have no further ones
        )


def prepare(settings: Settings) -> None:
    """Makes the stores."""
    study.make_stores(settings, SCALE)


STUDY = Study('eco', __doc__.split('\n')[0], 3000, 5, POINTS, prepare, runs)

if __name__ == '__main__':
    sys.exit(study.main(STUDY))
