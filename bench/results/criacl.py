"""Cria-CL's comparison of criteria against a plain weighted sum, on real pairs, in a schedule that fits a CPU.

    export BASICSR_EXT_BENCH_DIR=FOLDER OMP_NUM_THREADS=1
    python bench/results/criacl.py [--root criacl] [--pretrain 400] [--iterations 120] [--report docs]

FOLDER holds real pairs of the same size (``realworld/City100_iPhoneX``, ``realworld/NTIRE2019_RealSR``), images for synthetic
pairs (``train/T91``), and LPIPS' weights (``weights/lpips``: squeeze). Scale 1: one pair of City100 and the centre of the pair
of NTIRE2019 are only ever tested on; training mixes the other pairs of City100 with T91, half and half, whose LQ images are
shrunk to a half and enlarged again (MATLAB bicubic).

A network of 2 blocks of 16 features starts near the identity (Dirac kernels), since the network does not add its input, and is
pretrained with L1 loss. From there on, each from the same seed and on the same patches: the weighted sum of the pixel and the
adversarial loss; that and what the comparison adds, without a projector (rows of the paper's Table V); and all of it with one.
The perceptual criteria are left out, since VGG-19's weights are not at hand: the positive is ssim, the negative adv.

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
import cv2
import numpy as np

import basicsr_ext
from basicsr_ext.errors import UserError
from basicsr_ext.report.curves import read_scalars
from basicsr_ext.report.tables import align, markdown_table

SEED = 0
NETWORK = {'type': 'CriaCLNet', 'num_feat': 16, 'num_grow_ch': 8, 'num_block': 2, 'upscale': 1}
TESTS = {'City100': 'City100_001', 'NTIRE2019': 'NTIRE2019'}
METRICS = {'psnr': '{:.2f}', 'ssim': '{:.4f}', 'lpips': '{:.4f}'}
ALL = {'align_weight': 0.1, 'unif_weight': 0.1}
RUNS: dict[str, dict[str, Any]] = {
    'weighted sum': {},
    '+ align': {'cria': {**ALL, 'unif_weight': 0}},
    '+ unif': {'cria': {**ALL, 'align_weight': 0}},
    '+ both': {'cria': ALL},
    '+ both, projector': {'cria': ALL, 'projector': True},
    'weighted sum, projector': {'projector': True},
}
CROP = (32, 72, 96)  # top, left and side of what is drawn, in the picture of City100


def main(arguments: list[str] | None = None) -> int:
    """Runs everything; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--root', default='criacl', metavar='FOLDER', help='where everything is written')
    parser.add_argument('--pretrain', type=int, default=400, metavar='N', help='iterations of the pretraining')
    parser.add_argument('--iterations', type=int, default=120, metavar='N', help='of each training after it')
    parser.add_argument('--report', metavar='FOLDER', help='where table and picture go besides')
    args = parser.parse_args(arguments)
    try:
        basicsr_ext.register()
        bench, root = bench_folder(), Path(args.root).resolve()
        make_data(bench, root / 'datasets')
        make_start(root / 'start.pth')
        seconds = {}
        for name in ('pretraining', *RUNS):
            start = time.perf_counter()
            options = run_options(name, bench, root, args.pretrain if name == 'pretraining' else args.iterations)
            if not weights_of(root, name, options['train']['total_iter']).exists():
                basicsr_ext.train(options, auto_resume=True, root=root)
            seconds[name] = time.perf_counter() - start
        text = report(root, args, seconds)
        for folder in [root, *([Path(args.report)] if args.report else [])]:
            (folder / 'results_criacl.md').write_text(text, encoding='utf-8')
            draw(root, args.iterations, folder / 'results_criacl.png')
    except UserError as error:
        print(f'criacl: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{text}')
    return 0


# ---- data ------------------------------------------------------------------------------------------------------------


def bench_folder() -> Path:
    """Folder of images and weights, from the environment."""
    folder = os.environ.get('BASICSR_EXT_BENCH_DIR')
    if not folder or not Path(folder, 'realworld/City100_iPhoneX').is_dir():
        raise UserError(
            'BASICSR_EXT_BENCH_DIR: expected a folder with realworld, train/T91 and weights; see the docstring.'
        )
    return Path(folder)


