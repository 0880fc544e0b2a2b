"""Cria-CL's comparison of criteria against a plain weighted sum, in a schedule that fits a CPU.

    export BASICSR_EXT_BENCH_DIR=FOLDER OMP_NUM_THREADS=1
    python bench/results/criacl.py [--root criacl] [--pretrain 600] [--iterations 300] [--report docs]

FOLDER holds real pairs of the same size (``realworld/City100_iPhoneX``, ``realworld/NTIRE2019_RealSR``), images for synthetic
pairs (``train/T91``, ``train/BSDS500_train``), ``Set5``, and LPIPS' weights (``weights/lpips``: squeeze). Two experiments:

- x1, real pairs: training mixes two camera pairs of City100 with T91, half and half, whose LQ images are shrunk to a half and
  enlarged again (MATLAB bicubic). A third pair of City100 and the pair of NTIRE2019 (their centres) are only tested on.
- x4, synthetic pairs: T91 and 60 images of BSDS500, half and half, shrunk by MATLAB's bicubic; tested on Set5.

In each, a network of 2 blocks of 16 features starts near the identity (Dirac kernels; at x4 the nearest pixel), since it does
not add its input, and is pretrained with L1. From there each row is trained, with every seed: the weighted sum of pixel,
perceptual and adversarial loss; that and what the comparison adds, without a projector (rows of the paper's Table V); and
with one. VGG-19's weights are not at hand: features are those of SqueezeNet, whose weights came with LPIPS. LPIPS measures
with the same network, so it is no judge from outside here.

Everything is written into ``--root``; a run that was stopped goes on when the same command is given again. ``--report`` names
a folder for ``results_criacl.md`` and ``results_criacl.png``.
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

basicsr_ext.register()

import cv2
import numpy as np
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import LOSS_REGISTRY
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from torchvision.models import squeezenet1_1

from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import downsample, mod_crop, upsample
from basicsr_ext.losses.cria_loss import CriaLoss
from basicsr_ext.losses.feature_loss import FeatureLoss
from basicsr_ext.report.curves import read_scalars
from basicsr_ext.report.tables import align, markdown_table
from basicsr_ext.storage import RawLmdbWriter, open_store

NETWORK = {'type': 'CriaCLNet', 'num_feat': 16, 'num_grow_ch': 8, 'num_block': 2}
SETS: dict[str, dict[str, Any]] = {
    'x1': {'scale': 1, 'gt_size': 32, 'train': ('City100', 'T91'), 'tests': ('City100_001', 'NTIRE2019')},
    'x4': {'scale': 4, 'gt_size': 40, 'train': ('T91', 'BSDS500'), 'tests': ('Set5',)},
}
SEEDS = 2
METRICS = {'psnr': '{:.2f}', 'ssim': '{:.4f}', 'lpips': '{:.4f}'}
WEIGHT = 0.05  # of both terms of the comparison
# With them, criteria of bicubic images at x4 (ssim, perc_b, perc_t, adv) are all near 0.15.
SCALES = {'perc_b': 0.35, 'perc_t': 0.15, 'adv': 0.25}
RUNS: dict[str, dict[str, Any]] = {
    'weighted sum': {'align_weight': 0, 'unif_weight': 0},
    '+ align': {'align_weight': WEIGHT, 'unif_weight': 0},
    '+ unif': {'align_weight': 0, 'unif_weight': WEIGHT},
    '+ both': {'align_weight': WEIGHT, 'unif_weight': WEIGHT},
    '+ both, projector': {'align_weight': WEIGHT, 'unif_weight': WEIGHT},
}
CURVES = {'align': ('pix', 'ssim', 'perc_b'), 'unif': ('pix', 'perc_t', 'adv')}
CROPS = {
    'x1': ('City100_001', '001', 32, 72, 96),
    'x4': ('Set5', 'butterfly', 64, 64, 128),
}  # image; top, left and side in HR


class SqueezeFeatures(nn.Module):
    """SqueezeNet's layers by their numbers, in the place of VGG-19's."""

    def __init__(self, layers: list[str], weights: str):
        super().__init__()
        self.layers = layers
        self.features = squeezenet1_1().features
        self.features.load_state_dict(torch.load(weights, weights_only=True))
        self.features.eval().requires_grad_(False)
        self.register_buffer('mean', torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer('std', torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, images: torch.Tensor, layers: Any = None) -> dict[str, torch.Tensor]:
        """Features of (N, 3, H, W) by layer."""
        wanted, found = set(layers or self.layers), {}
        x = (images - self.mean) / self.std
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in wanted:
                found[name] = x
            if len(found) == len(wanted):
                break
        return found


@LOSS_REGISTRY.register()
class SqueezeCriaLoss(CriaLoss):
    """Criteria of SqueezeNet's features."""

    extractor = SqueezeFeatures


