"""The shared base's training step against BasicSR's SRModel: same network, same batch, one process, interleaved repeats.

    python bench/train_step.py [--quick]

Runs on the GPU where there is one, else on one CPU core. The last lines are `<figure> <ratio>x (goal <goal>x)`, one a figure:
how many times faster the shared base is, by medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import basicsr_ext

basicsr_ext.register()

import logging

import torch
from basicsr.models import build_model

from basicsr_ext.models.eco_model import ECOModel
from basicsr_ext.models.training_model import TrainingModel

CUDA = torch.cuda.is_available()
NETWORKS = {
    'EDSR-baseline_x2': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16, 'upscale': 2},
    'RCAN_x4': {
        'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64 if CUDA else 16, 'num_group': 10, 'num_block': 20,
        'squeeze_factor': 16, 'upscale': 4,
    },
    'SwinIR-light_x2': {
        'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 64, 'window_size': 8, 'img_range': 1.0,
        'depths': [6, 6, 6, 6], 'embed_dim': 60, 'num_heads': [6, 6, 6, 6], 'mlp_ratio': 2,
        'upsampler': 'pixelshuffledirect', 'resi_connection': '1conv',
    },
}  # fmt: skip

DATASETS = ('PairedStoreDataset', 'PairedCentroidDataset')


def options(network: str, **train) -> dict:
    """Options of a model, as BasicSR completes them."""
    return {
        'model_type': 'SRModel', 'num_gpu': int(CUDA), 'dist': False, 'is_train': True, 'rank': 0, 'world_size': 1,
        'manual_seed': 0, 'scale': 4 if network.endswith('x4') else 2, 'network_g': NETWORKS[network], 'path': {},
        'datasets': {'train': {'type': DATASETS['eco' in train], 'batch_size_per_gpu': 16}},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-4}, 'scheduler': {'type': 'MultiStepLR', 'milestones': [10**9]},
            'pixel_opt': {'type': 'L1Loss'}, 'total_iter': 10**9, 'ema_decay': 0.999, **train,
        },
    }  # fmt: skip


def batch(network: str, quick: bool) -> dict[str, torch.Tensor]:
    """A random batch: LR 48x48, batch 16 on a GPU; smaller on the CPU."""
    scale = 4 if network.endswith('x4') else 2
    size = (48 if 'SwinIR' not in network else 64) if CUDA else 24
    count = 16 if CUDA else (1 if quick else 2)
    generator = torch.Generator().manual_seed(0)
    return {
        'lq': torch.rand(count, 3, size, size, generator=generator),
        'gt': torch.rand(count, 3, size * scale, size * scale, generator=generator),
    }


def seconds(work: Callable[[], None]) -> float:
    """Time of one call, waiting for the GPU."""
    if CUDA:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ratio(first: Callable[[], None], second: Callable[[], None], repeats: int) -> float:
    """Median time of the first over that of the second, in turn after warming up."""
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(repeats + 2):
        for work, taken in zip((first, second), times, strict=True):
            spent = seconds(work)
            if number >= 2:
                taken.append(spent)
    return statistics.median(times[0]) / statistics.median(times[1])


def stepper(model, data: dict) -> Callable[[], None]:
    """One whole iteration of a model on a batch."""

    def step() -> None:
        model.feed_data(data)
        model.optimize_parameters(5)

    return step


def optimizing(model, stock: bool) -> Callable[[], None]:
    """Optimizer and EMA alone, on gradients that stay."""
    for parameter in model.net_g.parameters():
        parameter.grad = torch.ones_like(parameter) * 1e-3

    def step() -> None:
        model.optimizers[0].step()
        if stock:
            model.model_ema(model.ema_decay)
        else:
            model._average(model.players['g'])

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true', help='fewer repeats and smaller batches')
    quick = parser.parse_args().quick
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    repeats = 3 if quick else 9
    print(f'{"GPU " + torch.cuda.get_device_name() if CUDA else "CPU, one thread"}, torch {torch.__version__}')
    figures = []
    fused = {'optim_g': {'type': 'Adam', 'lr': 1e-4, 'fused': True}}
    for network in NETWORKS:
        data = batch(network, quick)
        stock = stepper(build_model(options(network)), data)
        figures.append(
            (f'step_fp32_{network}', ratio(stock, stepper(TrainingModel(options(network, **fused)), data), repeats), 1)
        )
        fast = {**fused, 'precision': 'bf16', 'channels_last': True, 'compile': CUDA}
        goal = 3 if CUDA or network == 'EDSR-baseline_x2' else None
        figures.append(
            (
                f'step_bf16_{network}',
                ratio(stock, stepper(TrainingModel(options(network, **fast)), data), repeats),
                goal,
            )
        )
        if network == 'RCAN_x4':
            ours, theirs = TrainingModel(options(network, **fused)), build_model(options(network))
            figures.append(
                ('optimizer_and_ema_RCAN_x4', ratio(optimizing(theirs, True), optimizing(ours, False), 3 * repeats), 3)
            )
        if network == 'EDSR-baseline_x2':
            vanilla = stepper(ECOModel(options(network, eco={'objective': 'vanilla'})), data)
            mixed = {**data, 'centroid': data['gt'].flip(3), 'centroid_lq': data['lq'].flip(3)}
            eco = stepper(ECOModel(options(network, eco={'schedule': {'type': 'constant', 'value': 0.5}})), mixed)
            figures.append(('eco_step_against_vanilla', ratio(vanilla, eco, repeats), 0.98))
    for name, value, goal in figures:
        print(f'{name} {value:.2f}x' + (f' (goal {goal}x)' if goal else ''))


if __name__ == '__main__':
    main()