def make_data(bench: Path, datasets: Path) -> None:
    """Lays out real pairs under equal names, and makes LQ images for the synthetic ones."""
    from basicsr_ext.prepare.lr import make_lr

    city = bench / 'realworld/City100_iPhoneX'
    numbers = sorted(path.name[:3] for path in city.glob('*H.PNG'))
    for number in numbers:
        part = 'City100_001' if number == '001' else 'City100'
        for kind, letter in (('HR', 'H'), ('LQ', 'L')):
            image = cv2.imread(str(city / f'{number}{letter}.PNG'))
            write(datasets / f'{part}_{kind}' / f'{number}.png', centre(image) if number == '001' else image)
    for kind, folder in (('HR', 'ValidationGT'), ('LQ', 'ValidationLR')):
        (file,) = (bench / 'realworld/NTIRE2019_RealSR' / folder).iterdir()
        write(datasets / f'NTIRE2019_{kind}' / 'pair.png', centre(cv2.imread(str(file))))
    for file in sorted((bench / 'train/T91').iterdir()):
        image = cv2.imread(str(file))
        height, width = (side // 2 * 2 for side in image.shape[:2])
        write(datasets / 'T91_HR' / file.name, image[:height, :width])
    if not (datasets / 'T91_LQ').exists():
        make_lr(datasets / 'T91_HR', datasets / 'T91_LQ', 2, enlarge=True, num_workers=1)


def make_start(file: Path) -> None:
    """Makes a network that passes its input on, but for a little noise."""
    import torch
    from basicsr.archs import build_network
    from torch import nn

    torch.manual_seed(SEED)
    network = build_network({**NETWORK, 'projector': False})
    passing = [network.conv_first, network.conv_up1, network.conv_up2, network.conv_hr]
    passing += [network.tail_align, network.tail_unif]
    passing += [block.conv for branch in (network.branch_align, network.branch_unif) for block in branch]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.3)
        for conv in passing:
            conv.weight += nn.init.dirac_(torch.empty_like(conv.weight))
    torch.save({'params': network.state_dict()}, file)


def centre(image: np.ndarray, height: int = 160, width: int = 240) -> np.ndarray:
    """The middle of an image: whole photographs would take most of the time."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def write(file: Path, image: np.ndarray) -> None:
    """Writes an image, unless it is there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), image)


# ---- options -----------------------------------------------------------------------------------------------------------


def run_options(name: str, bench: Path, root: Path, length: int) -> dict[str, Any]:
    """Options of a training, or of the pretraining."""
    data, lpips = root / 'datasets', bench / 'weights/lpips'

    def pair(name: str) -> dict[str, str]:
        return {'dataroot_gt': str(data / f'{name}_HR'), 'dataroot_lq': str(data / f'{name}_LQ')}

    options: dict[str, Any] = {
        'name': folder_of(name),
        'model_type': 'CriaCLModel',
        'scale': 1,
        'num_gpu': 0,
        'manual_seed': SEED,
        'network_g': {
            **NETWORK, 'projector': False
        },
        'path': {},
        'datasets': {
            'train': {
                'name': 'mixed', 'type': 'MixedStoreDataset', 'gt_size': 32, 'output': 'uint8',
                'batch_size_per_gpu': 4, 'num_worker_per_gpu': 0, 'dataset_enlarge_ratio': 100,
                'sources': {
                    'City100': {**pair('City100'), 'weight': 1},
                    'T91': {**pair('T91'), 'weight': 1},
                },
            },
            **{
                f'val_{number}': {'name': test, 'type': 'PairedStoreDataset', **pair(folder)}
                for number, (test, folder) in enumerate(TESTS.items())
            },
        },
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 5e-4 if name == 'pretraining' else 2e-4},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [2 * length // 3], 'gamma': 0.5},
            'total_iter': length,
            'pixel_opt': {'type': 'L1Loss'},
        },
        'val': {
            'val_freq': length, 'save_img': False,
            'metrics': {
                'psnr': {'type': 'PSNR', 'crop_border': 4}, 'ssim': {'type': 'SSIM', 'crop_border': 4},
                'lpips': {
                    'type': 'LPIPS', 'net': 'squeeze', 'backbone_path': str(lpips / 'squeeze.backbone.pth'),
                    'linear_path': str(lpips / 'squeeze.pth'), 'better': 'lower',
                },
            },
        },
        'logger': {'print_freq': length // 10, 'save_checkpoint_freq': length // 2, 'use_tb_logger': True},
    }  # fmt: skip
    if name == 'pretraining':
        options['path'] = {'pretrain_network_g': str(root / 'start.pth')}
        return options
    start = torch_file(root, 'pretraining')
    options['path'] = {'pretrain_network_g': str(start), 'strict_load_g': False}
    options['network_g']['projector'] = RUNS[name].get('projector', False)
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 8}
    options['train'].update(
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.02}, optim_d={'type': 'Adam', 'lr': 1e-4}
    )
    if 'cria' in RUNS[name]:
        compared = {'type': 'CriaLoss', 'positives': ['ssim'], 'negatives': ['adv'], **RUNS[name]['cria']}
        options['train']['cria_opt'] = compared
    return options


