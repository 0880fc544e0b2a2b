"""Training steps on a GPU: BasicSR's against ours, in all precisions, and those of the five methods.

    python bench/gpu/step.py [--out DIR] [--minutes 3] [--small] [--works eco,graphed_RCAN_x4]

All steps of a network are measured in one process, in turn, on the same batch: medians. ``stock`` is BasicSR's SRModel with
torch's defaults (cuDNN's convolutions in TF32); ``stock_fp32`` the same without TF32. What misses its goal is profiled.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from measuring import CUDA, ROOT, Figures, medians, meets, parse_arguments, peak_bytes, profile, seconds_of

import basicsr_ext

basicsr_ext.register()

import torch
from basicsr.models import build_model
from torch.utils.flop_counter import FlopCounterMode

from basicsr_ext.functional.self_paced import self_paced_loss
from basicsr_ext.models.criacl_model import CriaCLModel
from basicsr_ext.models.eco_model import ECOModel
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.options.complete import read_options

FUSED = {'optim_g': {'type': 'Adam', 'lr': 1e-4, 'fused': CUDA}}
BF16 = {**FUSED, 'precision': 'bf16', 'channels_last': True}
VARIANTS: dict[str, dict[str, Any] | None] = {
    'stock': None,
    'stock_fp32': None,
    'fp32': FUSED,
    'tf32': {**FUSED, 'precision': 'tf32'},
    'bf16': {**FUSED, 'precision': 'bf16'},
    'bf16_channels_last': BF16,
}
# each beside BasicSR's step once more: ratios are of one measurement
GRAPHED = {
    'stock': None,
    'stock_fp32': None,
    'fp32_graph': {**FUSED, 'cuda_graph': True},
    'bf16_channels_last_graph': {**BF16, 'cuda_graph': True},
}
COMPILED = {
    'stock': None,
    'stock_fp32': None,
    'bf16_channels_last_compile': {**BF16, 'compile': True},
    'bf16_channels_last_compile_graph': {**BF16, 'compile': True, 'cuda_graph': True},
}
SUFFIXES = {id(VARIANTS): '', id(GRAPHED): '_beside_graphed', id(COMPILED): '_beside_compiled'}  # of BasicSR's figures
GOALS = {'EDSR-baseline_x2': (4, 2), 'RCAN_x4': (4, 2), 'SwinIR-light_x2': (2.5, 1.5)}  # times stock_fp32, times stock
WITH_GOAL = {
    'EDSR-baseline_x2': ('bf16_channels_last_compile', 'bf16_channels_last_graph', 'bf16_channels_last_compile_graph'),
    'RCAN_x4': ('bf16_channels_last_compile', 'bf16_channels_last_graph', 'bf16_channels_last_compile_graph'),
    'SwinIR-light_x2': ('bf16_channels_last', 'bf16_channels_last_graph'),
}
NETWORKS: dict[str, dict[str, Any]] = {
    'EDSR-baseline_x2': {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16, 'upscale': 2},
    'SwinIR-light_x2': {
        'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 64, 'window_size': 8, 'img_range': 1.0,
        'depths': [6, 6, 6, 6], 'embed_dim': 60, 'num_heads': [6, 6, 6, 6], 'mlp_ratio': 2,
        'upsampler': 'pixelshuffledirect', 'resi_connection': '1conv',
    },
    'RCAN_x4': {
        'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_group': 10, 'num_block': 20,
        'squeeze_factor': 16, 'upscale': 4,
    },
}  # fmt: skip
SMALL = {
    'EDSR-baseline_x2': {'num_feat': 8, 'num_block': 2},
    'SwinIR-light_x2': {'depths': [1], 'num_heads': [2], 'embed_dim': 8, 'img_size': 16},
    'RCAN_x4': {'num_feat': 8, 'num_group': 1, 'num_block': 2, 'squeeze_factor': 4},
}
DATASETS = ('PairedStoreDataset', 'PairedCentroidDataset')


def network_of(name: str, small: bool) -> dict[str, Any]:
    return {**NETWORKS[name], **(SMALL[name] if small else {})}


def options(name: str, small: bool, **train: Any) -> dict[str, Any]:
    """Options of a model, as BasicSR completes them."""
    return {
        'model_type': 'SRModel', 'num_gpu': int(CUDA), 'dist': False, 'is_train': True, 'rank': 0, 'world_size': 1,
        'manual_seed': 0, 'scale': int(name[-1]), 'network_g': network_of(name, small), 'path': {},
        'datasets': {'train': {'type': DATASETS['eco' in train], 'batch_size_per_gpu': 16}},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-4}, 'scheduler': {'type': 'MultiStepLR', 'milestones': [10**9]},
            'pixel_opt': {'type': 'L1Loss'}, 'total_iter': 10**9, 'ema_decay': 0.999, **train,
        },
    }  # fmt: skip


def make_batch(name: str, small: bool) -> dict[str, torch.Tensor]:
    """A random batch of 16 with LR patches of 48 (SwinIR: 64), on the device."""
    count, size, scale = (2, 16, int(name[-1])) if small else (16, 64 if 'SwinIR' in name else 48, int(name[-1]))
    generator = torch.Generator().manual_seed(0)
    shapes = {'lq': size, 'gt': size * scale}
    batch = {key: torch.rand(count, 3, side, side, generator=generator) for key, side in shapes.items()}
    return {key: value.cuda() if CUDA else value for key, value in batch.items()}


def use_precision(variant: str) -> None:
    """Sets what is torch-wide as the variant has it: models of several precisions share this process."""
    torch.backends.cudnn.allow_tf32 = variant != 'stock_fp32'
    torch.set_float32_matmul_precision('high' if variant == 'tf32' else 'highest')


def make_step(model: Any, batch: dict[str, torch.Tensor], variant: str = '', iteration: int = 5) -> Callable[[], None]:
    """One whole iteration of a model on a batch."""

    def step() -> None:
        use_precision(variant)
        model.feed_data(batch)
        model.optimize_parameters(iteration)

    return step


def make_model(name: str, train: dict[str, Any] | None, small: bool) -> Any:
    return build_model(options(name, small)) if train is None else TrainingModel(options(name, small, **train))


def measure_network(
    figures: Figures, name: str, variants: dict[str, Any], peak: float, repeats: int
) -> dict[str, float]:
    """Writes images/s, memory and share of the card's peak of each variant, and the ratios that have goals.

    Returns:
        Seconds of a step by variant.
    """
    batch = make_batch(name, figures.small)
    count = len(batch['lq'])
    steps, memory, flops = {}, {}, 0
    for variant, train in variants.items():
        before = torch.cuda.memory_allocated() if CUDA else 0
        steps[variant] = step = make_step(make_model(name, train, figures.small), batch, variant)
        if not flops:
            with FlopCounterMode(display=False) as counter:
                step()
            flops = counter.get_total_flops()
        seconds = seconds_of(step)  # compiles, and makes what Adam keeps
        if 'compile' in variant:
            figures.write(f'compile_{name}', seconds, 's', note='first step, kernels from a cache where there is one')
        kept = torch.cuda.memory_allocated() - before if CUDA else 0
        if 'graph' not in variant:  # whose activations lie in memory that torch counts as free
            memory[variant] = kept + peak_bytes(step)
    seconds = medians(steps, repeats)
    suffix = SUFFIXES.get(id(variants), '')
    for variant, value in seconds.items():
        told = suffix if variant.startswith('stock') else ''
        details = {'ms': 1e3 * value, 'batch': count, 'lq': batch['lq'].shape[-1]}
        if variant in memory:
            details['peak_MB'] = memory[variant] / 1e6
        if peak:
            details |= {'share_of_bf16_peak': flops / value / peak}
        figures.write(f'step_{name}_{variant}{told}', count / value, 'images/s', **details)
    for variant, value in seconds.items():
        if variant.startswith('stock'):
            continue
        goals: tuple[float | None, ...] = GOALS[name] if variant in WITH_GOAL[name] else (None, None)
        goals = dict(zip(('stock_fp32', 'stock'), goals, strict=True))
        if variant == 'fp32':
            goals['stock'] = 1.1
        missed = False
        for base, goal in goals.items():
            ratio = seconds[base] / value
            figures.write(f'{name}_{variant}_over_{base}', ratio, 'x', goal and f'>= {goal}')
            missed = missed or bool(goal and ratio < goal)
        if missed:
            with figures.attempt(f'profile_{name}_{variant}', 10) as there_is_time:
                if there_is_time:
                    profile(steps[variant], f'{name}_{variant}', figures.out)
    return seconds


def measure_peak(figures: Figures) -> float:
    """Writes the card's rate of bf16 matrix products on random data; returns it in FLOP/s (0 without a GPU)."""
    if not CUDA:
        return 0.0
    a, b = (torch.randn(8192, 8192, device='cuda', dtype=torch.bfloat16) for _ in range(2))
    peak = 2 * 8192**3 / medians({'product': lambda: a @ b}, 5)['product']
    figures.write('peak_bf16', peak / 1e12, 'TFLOP/s', note='8192x8192x8192, random data')
    return peak


