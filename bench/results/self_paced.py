"""PSPL and AIL against plain training, on real photographs, in a schedule that fits a CPU.

    export BASICSR_EXT_BENCH_DIR=FOLDER OMP_NUM_THREADS=1
    python bench/results/self_paced.py [--root self_paced] [--seeds 2] [--iterations 200] [--edsr_iterations 800]
    python bench/results/self_paced.py --scratch [--root self_paced] [--seeds 1] [--iterations 300]

FOLDER holds ``train/T91`` (91 images), ``train/BSDS500_train`` (199), ``Set5/HR``, and, as they were published with AIL,
``weights/ail_tea_vdsr.pth``, the teacher, and ``weights/ail_pre_vdsr_f13.pth``, a student that was trained plainly for the
scales 2, 3 and 4. Trains, for each seed on the same patches in the same order, for the same number of iterations:

- that student, VDSR with 13 features, x2 alone, on luminance: plainly; with the learning rate of AIL's rounds, but an
  importance of 1 everywhere ("ones"), which tells what importance does from what the restarts do; with AIL's recursive
  form; and with its direct form;
- EDSR with 4 blocks of 16 features, x2, on RGB, from random weights: plainly, and with PSPL;
- with ``--scratch`` instead of these: VDSR with 13 features from random weights, plainly, with ones, and with AIL's direct
  form; the latter once more with the paper's learning rate.

Training is on the middle 96x96 pixels of each image of T91 and BSDS500; Set5 is only ever tested on: PSNR and SSIM of
luminance that is not rounded, without a border of two pixels. Everything is written into ``--root``, tables and a picture at
last; what was stopped goes on when the same command is given again. The schedule is scaled down:

- AIL: five trainings with four updates of the importance (the paper: eleven with ten), and lambda 0.25 (0.15), so that maps
  reach 1 as they do there. Batches of 16 (128), and a learning rate of 0.01 (0.1), which falls by ten after 60 and 85 percent
  of a round, or, plainly, of the whole training.
- From random weights the sum of squares counts eight times, as if the batch were of 128 patches, and the learning rate falls
  once, by ten, after 85 percent. The row "lr 0.1" has neither: a learning rate of 0.1, falling after 60 and 85 percent.
  Whether it leaves the bicubic image in so short a training is a matter of chance: random weights make a large residual,
  and large steps take it to 0, where the gradients of twenty layers without biases all but vanish; and the pixels that
  would pull the residual away from there are those that round 0 gives little weight.
- PSPL: a step is as large a part of the training as the published 1000 iterations of 300,000.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import cv2

import basicsr_ext
from basicsr_ext.errors import UserError
from basicsr_ext.functional.psnr import psnr
from basicsr_ext.functional.ssim import ssim
from basicsr_ext.prepare.lr import make_lr
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.report.curves import Curve, read_scalars
from basicsr_ext.report.tables import align, markdown_table
from basicsr_ext.storage import open_store

SCALE = 2
SIDE = 96  # of the training images
UPDATES = 4  # of AIL's importance
LAMBDA = 0.25
POINTS = 10  # validations of a training
PUBLISHED_STEPS = 300  # of PSPL in a training
METRICS = {'psnr': 'PSNR', 'ssim': 'SSIM'}
Runs = dict[str, tuple[str, ...]]
RUNS: Runs = {'VDSR-f13': ('plain', 'ones', 'AIL recursive', 'AIL direct'), 'EDSR-tiny': ('plain', 'PSPL')}
UNSCALED = 'AIL direct, lr 0.1'
SCRATCH: Runs = {'VDSR-f13 from scratch': ('plain', 'ones', 'AIL direct', UNSCALED)}


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', default='self_paced', metavar='FOLDER', help='where everything is written')
    parser.add_argument('--seeds', type=int, metavar='N', help='trainings of each kind (2; with --scratch 1)')
    parser.add_argument('--iterations', type=int, metavar='N', help='of VDSR-f13 (200; with --scratch 300)')
    parser.add_argument('--edsr_iterations', type=int, default=800, metavar='N', help='of EDSR-tiny')
    parser.add_argument('--scratch', action='store_true', help='train VDSR-f13 from random weights, and nothing else')
    args = parser.parse_args(arguments)
    runs, name = (SCRATCH, 'results_ail_scratch') if args.scratch else (RUNS, 'results_ail_pspl')
    length, seeds = args.iterations or (300 if args.scratch else 200), args.seeds or (1 if args.scratch else 2)
    try:
        if min(length, args.edsr_iterations) < 2 * (UPDATES + 1):
            raise UserError(f'--iterations: expected at least {2 * (UPDATES + 1)}.')
        bench, root = bench_folder(), Path(args.root).resolve()
        make_data(bench, root / 'datasets')
        for seed in range(seeds):
            for network, methods in runs.items():
                for method in methods:
                    of_edsr = network == 'EDSR-tiny'
                    options = common(network, method, seed, args.edsr_iterations if of_edsr else length)
                    complete = edsr_options if of_edsr else vdsr_options
                    train(root, {**options, **complete(network, method, bench, root / 'datasets', options)})
        text = report(root, runs, seeds)
        (root / f'{name}.md').write_text(text, encoding='utf-8')
        draw(root, runs, seeds, root / f'{name}.png')
    except UserError as error:
        print(f'self_paced: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{text}')
    return 0


def train(root: Path, options: dict[str, Any]) -> None:
    """Trains, unless that has been done, and notes for how many seconds a processor was busy with it."""
    experiment, last = root / 'experiments' / options['name'], options['train']['total_iter']
    if (experiment / 'training_states' / f'{last}.state').exists():
        return
    start = time.process_time()
    basicsr_ext.train(options, auto_resume=True, root=root)
    (experiment / 'seconds.txt').write_text(f'{time.process_time() - start:.0f}\n')


# ---- data ------------------------------------------------------------------------------------------------------------


def bench_folder() -> Path:
    """Folder of images and weights, from the environment."""
    folder = os.environ.get('BASICSR_EXT_BENCH_DIR')
    if not folder or not Path(folder, 'train/T91').is_dir():
        raise UserError('BASICSR_EXT_BENCH_DIR: expected a folder with train/T91, Set5 and weights; see the docstring.')
    return Path(folder)


def make_data(bench: Path, datasets: Path) -> None:
    """Makes luminance at one size, and its enlargement, for VDSR; and LR images for EDSR."""
    train = datasets / 'T91_BSDS'
    if not train.exists():
        partial = train.with_suffix('.partial')
        partial.mkdir(parents=True, exist_ok=True)
        for source in ('T91', 'BSDS500_train'):
            for file in sorted(Path(bench, 'train', source).iterdir()):
                image = cv2.imread(str(file))
                top, left = ((length - SIDE) // 2 for length in image.shape[:2])
                middle = image[max(top, 0) :, max(left, 0) :][:SIDE, :SIDE]
                cv2.imwrite(str(partial / f'{source}_{file.stem}.png'), middle)
        partial.rename(train)
    for name, images in (('train', train), ('Set5', bench / 'Set5/HR')):
        luma = [datasets / f'{name}_luma.lmdb', datasets / f'{name}_luma_LQ.lmdb']
        if not luma[0].exists():
            make_luma([images], *luma, scales=[SCALE], factors=[1.0], num_workers=1)
        if not (datasets / f'{name}_HR.lmdb').exists():
            make_store(images, datasets / f'{name}_HR.lmdb', num_workers=1)
        if not (datasets / f'{name}_LR.lmdb').exists():
            make_lr(images, datasets / f'{name}_LR.lmdb', SCALE, num_workers=1)


# ---- options -----------------------------------------------------------------------------------------------------------


def name_of(network: str, method: str, seed: int) -> str:
    """Name of a training, and of its folders."""
    return f'{network} {method} seed{seed}'.replace(',', '').replace(' ', '_')


def common(network: str, method: str, seed: int, length: int) -> dict[str, Any]:
    """What all trainings share."""
    metrics = {name: {'type': kind, 'crop_border': SCALE, 'test_y_channel': True} for name, kind in METRICS.items()}
    return {
        'name': name_of(network, method, seed),
        'num_gpu': 0,
        'manual_seed': seed,
        'path': {},
        'train': {'total_iter': length},
        'val': {'val_freq': length // POINTS, 'save_img': False, 'metrics': metrics},
        'logger': {'print_freq': length // POINTS, 'save_checkpoint_freq': length // POINTS, 'use_tb_logger': True},
    }


def vdsr_options(network: str, method: str, bench: Path, datasets: Path, options: dict[str, Any]) -> dict[str, Any]:
    """VDSR with 13 features: SGD, clipped gradients and summed squared errors as in the paper; batches of 16."""
    scratch, unscaled = network not in RUNS, method == UNSCALED
    span = length = options['train']['total_iter']
    train: dict[str, Any] = {
        'optim_g': {'type': 'SGD', 'lr': 0.1 if unscaled else 0.01, 'momentum': 0.9, 'weight_decay': 1e-4},
        'grad_clip': {'norm': 0.4},
        'pixel_opt': {'type': 'MSELoss', 'reduction': 'sum', 'loss_weight': 8 if scratch and not unscaled else 1},
        'total_iter': length,
    }
    if method != 'plain':
        span = length // (UPDATES + 1)
        train['ail'] = {'rounds': UPDATES, 'round_iterations': span, 'step': LAMBDA}
        if method == 'ones':
            train['ail'] |= {'form': 'direct', 'initialization': 'ones'}
        else:
            weights = str(bench / 'weights/ail_tea_vdsr.pth')
            teacher = {'network': {'type': 'VDSR', 'num_feat': 64, 'upscale': 1}, 'weights': weights}
            train['ail'] |= {'form': method.split(',')[0].removeprefix('AIL '), 'teacher': teacher}
    parts = (0.85,) if scratch and not unscaled else (0.6, 0.85)
    milestones = [round(part * span) for part in parts]
    train['scheduler'] = {'type': 'MultiStepLR', 'milestones': milestones, 'gamma': 0.1}

    def pair(name: str) -> dict[str, str]:
        return {
            'dataroot_gt': str(datasets / f'{name}_luma.lmdb'),
            'dataroot_lq': str(datasets / f'{name}_luma_LQ.lmdb'),
        }

    return {
        'model_type': 'TrainingModel' if method == 'plain' else 'AILModel',
        'scale': 1,  # luminance is enlarged already
        'path': {} if scratch else {'pretrain_network_g': str(bench / 'weights/ail_pre_vdsr_f13.pth')},
        'network_g': {'type': 'VDSR', 'num_feat': 13, 'upscale': 1},
        'datasets': {
            'train': {
                'name': 'T91_BSDS', 'type': 'PairedStoreDataset', **pair('train'), 'gt_size': 41, 'geometry': True,
                'num_worker_per_gpu': 0, 'batch_size_per_gpu': 16, 'dataset_enlarge_ratio': 100,
            },
            'val': {'name': 'Set5', 'type': 'PairedStoreDataset', **pair('Set5')},
        },
        'train': train,
    }  # fmt: skip


def edsr_options(network: str, method: str, bench: Path, datasets: Path, options: dict[str, Any]) -> dict[str, Any]:
    """EDSR with 4 blocks of 16 features: Adam, L1 on [0, 255], batches of 16 with LR patches of 24."""
    length = options['train']['total_iter']
    plain = {'type': 'L1Loss', 'loss_weight': 255, 'reduction': 'mean'}
    paced = {**plain, 'type': 'PSPLLoss', 'step_iters': length / PUBLISHED_STEPS, 'data_range': 1 / 255}

    def pair(name: str) -> dict[str, str]:
        return {'dataroot_gt': str(datasets / f'{name}_HR.lmdb'), 'dataroot_lq': str(datasets / f'{name}_LR.lmdb')}

    return {
        'model_type': 'TrainingModel',
        'scale': SCALE,
        'network_g': {
            'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_block': 4, 'upscale': SCALE,
            'res_scale': 1, 'img_range': 255.0, 'rgb_mean': [0.4488, 0.4371, 0.4040],
        },
        'datasets': {
            'train': {
                'name': 'T91_BSDS', 'type': 'PairedStoreDataset', **pair('train'), 'gt_size': 48,
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


# ---- report ------------------------------------------------------------------------------------------------------------


def curves_of(root: Path, network: str, method: str, seeds: int, metric: str) -> list[Curve]:
    """Curves of a metric on Set5, one a seed."""
    folders = [root / 'tb_logger' / name_of(network, method, seed) for seed in range(seeds)]
    return [read_scalars(folder, f'metrics/Set5/{metric}') for folder in folders]


def mean_curve(curves: list[Curve]) -> Curve:
    """The mean of curves over the same iterations."""
    return Curve(curves[0].iterations, tuple(map(mean, zip(*(curve.values for curve in curves), strict=True))))


def bicubic(root: Path) -> str:
    """Mean PSNR and SSIM of what VDSR gets as input for Set5."""
    hr, enlarged = (open_store(root / 'datasets' / f'Set5_luma{suffix}.lmdb') for suffix in ('', '_LQ'))
    inside = (slice(SCALE, -SCALE), slice(SCALE, -SCALE))
    pairs = [(enlarged.read(key)[inside], hr.read(key)[inside]) for key in hr.keys()]
    return ' / '.join(f'{mean(score(*pair, 1.0) for pair in pairs):.{n}f}' for score, n in ((psnr, 2), (ssim, 4)))


def report(root: Path, runs: Runs, seeds: int) -> str:
    """Sets tables in Markdown: means over the seeds at a few iterations, each seed's last PSNR, and processor time."""
    blocks, seconds = [], 0
    for network, methods in runs.items():
        rows: list[list[str]] = []
        for method in methods:
            psnrs, ssims = (curves_of(root, network, method, seeds, metric) for metric in METRICS)
            of_psnr, of_ssim = mean_curve(psnrs), mean_curve(ssims)
            shown = [len(of_psnr.iterations) // part - 1 for part in (5, 2, 1)]
            if not rows:
                iterations = [f'iteration {of_psnr.iterations[i]}' for i in shown]
                rows = [[f'{network} x{SCALE}, Set5', *iterations, 'each seed at the end', 'minutes']]
            names = [name_of(network, method, seed) for seed in range(seeds)]
            busy = [int((root / 'experiments' / name / 'seconds.txt').read_text()) for name in names]
            last = ', '.join(f'{curve.values[-1]:.3f}' for curve in psnrs)
            rows.append(
                [
                    method,
                    *(f'{of_psnr.values[i]:.2f} / {of_ssim.values[i]:.4f}' for i in shown),
                    last,
                    f'{mean(busy) / 60:.1f}',
                ]
            )
            seconds += sum(busy)
        if network.startswith('VDSR'):
            rows.insert(1, ['bicubic, the input', *[bicubic(root)] * 3, '', ''])
        print(align(rows))
        blocks.append(markdown_table(rows))
    blocks.append(f'{seconds / 60:.0f} minutes of one processor in all.')
    rounds = root / 'experiments' / name_of('VDSR-f13', 'AIL recursive', 0) / 'importance/rounds.json'
    if 'VDSR-f13' in runs and rounds.exists():
        records = [
            ', '.join(f'{key} {value:.3g}' for key, value in record.items())
            for record in json.loads(rounds.read_text())
        ]
        blocks.append('Rounds of the recursive form:\n\n' + '\n'.join(f'- {record}' for record in records))
    return '\n\n'.join(blocks) + '\n'


def draw(root: Path, runs: Runs, seeds: int, file: Path) -> None:
    """Draws PSNR over training, the mean of the seeds, a panel for each network."""
    from matplotlib.figure import Figure

    from basicsr_ext.report.pictures import draw_curves

    figure = Figure(figsize=(5.2 * len(runs), 4), layout='constrained')
    panels = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (network, methods) in zip(panels, runs.items(), strict=True):
        curves = {method: mean_curve(curves_of(root, network, method, seeds, 'psnr')) for method in methods}
        draw_curves(axes, curves, f'{network} x{SCALE}: PSNR on Set5 (dB)')
        axes.legend(loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False)  # beside no curve
    figure.savefig(file, dpi=100)


if __name__ == '__main__':
    sys.exit(main())