def folder_of(name: str) -> str:
    """Name of a run as a folder."""
    return name.replace('+ ', 'with_').replace(', ', '_').replace(' ', '_')


def torch_file(root: Path, name: str) -> Path:
    """Weights at the end of a run."""
    return root / 'experiments' / folder_of(name) / 'models/net_g_latest.pth'


def weights_of(root: Path, name: str, iteration: int) -> Path:
    """Weights of a run at an iteration."""
    return torch_file(root, name).with_name(f'net_g_{iteration}.pth')


# ---- report ------------------------------------------------------------------------------------------------------------


def report(root: Path, args: argparse.Namespace, seconds: dict[str, float]) -> str:
    """Sets a table in Markdown: scores at the end, PSNR / SSIM / LPIPS."""
    rows = [['', *TESTS], ['LQ', *(scores_of_input(root, folder) for folder in TESTS.values())]]
    for name in ('pretraining', *RUNS):
        cells = []
        for test in TESTS:
            scalars = [
                read_scalars(root / 'tb_logger' / folder_of(name), f'metrics/{test}/{metric}') for metric in METRICS
            ]
            cells.append(' / '.join(f.format(s.values[-1]) for f, s in zip(METRICS.values(), scalars, strict=True)))
        rows.append([name, *cells])
    print(align(rows))
    times = ', '.join(f'{name} {value:.0f} s' for name, value in seconds.items())
    return f'{markdown_table(rows)}\n\n{args.pretrain} and {args.iterations} iterations; {times}\n'


def scores_of_input(root: Path, folder: str) -> str:
    """PSNR and SSIM of LQ images as they are."""
    from basicsr_ext.metrics.psnr_metric import PSNR
    from basicsr_ext.metrics.ssim_metric import SSIM

    (lq,), (gt,) = (
        [cv2.imread(str(f)) for f in (root / f'datasets/{folder}_{kind}').iterdir()] for kind in ('LQ', 'HR')
    )
    return f'{PSNR(lq, gt, 4):.2f} / {SSIM(lq, gt, 4):.4f} / -'


def draw(root: Path, iterations: int, file: Path) -> None:
    """Draws a crop: input, results, and of the run with a projector both views and its mask."""
    import torch
    from basicsr.archs import build_network
    from matplotlib.figure import Figure

    def views_of(name: str) -> Any:
        network = build_network({**NETWORK, 'projector': RUNS[name].get('projector', False)})
        network.load_state_dict(torch.load(weights_of(root, name, iterations), weights_only=True)['params'])
        with torch.no_grad():
            return network.eval()(torch.from_numpy(lq / 255).float().permute(2, 0, 1)[None], return_views=True)

    lq, gt = (cv2.imread(str(root / f'datasets/City100_001_{kind}/001.png'))[..., ::-1].copy() for kind in ('LQ', 'HR'))
    everything = views_of('+ both, projector')
    top, left, side = CROP
    panels = {
        'LQ': lq,
        'weighted sum': picture(views_of('weighted sum').sr),
        '+ both': picture(views_of('+ both').sr),
        '+ both, projector': picture(everything.sr),
        'HR': gt,
        'align view': picture(everything.align),
        'unif view': picture(everything.unif),
        'mask S': picture(everything.mask),
    }
    figure = Figure(figsize=(9, 5), layout='constrained')
    grid = figure.subplots(2, 4).ravel()
    for axes, (title, image) in zip(grid, panels.items(), strict=True):
        shown = image[top : top + side, left : left + side]
        if title.startswith('mask'):
            low, high = shown.min() / 255, shown.max() / 255
            title = f'{title} ({low:.2f} to {high:.2f})'
            axes.imshow(shown[..., 0], cmap='viridis', interpolation='nearest')
        else:
            axes.imshow(shown, interpolation='nearest')
        axes.set_title(title, fontsize=10)
        axes.set_axis_off()
    figure.savefig(file, dpi=64)


def picture(image: Any) -> np.ndarray:
    """Turns (1, C, H, W) in [0, 1] into a uint8 array (H, W, C)."""
    return (image[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


if __name__ == '__main__':
    sys.exit(main())