def measure_eco(figures: Figures) -> None:
    """ECO's step, which mixes images, over vanilla's."""
    name = 'EDSR-baseline_x2'
    batch = make_batch(name, figures.small)
    mixed = {**batch, 'centroid': batch['gt'].flip(3), 'centroid_lq': batch['lq'].flip(3)}
    blocks = {'vanilla': {'objective': 'vanilla'}, 'eco': {'schedule': {'type': 'constant', 'value': 0.5}}}
    for label, train in (('fp32', FUSED), ('bf16_channels_last', BF16)):
        steps = {
            key: make_step(ECOModel(options(name, figures.small, eco=block, **train)), mixed if key == 'eco' else batch)
            for key, block in blocks.items()
        }
        seconds = medians(steps, 9)
        share = 100 * (seconds['eco'] / seconds['vanilla'] - 1)
        figures.write(f'eco_over_vanilla_{label}', share, '%', '<= 1', ms=1e3 * seconds['eco'])
        if not meets(share, '<= 1'):
            profile(steps['eco'], f'eco_{label}', figures.out)


def measure_pspl(figures: Figures) -> None:
    """PSPL's loss, forward and backward, as a share of EDSR-baseline's step, and both losses in whole steps."""
    name = 'EDSR-baseline_x2'
    batch = make_batch(name, figures.small)
    losses = {'l1': {'type': 'L1Loss'}, 'pspl': {'type': 'PSPLLoss', 'criterion': 'l1'}}
    models = {key: TrainingModel(options(name, figures.small, pixel_opt=loss, **FUSED)) for key, loss in losses.items()}
    works: dict[str, Callable[[], None]] = {
        key: make_step(model, batch, iteration=1000) for key, model in models.items()
    }
    sr = (batch['gt'] + 0.01).requires_grad_()

    def loss_alone() -> None:
        sr.grad = None
        self_paced_loss(sr, batch['gt'], 1.0).mean().backward()

    seconds = medians({**works, 'loss': loss_alone}, 9)
    share = 100 * seconds['loss'] / seconds['l1']
    figures.write(
        'pspl_loss_share_of_step', share, '%', '<= 3', loss_ms=1e3 * seconds['loss'], step_ms=1e3 * seconds['l1']
    )
    figures.write('pspl_step_over_l1_step', 100 * (seconds['pspl'] / seconds['l1'] - 1), '%')
    if not meets(share, '<= 3'):
        profile(loss_alone, 'pspl_loss', figures.out)


