"""Whether the loader keeps a GPU busy: images/s that reach the device, beside images/s that a training step takes.

    python bench/gpu/feeding.py [--out DIR] [--minutes 1] [--small]

Photographs and their LR images (x2) lie in raw stores, as "basicsr prepare" makes them, and in folders of PNGs. The loader
alone gives batches of 16, LR patches of 48, to the device and does nothing else. Then BasicSR's pipeline trains EDSR-baseline
in bf16, and the same step is repeated on one batch that stays on the device: the rest is what data takes.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images import photographs
from measuring import CUDA, Figures, meets, parse_arguments, profile, seconds_of, synchronize

import basicsr_ext

basicsr_ext.register()

import cv2
import torch
from basicsr.data import build_dataloader, build_dataset
from basicsr.data.prefetch_dataloader import CUDAPrefetcher

from basicsr_ext.functional.resize import downsample, mod_crop
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.processes import start_worker
from basicsr_ext.trainer.prefetching import Prefetcher
from basicsr_ext.trainer.sampling import TrainSampler

SCALE, BATCH, PATCH = 2, 16, 96
EPOCH = 2_000_000  # samples, so that no measurement meets its end
EDSR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_block': 16, 'upscale': SCALE}
LOADERS: dict[str, dict[str, Any]] = {
    'raw_store_thread': {'type': 'PairedStoreDataset', 'suffix': '.lmdb', 'num_worker_per_gpu': 0},
    'raw_store_4_workers': {'type': 'PairedStoreDataset', 'suffix': '.lmdb', 'num_worker_per_gpu': 4},
    'png_8_workers': {'type': 'PairedStoreDataset', 'suffix': '', 'num_worker_per_gpu': 8},
    'stock_png_8_workers': {'type': 'PairedImageDataset', 'suffix': '', 'num_worker_per_gpu': 8},
}
# loader, and whether the step is replayed as a CUDA graph: else Python, which also reads, is what the GPU waits for
RUNS = (
    ('raw_store_thread', True),
    ('raw_store_thread', False),
    ('raw_store_4_workers', False),
    ('png_8_workers', False),
)


def write_images(root: Path, small: bool) -> None:
    """Writes folders and raw stores of GT and LR images."""
    for name in ('gt', 'lq'):
        (root / name).mkdir()
    for name, image in photographs(4 if small else 200):
        gt = mod_crop(image, SCALE)
        if min(gt.shape[:2]) >= PATCH:
            cv2.imwrite(str(root / 'gt' / f'{name}.png'), gt)
            cv2.imwrite(str(root / 'lq' / f'{name}.png'), downsample(gt, SCALE))
    for name in ('gt', 'lq'):
        make_store(root / name, root / f'{name}.lmdb', num_workers=1)


def block(root: Path, loader: dict[str, Any]) -> dict[str, Any]:
    """Options of a training set."""
    suffix, images = loader['suffix'], len(list((root / 'gt').iterdir()))
    options = {
        'name': 'photographs', 'phase': 'train', 'type': loader['type'], 'scale': SCALE,
        'dataroot_gt': f'{root}/gt{suffix}', 'dataroot_lq': f'{root}/lq{suffix}', 'gt_size': PATCH, 'use_hflip': True,
        'use_rot': True, 'num_worker_per_gpu': loader['num_worker_per_gpu'], 'batch_size_per_gpu': BATCH,
        'dataset_enlarge_ratio': EPOCH // images, 'prefetch_mode': 'cuda' if CUDA else None, 'pin_memory': CUDA,
    }  # fmt: skip
    stock = loader['type'] == 'PairedImageDataset'
    return {**options, **({'io_backend': {'type': 'disk'}} if stock else {'output': 'uint8'})}


@contextmanager
def feeding(options: dict[str, Any]) -> Iterator[Any]:
    """What gives batches on the device, as a run has it: ours, or for a stock dataset BasicSR's."""
    data = build_dataset(dict(options))
    sampler = TrainSampler(len(data), BATCH, ratio=options['dataset_enlarge_ratio'])
    loader_options = {**options, 'prefetch_mode': None}
    if options['type'] == 'PairedImageDataset':
        from basicsr.data.data_sampler import EnlargedSampler

        sampler = EnlargedSampler(data, 1, 0, options['dataset_enlarge_ratio'])
    loader = build_dataloader(data, loader_options, num_gpu=1, dist=False, sampler=sampler, seed=0)
    if options['type'] == 'PairedImageDataset':
        feeder = CUDAPrefetcher(loader, {'num_gpu': 1}) if CUDA else Stock(loader)
    else:
        loader.worker_init_fn, loader.generator = start_worker, torch.Generator()
        ahead = 2 if options['num_worker_per_gpu'] == 0 else 0
        feeder = Prefetcher(loader, 0, 10**9, lambda iteration: None, torch.device('cuda') if CUDA else None, ahead)
        feeder.reset()
    try:
        yield feeder
    finally:
        if hasattr(feeder, 'close'):
            feeder.close()


