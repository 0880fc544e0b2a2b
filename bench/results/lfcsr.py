"""LFC-SR's constraint against a regularizer and none, on real photographs, in a schedule that fits a CPU.

    export BASICSR_EXT_BENCH_DIR=FOLDER OMP_NUM_THREADS=1
    python bench/results/lfcsr.py [--root lfcsr] [--pretrain 500] [--iterations 360] [--report docs]

FOLDER holds ``train/T91``, ``train/BSDS500_train`` (the first 60 by name are taken), ``Set5/HR``, and LPIPS' weights
(``weights/lpips``: squeeze). LR images are MATLAB's bicubic, x4. Set5 is only ever tested on.

Stage O is EDSR with 4 blocks of 16 features, stage P a CliqueRefiner with 2 blocks of 8. Both are pretrained together; from
these weights on the stages are trained in turn, each time from the same seed and on the same patches: with no constraint,
with the regularizer (weight rho / 2), and with ADMM. Then, for two thirds as long, with none and with ADMM on a single
patch, where the dual variable always belongs to the same picture.

Not the paper's: VGG-19's weights are not at hand, so stage P has no contextual loss. It is trained by a small discriminator,
whose loss has the weight 0.1 in the contextual loss's place (published: 0.001), and by L1 of the reduced images. Published, on
[0, 1]: the weight 255 of L1, rho = 6.5025, the clip of 1e-4 in the second phase, Adam's eps. Scaled down: everything else.

Everything is written into ``--root``; a run that was stopped goes on when the same command is given again. ``--report`` names
a folder for ``results_lfcsr.md`` and ``results_lfcsr.png``.
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
import cv2
import numpy as np

import basicsr_ext
from basicsr_ext.errors import UserError
from basicsr_ext.report.curves import Curve
from basicsr_ext.report.tables import align, markdown_table

SCALE = 4
SEED = 0
BSDS = 60  # images
RHO = 6.5025
POINTS = 60  # values of the residual over a training
RUNS: dict[str, dict[str, Any]] = {
    'none': {'constraint': 'none'},
    'regularizer': {'constraint': 'regularizer', 'regularizer_weight': RHO / 2},
    'admm': {'constraint': 'admm', 'rho': RHO},
}
PATCH_RUNS = {'one_none': 'none', 'one_admm': 'admm'}  # on a single patch
PATCH = (100, 100, 96)  # top, left and side, in the last image of training
COLUMNS = {
    'psnr_o': ("PSNR of Y'", '{:.2f}'), 'psnr': ('PSNR of Y', '{:.2f}'),
    'lpips_o': ("LPIPS of Y'", '{:.4f}'), 'lpips': ('LPIPS of Y', '{:.4f}'),
    'll_difference': ('LL difference', '{:.5f}'),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', default='lfcsr', metavar='FOLDER', help='where everything is written')
    parser.add_argument('--pretrain', type=int, default=500, metavar='N', help='iterations of the pretraining')
    parser.add_argument('--iterations', type=int, default=360, metavar='N', help='of each training after it')
    parser.add_argument('--report', metavar='FOLDER', help='where table and picture go besides')
    args = parser.parse_args(arguments)
    try:
        for name in ('pretrain', 'iterations'):
            if getattr(args, name) < POINTS:
                raise UserError(f'--{name}: expected at least {POINTS}, found {getattr(args, name)}.')
        basicsr_ext.register()
        bench, root = bench_folder(), Path(args.root).resolve()
        make_data(bench, root / 'datasets')
        seconds = {}
        for name in ('pretraining', *RUNS, *PATCH_RUNS):
            start = time.perf_counter()
            options = run_options(name, bench, root, length_of(name, args))
            if not weights_of(root, name, options['train']['total_iter']).exists():
                basicsr_ext.train(options, auto_resume=True, root=root)
            seconds[name] = time.perf_counter() - start
        text = report(root, args, seconds)
        for folder in [root, *([Path(args.report)] if args.report else [])]:
            (folder / 'results_lfcsr.md').write_text(text, encoding='utf-8')
            draw(root, folder / 'results_lfcsr.png')
    except UserError as error:
        print(f'lfcsr: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{text}')
    return 0


def length_of(name: str, args: argparse.Namespace) -> int:
    """Iterations of a run."""
    if name == 'pretraining':
        return args.pretrain
    return 2 * args.iterations // 3 if name in PATCH_RUNS else args.iterations


# ---- data ------------------------------------------------------------------------------------------------------------


def bench_folder() -> Path:
    """Folder of images and weights, from the environment."""
    folder = os.environ.get('BASICSR_EXT_BENCH_DIR')
    if not folder or not Path(folder, 'train/T91').is_dir():
        raise UserError('BASICSR_EXT_BENCH_DIR: expected a folder with train, Set5 and weights; see the docstring.')
    return Path(folder)


def make_data(bench: Path, datasets: Path) -> None:
    """Makes HR images whose sides are multiples of the scale, and their LR images."""
    from basicsr_ext.functional.resize import downsample, mod_crop
    from basicsr_ext.prepare.lr import make_lr

    photographs = sorted((bench / 'train/BSDS500_train').glob('*.jpg'))[:BSDS]
    sets = {
        'train': sorted((bench / 'train/T91').iterdir()) + photographs,
        'Set5': sorted((bench / 'Set5/HR').iterdir()),
    }
    for name, files in sets.items():
        folder = datasets / f'{name}_HR'
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if not (folder / f'{file.stem}.png').exists():
                cv2.imwrite(str(folder / f'{file.stem}.png'), mod_crop(cv2.imread(str(file)), SCALE))
        if not (datasets / f'{name}_LR').exists():
            make_lr(folder, datasets / f'{name}_LR', SCALE, num_workers=1)
    top, left, side = PATCH
    patch = cv2.imread(str(max((datasets / 'train_HR').iterdir())))[top : top + side, left : left + side].copy()
    for kind, image in (('HR', patch), ('LR', downsample(patch, SCALE))):
        (datasets / f'one_{kind}').mkdir(exist_ok=True)
        cv2.imwrite(str(datasets / f'one_{kind}/one.png'), image)


# ---- options -----------------------------------------------------------------------------------------------------------


def run_options(name: str, bench: Path, root: Path, length: int) -> dict[str, Any]:
    """Options of a training, or of the pretraining."""
    data, lpips = root / 'datasets', bench / 'weights/lpips'

    def pair(name: str) -> dict[str, str]:
        return {'dataroot_gt': str(data / f'{name}_HR'), 'dataroot_lq': str(data / f'{name}_LR')}

    options: dict[str, Any] = {
        'name': name,
        'model_type': 'LFCSRModel',
        'scale': SCALE,
        'num_gpu': 0,
        'manual_seed': SEED,
        'network_g': {
            'type': 'LFCSR',
            'stage_o': {
                'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_block': 4, 'upscale': SCALE,
                'img_range': 255.0,
            },
            'stage_p': {'type': 'CliqueRefiner', 'num_feat': 8, 'num_block': 2, 'img_range': 255.0},
        },
        'path': {},
        'datasets': {
            'train': {
                'name': 'photographs', 'type': 'PairedStoreDataset', **pair('train'), 'gt_size': 48, 'output': 'uint8',
                'use_hflip': True, 'use_rot': True, 'batch_size_per_gpu': 4, 'num_worker_per_gpu': 0,
                'dataset_enlarge_ratio': 100,
            },
            'val': {'name': 'Set5', 'type': 'PairedStoreDataset', **pair('Set5')},
        },
        'train': {
            'lfcsr': {'admm_start_iter': length},
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [2 * length // 3], 'gamma': 0.5},
            'total_iter': length,
            'pixel_opt': {'type': 'L1Loss', 'loss_weight': 255},
        },
        'val': {
            'val_freq': length // 2, 'save_img': False,
            'metrics': {
                'psnr': {'type': 'PSNR', 'crop_border': SCALE, 'test_y_channel': True},
                'lpips': {
                    'type': 'LPIPS', 'net': 'squeeze', 'backbone_path': str(lpips / 'squeeze.backbone.pth'),
                    'linear_path': str(lpips / 'squeeze.pth'), 'better': 'lower',
                },
            },
        },
        'logger': {'print_freq': max(length // POINTS, 1), 'save_checkpoint_freq': length // 2, 'use_tb_logger': False},
    }  # fmt: skip
    if name == 'pretraining':
        return options
    options['path'] = {'pretrain_network_g': str(weights_of(root, 'pretraining', 'latest'))}
    options['network_d'] = {
        'type': 'SRGANDiscriminator',
        'input_size': 48,
        'num_feat': 8,
        'num_conv': 6,
        'num_dense': 64,
    }
    if name in PATCH_RUNS:
        changes = {'gt_size': PATCH[2], 'batch_size_per_gpu': 1, 'use_hflip': False, 'use_rot': False}
        options['datasets']['train'].update(pair('one'), **changes)
        options['network_d']['input_size'] = PATCH[2]
    train = options['train']
    del train['optim_g']
    train.update({f'optim_{player}': {'type': 'Adam', 'lr': 2e-4} for player in 'opd'})
    train.update(
        lfcsr={'admm_start_iter': 0, **RUNS[PATCH_RUNS.get(name, name)]},
        grad_clip={'value': 1e-4},
        down_opt={'type': 'L1Loss', 'loss_weight': 255},
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1},
    )
    return options


def weights_of(root: Path, name: str, iteration: int | str) -> Path:
    """Weights of a run at an iteration."""
    return root / 'experiments' / name / f'models/net_g_{iteration}.pth'


# ---- report ------------------------------------------------------------------------------------------------------------


def lines_of(root: Path, name: str, event: str) -> list[dict[str, Any]]:
    """What a run measured, ``train`` or ``validation``."""
    from basicsr_ext.trainer.metrics_log import read_metrics

    return [line for line in read_metrics(root / 'experiments' / name / 'metrics.jsonl') if line['event'] == event]


def residual_of(root: Path, name: str) -> Curve:
    """Mean absolute difference of the LL bands on the patches of training, over the iterations."""
    lines = lines_of(root, name, 'train')
    return Curve(tuple(line['iteration'] for line in lines), tuple(line['residual'] for line in lines))


def report(root: Path, args: argparse.Namespace, seconds: dict[str, float]) -> str:
    """Sets a table in Markdown: scores on Set5 at the end, and the residual in training, early and late."""
    tenth = POINTS // 10
    rows = [['', *(title for title, _ in COLUMNS.values()), 'residual, first tenth', 'last tenth']]
    for name in ('pretraining', *RUNS, *PATCH_RUNS):
        scores, residual = lines_of(root, name, 'validation')[-1]['metrics'], residual_of(root, name).values
        means = (f'{np.mean(part):.5f}' for part in (residual[:tenth], residual[-tenth:]))
        rows.append([name, *(form.format(scores[key]) for key, (_, form) in COLUMNS.items()), *means])
    print(align(rows))
    times = ', '.join(f'{name} {value:.0f} s' for name, value in seconds.items())
    return f'{markdown_table(rows)}\n\n{args.pretrain} and {args.iterations} iterations; {times}\n'


def draw(root: Path, file: Path) -> None:
    """Draws the residual over the second phase: means of five neighbours, since it depends on the patches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout='constrained')
    panels = {'batches of photographs': {name: name for name in RUNS}, 'a single patch': PATCH_RUNS}
    for axes, (title, runs) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for name, label in runs.items():
            curve = residual_of(root, name)
            values = np.convolve(curve.values, np.full(5, 0.2), 'valid')
            style = {'color': f'C{list(RUNS).index(label)}', 'linestyle': '--' if label == 'regularizer' else '-'}
            axes.plot(curve.iterations[2:-2], values, label=label, **style)
        axes.set(title=title, xlabel='iteration of the second phase', ylabel='residual', ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=90)


if __name__ == '__main__':
    sys.exit(main())