@LOSS_REGISTRY.register()
class SqueezeFeatureLoss(FeatureLoss):
    """Perceptual loss of SqueezeNet's features."""

    extractor = SqueezeFeatures


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', default='criacl', metavar='FOLDER', help='where everything is written')
    parser.add_argument('--pretrain', type=int, default=600, metavar='N', help='iterations of each pretraining')
    parser.add_argument('--iterations', type=int, default=300, metavar='N', help='of each training after it')
    parser.add_argument('--report', metavar='FOLDER', help='where table and picture go besides')
    args = parser.parse_args(arguments)
    try:
        bench, root = bench_folder(), Path(args.root).resolve()
        make_data(bench, root / 'datasets')
        for experiment in SETS:
            for row, seed in runs_of():
                length = args.pretrain if row == 'pretraining' else args.iterations
                train(run_options(experiment, row, seed, bench, root, length), root)
        text = '\n'.join(report(root, experiment, args) for experiment in SETS)
        for folder in [root, *([Path(args.report)] if args.report else [])]:
            (folder / 'results_criacl.md').write_text(text, encoding='utf-8')
            draw(root, folder / 'results_criacl.png')
    except UserError as error:
        print(f'criacl: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{text}')
    return 0


def runs_of() -> list[tuple[str, int]]:
    """Rows and seeds that are trained, in order."""
    return [('pretraining', 0)] + [(row, seed) for seed in range(SEEDS) for row in RUNS]


# ---- data ------------------------------------------------------------------------------------------------------------


def bench_folder() -> Path:
    """Folder of images and weights, from the environment."""
    folder = os.environ.get('BASICSR_EXT_BENCH_DIR')
    if not folder or not Path(folder, 'realworld/City100_iPhoneX').is_dir():
        raise UserError(
            'BASICSR_EXT_BENCH_DIR: expected a folder with realworld, train, Set5 and weights; see the docstring.'
        )
    return Path(folder)


def make_data(bench: Path, datasets: Path) -> None:
    """Makes a store of HR and one of LQ images for each set of each experiment."""
    city, ntire = bench / 'realworld/City100_iPhoneX', bench / 'realworld/NTIRE2019_RealSR'
    city_pairs = {file.name[:3]: (read(file), read(Path(str(file)[:-5] + 'L.PNG'))) for file in city.glob('*H.PNG')}
    first = city_pairs.pop('001')
    t91 = sorted((bench / 'train/T91').iterdir())
    bsds = sorted((bench / 'train/BSDS500_train').glob('*.jpg'))[:60]
    pair = tuple(read(next((ntire / folder).iterdir())) for folder in ('ValidationGT', 'ValidationLR'))
    sets = {
        'x1_City100': city_pairs,
        'x1_City100_001': {'001': tuple(map(centre, first))},
        'x1_NTIRE2019': {'pair': tuple(map(centre, pair))},
        'x1_T91': {file.stem: blurred(mod_crop(read(file), 2)) for file in t91},
        'x4_T91': {file.stem: shrunk(mod_crop(read(file), 4)) for file in t91},
        'x4_BSDS500': {file.stem: shrunk(mod_crop(read(file), 4)) for file in bsds},
        'x4_Set5': {file.stem: shrunk(mod_crop(read(file), 4)) for file in (bench / 'Set5/HR').iterdir()},
    }
    datasets.mkdir(parents=True, exist_ok=True)
    for name, pairs in sets.items():
        for place, kind in enumerate(('HR', 'LQ')):
            if not (path := datasets / f'{name}_{kind}.lmdb').exists():
                with RawLmdbWriter(path, channels=3, dtype=np.uint8) as writer:
                    for key in sorted(pairs):
                        writer.put(key, np.ascontiguousarray(pairs[key][place]))


def read(file: Path) -> np.ndarray:
    """An image as RGB."""
    return cv2.imread(str(file))[..., ::-1]


def centre(image: np.ndarray, height: int = 160, width: int = 240) -> np.ndarray:
    """The middle of an image: whole photographs would take most of the time."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def blurred(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HR image, and its LQ image of the same size."""
    image = np.ascontiguousarray(image)
    return image, upsample(downsample(image, 2), 2)