class Stock:
    """A loader without a GPU's prefetcher."""

    def __init__(self, loader: Any):
        self.batches = iter(loader)

    def next(self) -> Any:
        return next(self.batches)


def images_per_second(feeder: Any, seconds: float) -> float:
    """Batches that reach the device, for a while, after a warm-up."""
    for _ in range(5):
        feeder.next()
    synchronize()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        if feeder.next() is None:
            raise RuntimeError('the epoch ended')
        count += 1
    synchronize()
    return BATCH * count / (time.perf_counter() - start)


def model_options(small: bool, name: str, root: Path, iterations: int) -> dict[str, Any]:
    """Options of a whole run."""
    train_set = {key: value for key, value in block(root, LOADERS[name]).items() if key not in ('phase', 'scale')}
    return {
        'name': name, 'model_type': 'TrainingModel', 'scale': SCALE, 'num_gpu': int(CUDA), 'manual_seed': 0,
        'datasets': {'train': train_set}, 'network_g': {**EDSR, **({'num_feat': 8, 'num_block': 2} if small else {})},
        'path': {},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-4, 'fused': CUDA},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [10**9]},
            'pixel_opt': {'type': 'L1Loss'}, 'total_iter': iterations, 'precision': 'bf16', 'channels_last': True,
        },
        'logger': {'print_freq': iterations // 2, 'save_checkpoint_freq': 10**9, 'use_tb_logger': False},
    }  # fmt: skip


def seconds_in_run(options: dict[str, Any], root: Path) -> float:
    """Trains, and returns the wall-clock seconds of an iteration in the second half of the run."""
    moments: list[float] = []
    original = TrainingModel.get_current_log

    def noted(model: Any) -> Any:
        values = original(model)  # waits for the device
        moments.append(time.perf_counter())
        return values

    TrainingModel.get_current_log = noted
    try:
        basicsr_ext.train(options, root=root)
    finally:
        TrainingModel.get_current_log = original
    return (moments[1] - moments[0]) / (options['train']['total_iter'] // 2)


def measure_run(figures: Figures, root: Path, name: str, graph: bool) -> None:
    """A whole run's iteration against the same step on a batch that stays on the device."""
    iterations = 10 if figures.small else 400
    options = model_options(figures.small, name, root, iterations)
    options['train']['cuda_graph'] = graph
    seconds = seconds_in_run(options, root)
    torch.backends.cudnn.benchmark = True
    model = TrainingModel({**options, 'dist': False, 'is_train': True, 'rank': 0, 'world_size': 1})
    with feeding(block(root, LOADERS[name])) as feeder:
        batch = feeder.next()

    def step(batch: Any = batch) -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)

    seconds_of(step, 5)
    alone = seconds_of(step, iterations // 2)
    told = f'{name}_graph' if graph else name
    figures.write(f'feeding_run_{told}', BATCH / seconds, 'images/s', step_alone=BATCH / alone)
    share = 100 * max(0.0, 1 - alone / seconds)
    figures.write(f'feeding_data_share_{told}', share, '%', '<= 2', iteration_ms=1e3 * seconds, step_ms=1e3 * alone)
    if (name, graph) == RUNS[0] and not meets(share, '<= 2'):
        with feeding(block(root, LOADERS[name])) as feeder:
            profile(lambda: step(feeder.next()), 'feeding', figures.out)


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0])
    logging.disable(logging.INFO)
    figures = Figures('feeding', args.out, args.minutes, args.small)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, args.small)
        for name, graph in RUNS[:1] if args.small else RUNS:
            with figures.attempt(f'feeding_run_{name}', 12) as there_is_time:
                if there_is_time:
                    measure_run(figures, root, name, graph)
        for name, loader in LOADERS.items():
            if args.small and loader['num_worker_per_gpu']:
                loader = {**loader, 'num_worker_per_gpu': 1}
            with figures.attempt(f'feeding_{name}', 5) as there_is_time:
                if there_is_time:
                    with feeding(block(root, loader)) as feeder:
                        speed = images_per_second(feeder, 0.3 if args.small else 3)
                    figures.write(f'feeding_{name}', speed, 'images/s', workers=loader['num_worker_per_gpu'])


if __name__ == '__main__':
    main()
