"""LFC-SR's constraint on real photographs, in a schedule that fits a CPU: when does the residual fall under ADMM, and why not.

    export BASICSR_EXT_BENCH_DIR=FOLDER OMP_NUM_THREADS=1
    python bench/results/lfcsr.py [--root lfcsr] [--pretrain 1000] [--iterations 240] [--seed 0] [--report docs]

FOLDER holds ``train/T91``, ``train/BSDS500_train`` (the first 60 by name are taken), ``Set5/HR``, and LPIPS' weights
(``weights/lpips``: squeeze). LR images are MATLAB's bicubic, x4. Set5 is only ever tested on.

Stage O is EDSR with 4 blocks of 16 features, stage P a CliqueRefiner with 2 blocks of 16. Both are pretrained together; from
these weights every run trains the stages in turn, from one seed, with the same length, patches of 64x64, a batch of one and no
augmentation. Runs of one group see the same patches in the same order and differ in the constraint alone; groups differ in the
pictures alone: one patch, eight in turn, random crops of all photographs. "of each picture" keeps a dual variable for each
patch, which the method does not: it shows what other pictures' residuals do to s. The last group has the losses varied.

Published, on [0, 1]: the weights 255 of L1 and 0.001 of the discriminator, rho = 6.5025 (x1), the clip of 1e-4 of both stages,
Adam's eps. VGG-19's weights are not at hand: in the contextual loss's place an L1 loss of weight 2.5 holds stage P's high
frequencies. Scaled down: everything else. The regularizer is that of squares (the paper has L1), and weighs as much as the
penalty, rho / 2. The first convolution of the discriminator has a bias and is not normalised.

Everything is written into ``--root``; a run that was stopped goes on when the same command is given again. ``--report`` names
a folder for ``results_lfcsr.md`` and ``results_lfcsr.png``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
import cv2
import numpy as np

import basicsr_ext
from basicsr_ext.errors import Stopped, UserError
from basicsr_ext.report.curves import Curve
from basicsr_ext.report.tables import align, markdown_table

SCALE = 4
SEED = 0
BSDS = 60  # images
RHO = 6.5025
SIDE = 64  # of patches
EIGHTH = 8  # the first and the last eighth of a run are compared
PICTURES = {'one': 1, 'eight': 8, 'photographs': 0}  # patches; 0: random crops of everything
HOLDING = {'pixel_p_opt': {'type': 'L1Loss', 'loss_weight': 2.5}}
JUDGING = {'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.001}}


class Run(NamedTuple):
    """What a run of the second phase differs in.

    Attributes:
        pictures: Key of PICTURES.
        constraint: As in the options.
        strength: Factor of rho, and of the regularizer's weight.
        of_each: Whether each picture has its own dual variable.
        losses: Of stage P, besides L1 of the reduced images.
    """

    pictures: str
    constraint: str = 'none'
    strength: int = 1
    of_each: bool = False
    losses: dict[str, Any] = {**HOLDING, **JUDGING}  # noqa: RUF012

    @property
    def label(self) -> str:
        """What stands in the table and the picture."""
        text = self.constraint if self.constraint == 'none' else f'{self.constraint} x{self.strength}'
        text += ', s of each picture' if self.of_each else ''
        if 'pixel_p_opt' not in self.losses:
            text += ', no L1 of Y' if self.losses else ', neither L1 of Y nor discriminator'
        return text


RUNS = {
    'one_none': Run('one'),
    'one_admm_1': Run('one', 'admm'),
    'one_admm_10': Run('one', 'admm', 10),
    'eight_none': Run('eight'),
    'eight_regularizer_100': Run('eight', 'regularizer', 100),
    'eight_admm_30': Run('eight', 'admm', 30),
    'eight_admm_30_of_each': Run('eight', 'admm', 30, True),
    'eight_admm_100': Run('eight', 'admm', 100),
    'eight_admm_100_of_each': Run('eight', 'admm', 100, True),
    'photographs_none': Run('photographs'),
    'photographs_admm_1': Run('photographs', 'admm'),
    'photographs_admm_10': Run('photographs', 'admm', 10),
    'photographs_admm_100': Run('photographs', 'admm', 100),
    'photographs_regularizer_100': Run('photographs', 'regularizer', 100),
    'losses_judged': Run('photographs', losses=JUDGING),
    'losses_reduced': Run('photographs', losses={}),
}
COLUMNS = {
    'psnr_o': ("PSNR of Y'", '{:.2f}'), 'psnr': ('PSNR of Y', '{:.2f}'),
    'lpips_o': ("LPIPS of Y'", '{:.4f}'), 'lpips': ('LPIPS of Y', '{:.4f}'),
    'll_difference': ('LL difference', '{:.5f}'),
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', default='lfcsr', metavar='FOLDER', help='where everything is written')
    parser.add_argument('--pretrain', type=int, default=1000, metavar='N', help='iterations of the pretraining')
    parser.add_argument('--iterations', type=int, default=240, metavar='N', help='of each training after it')
    parser.add_argument('--seed', type=int, default=SEED, metavar='N', help='of the trainings after the pretraining')
    parser.add_argument('--report', metavar='FOLDER', help='where table and picture go besides')
    args = parser.parse_args(arguments)
    try:
        for name in ('pretrain', 'iterations'):
            if getattr(args, name) < 2 * EIGHTH:
                raise UserError(f'--{name}: expected at least {2 * EIGHTH}, found {getattr(args, name)}.')
        basicsr_ext.register()
        register_dual_of_each_picture()
        bench, root = bench_folder(), Path(args.root).resolve()
        make_data(bench, root / 'datasets')
        seconds = {}
        for name in ('pretraining', *RUNS):
            start = time.process_time()
            options = run_options(name, bench, root, args.iterations if name in RUNS else args.pretrain, args.seed)
            if not weights_of(root, name, options['train']['total_iter']).exists():
                basicsr_ext.train(options, auto_resume=True, root=root)
                seconds[name] = time.process_time() - start
        text = report(root, args, seconds)
        for folder in [root, *([Path(args.report)] if args.report else [])]:
            (folder / 'results_lfcsr.md').write_text(text, encoding='utf-8')
            draw(root, folder / 'results_lfcsr.png')
    except (UserError, Stopped) as error:
        print(f'lfcsr: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{text}')
    return 0


def register_dual_of_each_picture() -> None:
    """Registers a model that is no part of the method: LFCSRModel with a dual variable for each picture."""
    from basicsr.utils.registry import MODEL_REGISTRY

    from basicsr_ext.models.lfcsr.lfcsr_model import LFCSRModel

    class DualOfEachPicture(LFCSRModel):
        """For batches of one patch."""

        def training_step(self, batch: dict[str, Any], iteration: int) -> None:
            (key,) = batch['gt_path']
            self.duals = getattr(self, 'duals', {})
            self.dual = self.duals.get(key, 0.0)
            super().training_step(batch, iteration)
            self.duals[key] = self.dual

        def extra_state(self) -> dict[str, Any]:
            return {**super().extra_state(), 'duals': getattr(self, 'duals', {})}

        def load_extra_state(self, state: dict[str, Any]) -> None:
            super().load_extra_state(state)
            self.duals = state['duals']

    if 'DualOfEachPicture' not in MODEL_REGISTRY:
        MODEL_REGISTRY.register(DualOfEachPicture)


# ---- data ------------------------------------------------------------------------------------------------------------


def bench_folder() -> Path:
    """Folder of images and weights, from the environment."""
    folder = os.environ.get('BASICSR_EXT_BENCH_DIR')
    if not folder or not Path(folder, 'train/T91').is_dir():
        raise UserError('BASICSR_EXT_BENCH_DIR: expected a folder with train, Set5 and weights; see the docstring.')
    return Path(folder)


def make_data(bench: Path, datasets: Path) -> None:
    """Makes HR images whose sides are multiples of the scale, their LR images, and patches from the middle of some."""
    from basicsr_ext.functional.resize import downsample, mod_crop
    from basicsr_ext.prepare.lr import make_lr

    photographs = sorted((bench / 'train/BSDS500_train').glob('*.jpg'))[:BSDS]
    sets = {
        'photographs': sorted((bench / 'train/T91').iterdir()) + photographs,
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
    for name, count in PICTURES.items():
        for file in photographs[:count]:
            image = cv2.imread(str(file))
            top, left = ((side - SIDE) // 2 for side in image.shape[:2])
            patch = image[top : top + SIDE, left : left + SIDE].copy()
            for kind, picture in (('HR', patch), ('LR', downsample(patch, SCALE))):
                (datasets / f'{name}_{kind}').mkdir(exist_ok=True)
                cv2.imwrite(str(datasets / f'{name}_{kind}/{file.stem}.png'), picture)


# ---- options -----------------------------------------------------------------------------------------------------------


def run_options(name: str, bench: Path, root: Path, length: int, seed: int) -> dict[str, Any]:
    """Options of a training, or of the pretraining, whose seed is always the same."""
    data, lpips = root / 'datasets', bench / 'weights/lpips'

    def pair(name: str) -> dict[str, str]:
        return {'dataroot_gt': str(data / f'{name}_HR'), 'dataroot_lq': str(data / f'{name}_LR')}

    options: dict[str, Any] = {
        'name': name,
        'model_type': 'LFCSRModel',
        'scale': SCALE,
        'num_gpu': 0,
        'manual_seed': seed if name in RUNS else SEED,
        'network_g': {
            'type': 'LFCSR',
            'stage_o': {
                'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_block': 4, 'upscale': SCALE,
                'img_range': 255.0,
            },
            'stage_p': {'type': 'CliqueRefiner', 'num_feat': 16, 'num_block': 2, 'img_range': 255.0},
        },
        'path': {},
        'datasets': {
            'train': {
                'name': 'photographs', 'type': 'PairedStoreDataset', **pair('photographs'), 'gt_size': 48, 'output': 'uint8',
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
            'val_freq': length, 'save_img': False,
            'metrics': {
                'psnr': {'type': 'PSNR', 'crop_border': SCALE, 'test_y_channel': True},
                'lpips': {
                    'type': 'LPIPS', 'net': 'squeeze', 'backbone_path': str(lpips / 'squeeze.backbone.pth'),
                    'linear_path': str(lpips / 'squeeze.pth'), 'better': 'lower',
                },
            },
        },
        'logger': {'print_freq': 1, 'save_checkpoint_freq': length, 'use_tb_logger': False},
    }  # fmt: skip
    return options if name == 'pretraining' else of_second_phase(options, RUNS[name], root, pair(RUNS[name].pictures))


def of_second_phase(options: dict[str, Any], run: Run, root: Path, images: dict[str, str]) -> dict[str, Any]:
    """Changes the options of the pretraining into those of a run from its weights."""
    options['model_type'] = 'DualOfEachPicture' if run.of_each else 'LFCSRModel'
    options['path'] = {'pretrain_network_g': str(weights_of(root, 'pretraining', 'latest'))}
    options['datasets']['train'].update(images, gt_size=SIDE, batch_size_per_gpu=1, use_hflip=False, use_rot=False)
    train = options['train']
    del train['optim_g']
    players = 'opd' if 'gan_opt' in run.losses else 'op'
    train.update({f'optim_{player}': {'type': 'Adam', 'lr': 1e-4} for player in players})
    train.update(
        lfcsr={'admm_start_iter': 0, 'constraint': run.constraint, 'rho': RHO * run.strength},
        grad_clip={'value': 1e-4, 'players': ['o', 'p']},
        down_opt={'type': 'L1Loss', 'loss_weight': 255},
        **run.losses,
    )
    if run.constraint == 'regularizer':
        train['lfcsr'].update(regularizer_weight=RHO * run.strength / 2, regularizer_norm='l2')
    if 'd' in players:
        options['network_d'] = {
            'type': 'SRGANDiscriminator', 'input_size': SIDE, 'num_feat': 8, 'num_conv': 6, 'num_dense': 64,
            'norm_first': False,
        }  # fmt: skip
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
    """Sets a table in Markdown: the residual in training, early and late, and scores on Set5 at the end."""
    rows = [['pictures', 'constraint', 'first eighth', 'last eighth', *(title for title, _ in COLUMNS.values())]]
    for name in ('pretraining', *RUNS):
        scores, residual = lines_of(root, name, 'validation')[-1]['metrics'], residual_of(root, name).values
        part = len(residual) // EIGHTH
        means = (f'{np.mean(values):.4f}' for values in (residual[:part], residual[-part:]))
        what = (RUNS[name].pictures, RUNS[name].label) if name in RUNS else ('photographs', 'pretraining')
        rows.append([*what, *means, *(form.format(scores[key]) for key, (_, form) in COLUMNS.items())])
    print(align(rows))
    times = ', '.join(f'{name} {value:.0f} s' for name, value in seconds.items())
    return f'{markdown_table(rows)}\n\n{args.pretrain} and {args.iterations} iterations; CPU of this call: {times or "none"}\n'


def draw(root: Path, file: Path) -> None:
    """Draws the residual over the second phase, each group of pictures by itself: running means of an eighth."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout='constrained')
    titles = ('one patch', 'eight patches in turn', 'random crops of photographs')
    for axes, pictures, title in zip(figure.subplots(1, 3), PICTURES, titles, strict=True):
        for name, run in RUNS.items():
            if run.pictures == pictures and 'pixel_p_opt' in run.losses:
                curve = residual_of(root, name)
                part = len(curve.values) // EIGHTH
                values = np.convolve(curve.values, np.full(part, 1 / part), 'valid')
                style = '-' if run.constraint == 'admm' else ':' if run.constraint == 'none' else '--'
                axes.plot(curve.iterations[part - 1 :], values, label=run.label, linestyle=style)
        axes.set(
            title=title, xlabel='iteration of the second phase', ylabel='residual', yscale='log', ylim=(0.007, 0.1)
        )
        axes.grid(alpha=0.3, which='both')
        axes.legend(fontsize=7, loc='upper left')
    figure.savefig(file, dpi=90)


if __name__ == '__main__':
    sys.exit(main())