def shrunk(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HR image, and its LQ image."""
    image = np.ascontiguousarray(image)
    return image, downsample(image, 4)


def make_start(file: Path, scale: int) -> Path:
    """Makes a network that passes its input on, but for a little noise."""
    torch.manual_seed(0)
    network = build_network({**NETWORK, 'upscale': scale, 'projector': False})
    passing = [network.conv_first, network.conv_up1, network.conv_up2, network.conv_hr]
    passing += [network.tail_align, network.tail_unif]
    passing += [block.conv for branch in (network.branch_align, network.branch_unif) for block in branch]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.3)
        for conv in passing:
            conv.weight += nn.init.dirac_(torch.empty_like(conv.weight))
    torch.save({'params': network.state_dict()}, file)
    return file


# ---- training ----------------------------------------------------------------------------------------------------------


def run_options(experiment: str, row: str, seed: int, bench: Path, root: Path, length: int) -> dict[str, Any]:
    """Options of a training, or of the pretraining."""
    chosen, lpips = SETS[experiment], bench / 'weights/lpips'
    backbone = str(lpips / 'squeeze.backbone.pth')

    def stores(name: str) -> dict[str, str]:
        folder = root / 'datasets'
        return {f'dataroot_{k}': str(folder / f'{experiment}_{name}_{v}.lmdb') for k, v in (('gt', 'HR'), ('lq', 'LQ'))}

    options: dict[str, Any] = {
        'name': run_name(experiment, row, seed),
        'model_type': 'CriaCLModel',
        'scale': chosen['scale'],
        'num_gpu': 0,
        'manual_seed': seed,
        'network_g': {**NETWORK, 'upscale': chosen['scale'], 'projector': 'projector' in row},
        'datasets': {
            'train': {
                'name': 'mixed', 'type': 'MixedStoreDataset', 'gt_size': chosen['gt_size'], 'output': 'uint8',
                'batch_size_per_gpu': 4, 'num_worker_per_gpu': 0, 'dataset_enlarge_ratio': 100,
                'sources': {name: {**stores(name), 'weight': 1} for name in chosen['train']},
            },
            **{
                f'val_{number}': {'name': test, 'type': 'PairedStoreDataset', **stores(test)}
                for number, test in enumerate(chosen['tests'])
            },
        },
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 5e-4 if row == 'pretraining' else 2e-4},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [2 * length // 3], 'gamma': 0.5},
            'total_iter': length,
            'channels_last': True,
            'pixel_opt': {'type': 'L1Loss'},
        },
        'val': {
            'val_freq': length, 'save_img': False,
            'metrics': {
                'psnr': {'type': 'PSNR', 'crop_border': 4}, 'ssim': {'type': 'SSIM', 'crop_border': 4},
                'lpips': {
                    'type': 'LPIPS', 'net': 'squeeze', 'backbone_path': backbone, 'better': 'lower',
                    'linear_path': str(lpips / 'squeeze.pth'),
                },
            },
        },
        'logger': {'print_freq': length // 20, 'save_checkpoint_freq': length // 2, 'use_tb_logger': True},
    }  # fmt: skip
    if row == 'pretraining':
        start = make_start(root / f'{experiment}_start.pth', chosen['scale'])
        return {**options, 'path': {'pretrain_network_g': str(start)}}
    start = weights_of(root, experiment, 'pretraining', 0)
    options['path'] = {'pretrain_network_g': str(start), 'strict_load_g': False}
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 8}
    options['train'].update(
        perceptual_opt={
            'type': 'SqueezeFeatureLoss', 'layer_weights': {'12': 1}, 'loss_weight': 0.002, 'vgg_weights': backbone,
        },
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.02},
        optim_d={'type': 'Adam', 'lr': 1e-4},
        cria_opt={
            'type': 'SqueezeCriaLoss', **RUNS[row], 'scales': SCALES, 'bottom_layers': ['1', '4'], 'top_layers': ['12'],
            'vgg_weights': backbone, 'logged': ['pix', 'ssim', 'perc_b', 'perc_t', 'adv'],
        },
    )  # fmt: skip
    return options


def train(options: dict[str, Any], root: Path) -> None:
    """Trains what is not trained yet, and notes how long it took."""
    weights = root / 'experiments' / options['name'] / 'models' / f'net_g_{options["train"]["total_iter"]}.pth'
    if not weights.exists():
        start = time.perf_counter()
        basicsr_ext.train(options, auto_resume=True, root=root)
        (root / f'{options["name"]}.seconds').write_text(f'{time.perf_counter() - start:.0f}')


def run_name(experiment: str, row: str, seed: int) -> str:
    """Name of a run, as a folder."""
    return f'{experiment}_{row.replace("+ ", "with_").replace(", ", "_").replace(" ", "_")}_{seed}'


def weights_of(root: Path, experiment: str, row: str, seed: int) -> Path:
    """Weights at the end of a run."""
    return root / 'experiments' / run_name(experiment, row, seed) / 'models/net_g_latest.pth'


# ---- report ------------------------------------------------------------------------------------------------------------


def report(root: Path, experiment: str, args: argparse.Namespace) -> str:
    """Sets a table in Markdown: scores at the end, PSNR / SSIM / LPIPS, means over the seeds."""
    tests = SETS[experiment]['tests']
    rows = [[experiment, *tests, 'PSNR by seed', 'LPIPS by seed']]
    for row in ('pretraining', *RUNS):
        seeds = [seed for name, seed in runs_of() if name == row]
        scores = np.array(
            [[scores_of(root, run_name(experiment, row, seed), test) for test in tests] for seed in seeds]
        )
        cells = [' / '.join(f.format(v) for f, v in zip(METRICS.values(), s, strict=True)) for s in scores.mean(0)]
        by_seed = [
            ', '.join(METRICS[name].format(v) for v in scores[..., i].mean(1))
            for i, name in ((0, 'psnr'), (2, 'lpips'))
        ]
        rows.append([row, *cells, *by_seed])
    print(align(rows))
    seconds = sum(int((root / f'{run_name(experiment, *run)}.seconds').read_text()) for run in runs_of())
    settings = f'{args.pretrain} and {args.iterations} iterations; {seconds / 60:.0f} minutes'
    return f'{markdown_table(rows)}\n\n{settings}\n'


def scores_of(root: Path, name: str, test: str) -> list[float]:
    """The last scores of a run."""
    return [read_scalars(root / 'tb_logger' / name, f'metrics/{test}/{metric}').values[-1] for metric in METRICS]


def draw(root: Path, file: Path) -> None:
    """Draws crops of both experiments (input, results, views and mask), and below them criteria over training."""
    figure = Figure(figsize=(12, 6.6), layout='constrained')
    pictures, curves = figure.subfigures(2, 1, height_ratios=(2, 1.2))
    grid = pictures.subplots(2, 8)
    for line, experiment in zip(grid, SETS, strict=True):
        for axes, (title, image) in zip(line, panels(root, experiment).items(), strict=True):
            axes.imshow(image, **({'cmap': 'viridis'} if image.ndim == 2 else {}), interpolation='nearest')
            axes.set_title(title, fontsize=8)
            axes.set_axis_off()
    line = curves.subplots(1, 4)
    for axes, (experiment, view) in zip(line, [(e, v) for e in SETS for v in CURVES], strict=True):
        for number, name in enumerate(CURVES[view]):
            for row, style in (('weighted sum', ':'), ('+ both', '--'), ('+ both, projector', '-')):
                folder = root / 'tb_logger' / run_name(experiment, row, 0)
                curve = read_scalars(folder, f'c_{name}_{view}')
                label = name if style == '-' else None
                axes.plot(curve.iterations, curve.values, style, color=f'C{number}', label=label, linewidth=1)
        axes.set_title(f'{experiment}, {view} view', fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    curves.suptitle(
        'criteria (factors included): dotted weighted sum, dashed + both, solid + both, projector', fontsize=8
    )
    figure.savefig(file, dpi=64)
    with Image.open(file) as image:
        image.convert('RGB').quantize(256).save(file, optimize=True)  # a palette: a third of the size


def panels(root: Path, experiment: str) -> dict[str, np.ndarray]:
    """Crops by title."""
    test, key, top, left, side = CROPS[experiment]
    scale = SETS[experiment]['scale']
    lq, gt = (open_store(root / f'datasets/{experiment}_{test}_{kind}.lmdb').read(key) for kind in ('LQ', 'HR'))

    def crop(image: np.ndarray) -> np.ndarray:
        return image[top : top + side, left : left + side]

    def views_of(row: str) -> Any:
        network = build_network({**NETWORK, 'upscale': scale, 'projector': 'projector' in row})
        network.load_state_dict(torch.load(weights_of(root, experiment, row, 0), weights_only=True)['params'])
        with torch.no_grad():
            views = network.eval()(torch.from_numpy(lq / 255).float().permute(2, 0, 1)[None], return_views=True)
        return [crop((v[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()) for v in views[:3]], crop(
            views.mask[0, 0].numpy()
        )

    (result, align_view, unif_view), mask = views_of('+ both, projector')
    return {
        f'{experiment}, LQ': crop(lq.repeat(scale, 0).repeat(scale, 1)),
        'weighted sum': views_of('weighted sum')[0][0],
        '+ both': views_of('+ both')[0][0],
        '+ both, projector': result,
        'HR': crop(gt),
        'align view': align_view,
        'unif view': unif_view,
        f'mask S ({mask.min():.2f} to {mask.max():.2f})': mask,
    }


if __name__ == '__main__':
    sys.exit(main())
