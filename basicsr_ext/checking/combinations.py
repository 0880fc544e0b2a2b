"""Runs that cannot work although every option is right by itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.models.video_base_model import VideoBaseModel
from basicsr.utils.registry import MODEL_REGISTRY

from basicsr_ext.checking import structure
from basicsr_ext.checking.dataset_contents import Contents
from basicsr_ext.checking.metrics import compares
from basicsr_ext.checking.registries import look_up, origin
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.stock_datasets import WITHOUT_GT
from basicsr_ext.checking.structure import network_keys, phase_of
from basicsr_ext.errors import UserError
from basicsr_ext.files import expand_home, follow_links
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.options.problems import KeyPath, brief, known_names


def world_size(launcher: str) -> int:
    """Number of ranks, as the launcher tells it."""
    variable = {'pytorch': 'WORLD_SIZE', 'slurm': 'SLURM_NTASKS'}.get(launcher)
    value = os.environ.get(variable, '1') if variable else '1'
    return max(1, int(value)) if value.isdigit() else 1


def check_devices(report: Report, launcher: str | None) -> None:
    """Checks that the GPUs that are asked for are there; warns only where the run will be started elsewhere (``None``)."""
    from basicsr_ext.distributed import resolve_num_gpu

    num_gpu = report.get('num_gpu')
    if report.has_no_problems('num_gpu') and num_gpu != 'auto':
        try:
            resolve_num_gpu(num_gpu, launcher)
        except UserError as error:
            note = report.warn if launcher is None else report.error
            note(('num_gpu',), str(error).removeprefix('num_gpu: '))


def check_training(report: Report, contents: Mapping[str, Contents], ranks: int) -> None:
    """Checks batch and crop against each other and against the data."""
    _check_epoch(report, contents, ranks)
    _check_degradation(report)


def check_loaders(report: Report) -> None:
    """Checks the options of loaders against each other."""
    for name in report.block('datasets'):
        path, block = ('datasets', name), report.block('datasets', name)
        # BasicSR gives validation no workers, whatever the options say.
        workers = block.get('num_worker_per_gpu') if phase_of(name) == 'train' else 0
        if block.get('persistent_workers') is True and not workers:
            report.error((*path, 'persistent_workers'), 'expected false, since this loader has no workers.')
        on_gpu = report.get('num_gpu') != 0 and phase_of(name) == 'train'
        if block.get('prefetch_mode') == 'cuda' and block.get('pin_memory') is not True and on_gpu:
            report.error((*path, 'pin_memory'), 'expected true, since prefetch_mode is cuda.')


def check_stored_values(report: Report) -> None:
    """Checks that a model that takes images in [0, 1] gets them; ours turn stored integers into such on the device."""
    model = look_up(MODEL_REGISTRY, str(report.get('model_type')))
    if not isinstance(model, type) or issubclass(model, TrainingModel):
        return
    for name, block in structure.datasets(report).items():
        if block.get('output') == 'uint8':
            note = report.warn if origin(model) == 'other' else report.error
            note(
                ('datasets', name, 'output'),
                f'expected float32, since {model.__name__} takes images in [0, 1], found uint8. TrainingModel takes both.',
            )


def check_validation(report: Report, datasets: Mapping[str, type], metrics: Mapping[str, Any]) -> None:
    """Checks that there are GT images where metrics need them, and that ``keep_best`` names a metric."""
    comparing = [name for name, function in metrics.items() if compares(function)]
    for name, dataset in datasets.items():
        if phase_of(name) == 'train' or not comparing:
            continue
        if dataset.__name__ in WITHOUT_GT and origin(dataset) == 'stock':
            reason = f'{dataset.__name__} gives none'
        elif hasattr(dataset, 'options_type') and report.get('datasets', name, 'dataroot_gt') is None:
            reason = 'dataroot_gt is not set'
        else:
            continue
        message = f'expected GT images, which {", ".join(comparing)} in val.metrics compare with, but {reason}.'
        report.error(('datasets', name), message)
    model = look_up(MODEL_REGISTRY, str(report.get('model_type')))
    if metrics and isinstance(model, type) and issubclass(model, VideoBaseModel) and report.get('num_gpu') == 0:
        report.error(('num_gpu',), f'expected GPUs, since {model.__name__} gathers val.metrics there, found 0.')
    best = report.get('logger', 'keep_best')
    known = list(report.block('val', 'metrics'))
    if known and hasattr(model, 'scores_of'):
        known = model.scores_of(known, report.values)
    if isinstance(best, str) and best not in known:
        report.error(
            ('logger', 'keep_best'),
            f'expected the name of a score of val.metrics, found {brief(best)}; {known_names(best, known)}',
        )
    elif isinstance(best, str) and not any(phase_of(name) == 'val' for name in structure.datasets(report)):
        report.error(
            ('logger', 'keep_best'), 'expected a dataset such as datasets.val, on which to find the best, found none.'
        )


def check_resuming(report: Report, root: Path) -> None:
    """Checks that the state to go on from is one of this experiment."""
    value = report.get('path', 'resume_state')
    name = report.get('name')
    if not isinstance(value, str) or not isinstance(name, str) or not report.has_no_problems('path', 'resume_state'):
        return
    state = follow_links(expand_home(value))
    folder = root / 'experiments' / name
    if state.parent != folder / 'training_states' or not state.stem.isdecimal():
        expected = folder / 'training_states' / f'{state.stem if state.stem.isdecimal() else "<iteration>"}.state'
        report.error(
            ('path', 'resume_state'),
            f'expected a training state of this experiment, such as {expected}, found {state}. To start another run from its '
            'weights, set path.pretrain_network_g to its network file.',
        )
        return
    ignored = report.get('path', 'ignore_resume_networks') or ()
    for key in network_keys(report):
        file = folder / 'models' / f'{key.replace("network_", "net_")}_{state.stem}.pth'
        if key not in ignored and not file.is_file():
            report.error(
                ('path', 'resume_state'), f'expected the network that belongs to {state.name}, found nothing at {file}.'
            )


# ---- the data ------------------------------------------------------------------------------------------------------------


def _check_epoch(report: Report, contents: Mapping[str, Contents], ranks: int) -> None:
    path: KeyPath = ('datasets', 'train')
    train = contents.get('train')
    if train is None or not report.has_no_problems(*path):
        return
    batch, ratio = report.get(*path, 'batch_size_per_gpu'), report.get(*path, 'dataset_enlarge_ratio') or 1
    samples = int(train.length * ratio)
    if samples < batch * ranks:
        report.error(
            (*path, 'batch_size_per_gpu'),
            f'{batch} samples on each of {ranks} ranks are more than an epoch of {train.length} x {ratio}. '
            'Lower it, or raise dataset_enlarge_ratio.',
        )
    if samples > 2**31:
        report.error(
            (*path, 'dataset_enlarge_ratio'), f'expected an epoch of at most {2**31:,} samples, found {samples:,}.'
        )
    size, scale = report.get(*path, 'gt_size'), report.get('scale')
    if train.smallest_gt is not None and isinstance(size, int) and min(train.smallest_gt.size) < size:
        height, width = train.smallest_gt.size
        report.error(
            (*path, 'gt_size'),
            f'{size} is more than the smallest GT image has: {brief(train.smallest_gt.name)} is {height}x{width}.',
        )
    if train.is_paired and isinstance(size, int) and isinstance(scale, int) and size % scale:
        report.error((*path, 'gt_size'), f'expected a multiple of scale ({scale}), found {size}.')
    if train.mismatch is not None:
        report.error((*path, 'dataroot_lq'), train.mismatch)


def _check_degradation(report: Report) -> None:
    """Checks Real-ESRGAN's pool of training pairs, its kernels, and what its artifact loss compares with."""
    if (
        report.block('train', 'ldl_opt')
        and report.get('model_type') == 'RealESRGANModel'
        and not report.get('train', 'ema_decay')
    ):
        report.error(
            ('train', 'ldl_opt'), 'expected train.ema_decay too: this loss compares with the averaged network.'
        )
    batch, pool = report.get('datasets', 'train', 'batch_size_per_gpu'), report.get('queue_size') or 180
    if str(report.get('model_type')).startswith('RealESR') and report.get('high_order_degradation') is not False:
        if isinstance(batch, int) and isinstance(pool, int) and pool % batch:
            report.error(('queue_size',), f'expected a multiple of batch_size_per_gpu ({batch}), found {pool}.')
        dataset = report.get('datasets', 'train', 'type')
        if isinstance(dataset, str) and dataset.startswith('Paired'):
            report.error(
                ('datasets', 'train', 'type'),
                f'expected RealESRGANDataset, which gives the kernels of high_order_degradation, found {dataset}.',
            )
    for ending in ('', '2'):
        kernels, shares = (report.get('datasets', 'train', f'{key}{ending}') for key in ('kernel_list', 'kernel_prob'))
        if isinstance(kernels, list) and isinstance(shares, list) and (len(kernels) != len(shares) or not any(shares)):
            report.error(
                ('datasets', 'train', f'kernel_prob{ending}'), 'expected a share for each of the kernels, not all 0.'
            )