def measure_lfcsr(figures: Figures) -> None:
    """An iteration of PD-ADMM in all plans (bench/admm_step.py)."""
    import admm_step

    memory = {name: admm_step.peak_memory(name, True) for name in (*admm_step.LOOPS, *admm_step.PLANS) if CUDA}
    seconds = admm_step.times(figures.small, 2 if figures.small else 5)
    for name, value in seconds.items():
        figures.write(f'lfcsr_{name}', 1e3 * value, 'ms', peak_MB=memory.get(name, 0) / 1e6)
    figures.write('lfcsr_shared_over_plain', seconds['plain'] / seconds['shared'], 'x', '>= 1.15')
    fast = seconds['plain'] / seconds['shared_bf16_channels_last']
    figures.write('lfcsr_shared_bf16_channels_last_over_plain', fast, 'x')


def measure_ail(figures: Figures) -> None:
    """Pixels/s of AIL's updates of the importance (bench/ail_update.py)."""
    import ail_update

    size = ail_update.QUICK_SIZE if figures.small else ail_update.SIZE
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        ail_update.write_images(root, ail_update.pictures(None, size, 1 if figures.small else 16))
        if CUDA:
            ail_update.measure(root, 'first', 512)  # warms up
        for update in ail_update.UPDATES:
            speed, memory = ail_update.measure(root, update, 512)
            hours = ail_update.DIV2K / 1e6 / speed / 3600
            figures.write(f'ail_update_{update}', speed, 'Mpx/s', peak_MB=memory, hours_for_DIV2K=hours)


