"""PSPL and AIL against plain training, on real photographs, in a schedule that fits a CPU.

    export BASICSR_EXT_BENCH_DIR=FOLDER OMP_NUM_THREADS=1
    python bench/results/self_paced.py [--root self_paced] [--iterations 300] [--edsr_iterations 1500] [--scratch]

FOLDER holds ``train/T91`` (91 images), ``Set5/HR``, and, as they were published with AIL, ``weights/ail_tea_vdsr.pth``, the
teacher, and ``weights/ail_pre_vdsr_f13.pth``, a student that was trained plainly for the scales 2, 3 and 4. Trains, each
from the same seed, on the same patches in the same order, for the same number of iterations:

- that student, VDSR with 13 features, x2 alone, on luminance: plainly, with AIL's recursive form, and with its direct form
  (with ``--scratch``: from random weights, which AIL's authors call less stable);
- EDSR with 4 blocks of 16 features, x2, on RGB, from random weights: plainly, and with PSPL.

Set5 is only ever tested on: PSNR and SSIM of luminance that is not rounded, without a border of two pixels. Everything is
written into ``--root``, tables and a picture at last; what was stopped goes on when the same command is given again. The
schedule is scaled down:

- AIL: five trainings with four updates of the importance (the paper: eleven with ten), and lambda 0.25 (0.15), so that maps
  reach 1 as they do there. Batches of 16 (128), and a learning rate of 0.01 (0.1, as with ``--scratch``), which falls by ten
  after 60 and 85 percent of a round, or, plainly, of the whole training.
- PSPL: a step is as large a part of the training as the published 1000 iterations of 300,000.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import basicsr_ext
from basicsr_ext.errors import UserError
from basicsr_ext.prepare.lr import make_lr
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.report.curves import Curve, read_scalars
from basicsr_ext.report.tables import align, markdown_table

SCALE = 2
SEED = 0
UPDATES = 4  # of AIL's importance
LAMBDA = 0.25
POINTS = 10  # validations of a training
PUBLISHED_STEPS = 300  # of PSPL in a training
RUNS = {
    'VDSR-f13': ('plain', 'AIL recursive', 'AIL direct'),
    'EDSR-tiny': ('plain', 'PSPL'),
}
METRICS = {'psnr': 'PSNR', 'ssim': 'SSIM'}


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', default='self_paced', metavar='FOLDER', help='where everything is written')
    parser.add_argument('--iterations', type=int, default=300, metavar='N', help='of each training of VDSR-f13')
    parser.add_argument('--edsr_iterations', type=int, default=1500, metavar='N', help='of each training of EDSR-tiny')
    parser.add_argument(
        '--scratch', action='store_true', help='train VDSR-f13 from random weights, with a learning rate of 0.1'
    )
    args = parser.parse_args(arguments)
    lengths = {'VDSR-f13': args.iterations, 'EDSR-tiny': args.edsr_iterations}
    try:
        if min(lengths.values()) < 2 * (UPDATES + 1):
            raise UserError(f'--iterations: expected at least {2 * (UPDATES + 1)}.')
        bench, root = bench_folder(), Path(args.root).resolve()
        make_data(bench, root / 'datasets')
        seconds = {}
        for network, methods in RUNS.items():
            for method in methods:
                name = f'{network} {method}'
                start = time.perf_counter()
                options = OPTIONS[network](method, bench, root / 'datasets', lengths[network])
                if args.scratch and network == 'VDSR-f13':
                    options['path'] = {}
                    options['train']['optim_g']['lr'] = 0.1
                if not finished(root, options):
                    basicsr_ext.train(options, auto_resume=True, root=root)
                seconds[name] = time.perf_counter() - start
        curves = read_curves(root)
        text = report(curves, lengths, seconds)
        (root / 'results_ail_pspl.md').write_text(text, encoding='utf-8')
        draw(curves, root / 'results_ail_pspl.png')
    except UserError as error:
        print(f'self_paced: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{text}')
    return 0


# ---- data ------------------------------------------------------------------------------------------------------------


def bench_folder() -> Path:
    """Folder of images and weights, from the environment."""
    folder = os.environ.get('BASICSR_EXT_BENCH_DIR')
    if not folder or not Path(folder, 'train/T91').is_dir():
        raise UserError('BASICSR_EXT_BENCH_DIR: expected a folder with train/T91, Set5 and weights; see the docstring.')
    return Path(folder)


def make_data(bench: Path, datasets: Path) -> None:
    """Makes luminance at one size, and its enlargement, for VDSR; and LR images for EDSR."""
    datasets.mkdir(parents=True, exist_ok=True)
    for name, images in (('T91', bench / 'train/T91'), ('Set5', bench / 'Set5/HR')):
        luma = [datasets / f'{name}_luma.lmdb', datasets / f'{name}_luma_LQ.lmdb']
        if not luma[0].exists():
            make_luma([images], *luma, scales=[SCALE], factors=[1.0], num_workers=1)
        if not (datasets / f'{name}_HR.lmdb').exists():
            make_store(images, datasets / f'{name}_HR.lmdb', num_workers=1)
        if not (datasets / f'{name}_LR.lmdb').exists():
            make_lr(images, datasets / f'{name}_LR.lmdb', SCALE, num_workers=1)


# ---- options -----------------------------------------------------------------------------------------------------------


def common(name: str, length: int) -> dict[str, Any]:
    """What all trainings share."""
    metrics = {name: {'type': kind, 'crop_border': SCALE, 'test_y_channel': True} for name, kind in METRICS.items()}
    return {
        'name': name.replace(' ', '_'),
        'num_gpu': 0,
        'manual_seed': SEED,
        'path': {},
        'val': {'val_freq': length // POINTS, 'save_img': False, 'metrics': metrics},
        'logger': {'print_freq': length // POINTS, 'save_checkpoint_freq': length // POINTS, 'use_tb_logger': True},
    }


def vdsr_options(method: str, bench: Path, datasets: Path, length: int) -> dict[str, Any]:
    """VDSR with 13 features: SGD, clipped gradients and summed squared errors as in the paper; batches of 16."""
    decay = (0.6, 0.85)
    train: dict[str, Any] = {
        'optim_g': {'type': 'SGD', 'lr': 0.01, 'momentum': 0.9, 'weight_decay': 1e-4},
        'grad_clip': {'norm': 0.4},
        'pixel_opt': {'type': 'MSELoss', 'reduction': 'sum'},
        'total_iter': length,
    }
    span = length
    if method != 'plain':
        span = length // (UPDATES + 1)
        train['ail'] = {
            'form': method.removeprefix('AIL '),
            'rounds': UPDATES,
            'round_iterations': span,
            'step': LAMBDA,
            'teacher': {
                'network': {'type': 'VDSR', 'num_feat': 64, 'upscale': 1},
                'weights': str(bench / 'weights/ail_tea_vdsr.pth'),
            },
        }
    train['scheduler'] = {'type': 'MultiStepLR', 'milestones': [round(part * span) for part in decay], 'gamma': 0.1}

    def pair(name: str) -> dict[str, str]:
        return {
            'dataroot_gt': str(datasets / f'{name}_luma.lmdb'),
            'dataroot_lq': str(datasets / f'{name}_luma_LQ.lmdb'),
        }

    return {
        **common(f'VDSR-f13 {method}', length),
        'model_type': 'TrainingModel' if method == 'plain' else 'AILModel',
        'scale': 1,  # luminance is enlarged already
        'path': {'pretrain_network_g': str(bench / 'weights/ail_pre_vdsr_f13.pth')},
        'network_g': {'type': 'VDSR', 'num_feat': 13, 'upscale': 1},
        'datasets': {
            'train': {
                'name': 'T91', 'type': 'PairedStoreDataset', **pair('T91'), 'gt_size': 41, 'geometry': True,
                'num_worker_per_gpu': 0, 'batch_size_per_gpu': 16, 'dataset_enlarge_ratio': 100,
            },
            'val': {'name': 'Set5', 'type': 'PairedStoreDataset', **pair('Set5')},
        },
        'train': train,
    }  # fmt: skip


def edsr_options(method: str, bench: Path, datasets: Path, length: int) -> dict[str, Any]:
    """EDSR with 4 blocks of 16 features: Adam, L1 on [0, 255], batches of 16 with LR patches of 24."""
    plain = {'type': 'L1Loss', 'loss_weight': 255, 'reduction': 'mean'}
    paced = {**plain, 'type': 'PSPLLoss', 'step_iters': length / PUBLISHED_STEPS, 'data_range': 1 / 255}

    def pair(name: str) -> dict[str, str]:
        return {'dataroot_gt': str(datasets / f'{name}_HR.lmdb'), 'dataroot_lq': str(datasets / f'{name}_LR.lmdb')}

    return {
        **common(f'EDSR-tiny {method}', length),
        'model_type': 'TrainingModel',
        'scale': SCALE,
        'network_g': {
            'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_block': 4, 'upscale': SCALE,
            'res_scale': 1, 'img_range': 255.0, 'rgb_mean': [0.4488, 0.4371, 0.4040],
        },
        'datasets': {
            'train': {
                'name': 'T91', 'type': 'PairedStoreDataset', **pair('T91'), 'gt_size': 48,
                'output': 'uint8', 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 16, 'dataset_enlarge_ratio': 400,
            },
            'val': {'name': 'Set5', 'type': 'PairedStoreDataset', **pair('Set5')},
        },
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [2 * length // 3], 'gamma': 0.5},
            'pixel_opt': plain if method == 'plain' else paced,
            'total_iter': length,
        },
    }  # fmt: skip


OPTIONS = {'VDSR-f13': vdsr_options, 'EDSR-tiny': edsr_options}


def finished(root: Path, options: dict[str, Any]) -> bool:
    """Whether a training has ended before."""
    states = root / 'experiments' / options['name'] / 'training_states'
    return (states / f'{options["train"]["total_iter"]}.state').exists()


# ---- report ------------------------------------------------------------------------------------------------------------

Curves = dict[str, dict[str, dict[str, Curve]]]


def read_curves(root: Path) -> Curves:
    """Network -> method -> metric -> its curve on Set5."""
    return {
        network: {
            method: {
                metric: read_scalars(
                    root / 'tb_logger' / f'{network} {method}'.replace(' ', '_'), f'metrics/Set5/{metric}'
                )
                for metric in METRICS
            }
            for method in methods
        }
        for network, methods in RUNS.items()
    }


def report(curves: Curves, lengths: dict[str, int], seconds: dict[str, float]) -> str:
    """Sets tables in Markdown: scores at a few iterations."""
    blocks = []
    for network, methods in curves.items():
        shown = next(iter(methods.values()))['psnr'].iterations
        shown = [shown[i] for i in (len(shown) // 5 - 1, len(shown) // 2 - 1, len(shown) - 1)]
        head = [f'{network} x{SCALE}, Set5', *(f'iteration {iteration}' for iteration in shown)]
        rows = [head]
        for method, metrics in methods.items():
            values = [dict(zip(*curve, strict=True)) for curve in metrics.values()]
            rows.append([method, *(f'{values[0][i]:.2f} / {values[1][i]:.4f}' for i in shown)])
        print(align(rows))
        blocks.append(markdown_table(rows))
    times = ', '.join(f'{name} {value:.0f} s' for name, value in seconds.items())
    return '\n\n'.join(blocks) + f'\n\n{lengths}; {times}\n'


def draw(curves: Curves, file: Path) -> None:
    """Draws PSNR over training, a panel for each network."""
    from matplotlib.figure import Figure

    from basicsr_ext.report.pictures import draw_curves

    figure = Figure(figsize=(9, 3), layout='constrained')
    for axes, (network, methods) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        draw_curves(
            axes,
            {method: metrics['psnr'] for method, metrics in methods.items()},
            f'{network} x{SCALE}: PSNR on Set5 (dB)',
        )
    figure.savefig(file, dpi=90)


if __name__ == '__main__':
    sys.exit(main())