def measure_criacl(figures: Figures) -> None:
    """Cria-CL's step with the paper's networks; VGG-19 with random weights, which changes no time."""
    from torchvision.models import vgg19

    with tempfile.TemporaryDirectory() as folder:
        weights = str(Path(folder, 'vgg19.pth'))
        torch.save({k: v for k, v in vgg19(weights=None).state_dict().items() if k.startswith('features.')}, weights)
        opt = read_options(ROOT / 'options/train_CriaCL_RealSR_x4.yml')
        opt.update(num_gpu=int(CUDA), dist=False, is_train=True, rank=0, world_size=1, path={})
        for key in ('perceptual_opt', 'cria_opt'):
            opt['train'][key]['vgg_weights'] = weights
        if figures.small:
            opt['network_g'].update(num_feat=8, num_grow_ch=4, num_block=1)
            opt['network_d'].update(num_feat=8)
        batch = make_batch('x4', True) if figures.small else {
            'lq': torch.rand(16, 3, 32, 32), 'gt': torch.rand(16, 3, 128, 128),
        }  # fmt: skip
        works = {}
        for label, train in (('fp32', {}), ('bf16_channels_last', {'precision': 'bf16', 'channels_last': True})):
            model = CriaCLModel({**opt, 'train': {**opt['train'], **train}})
            works[label] = make_step(model, batch)
        seconds = medians(works, 2 if figures.small else 5)
        for label, work in works.items():
            count = len(batch['lq'])
            memory = peak_bytes(work) / 1e6
            figures.write(
                f'criacl_{label}', count / seconds[label], 'images/s', ms=1e3 * seconds[label], peak_MB=memory
            )
        figures.write('criacl_bf16_channels_last_over_fp32', seconds['fp32'] / seconds['bf16_channels_last'], 'x')


def warm_compiled(small: bool) -> None:
    """Compiles what is measured compiled, so that its kernels lie in Inductor's cache."""
    for name in ('EDSR-baseline_x2', 'RCAN_x4'):
        model = TrainingModel(options(name, small, **COMPILED['bf16_channels_last_compile']))
        make_step(model, make_batch(name, small))()


def main() -> None:
    if '--warm' in sys.argv:
        warm_compiled(not CUDA)
        return
    args = parse_arguments(__doc__.split('\n')[0], works='all')
    logging.disable(logging.INFO)
    torch.backends.cudnn.benchmark = True  # as BasicSR sets it
    figures = Figures('step', args.out, args.minutes, args.small)
    repeats = 3 if args.small else 7
    peak = measure_peak(figures)
    works: list[tuple[str, float, Callable[[], Any]]] = [
        *((f'eager_{name}', 15, partial(measure_network, figures, name, VARIANTS, peak, repeats)) for name in NETWORKS),
        ('eco', 8, partial(measure_eco, figures)),
        ('pspl', 5, partial(measure_pspl, figures)),
        ('lfcsr', 25, partial(measure_lfcsr, figures)),
        ('ail', 10, partial(measure_ail, figures)),
        ('criacl', 10, partial(measure_criacl, figures)),
        *(
            (f'graphed_{name}', 15, partial(measure_network, figures, name, GRAPHED, peak, repeats))
            for name in NETWORKS
        ),
        *(
            (f'compiled_{name}', 20, partial(measure_network, figures, name, COMPILED, peak, repeats))
            for name in ('EDSR-baseline_x2', 'RCAN_x4')
        ),
    ]
    for what, needs, work in works:
        if args.works not in ('all', what) and what not in args.works.split(','):
            continue
        with figures.attempt(what, needs) as there_is_time:
            if there_is_time:
                seconds = seconds_of(work)
                print(f'-- {what}: {seconds:.1f} s', flush=True)


if __name__ == '__main__':
    main()
