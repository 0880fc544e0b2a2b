"""What tests of whole runs share: tiny image sets, options, and runs on several ranks."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from waiting import status_of_child

TINY_EDSR = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2}


def write_weights(path: Path) -> str:
    """Writes random weights of TINY_EDSR."""
    from basicsr.archs import build_network

    torch.save({'params': build_network(dict(TINY_EDSR)).state_dict()}, path)
    return str(path)


def write_images(folder: Path, images: dict[str, np.ndarray]) -> Path:
    """Writes RGB images as PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    for key, image in images.items():
        assert cv2.imwrite(str(folder / f'{key}.png'), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return folder


def write_pairs(root: Path, photos: dict[str, np.ndarray], scale: int = 2, size: int = 48) -> None:
    """Writes ``root/hr`` and ``root/lr``: a crop of every photograph, and its LR image."""
    from basicsr_ext.functional.resize import downsample

    crops = {key: np.ascontiguousarray(image[100 : 100 + size, 100 : 100 + size + 12]) for key, image in photos.items()}
    write_images(root / 'hr', crops)
    write_images(root / 'lr', {key: downsample(crop, scale) for key, crop in crops.items()})


def sr_options(root: Path, **changes: Any) -> dict[str, Any]:
    """Options of a stock SRModel run on :func:`write_pairs`' images; ``changes`` replace top-level blocks."""
    data = {'type': 'PairedImageDataset', 'dataroot_gt': f'{root}/hr', 'dataroot_lq': f'{root}/lr'}
    options = {
        'name': 'run',
        'model_type': 'SRModel',
        'scale': 2,
        'num_gpu': 0,
        'manual_seed': 7,
        'datasets': {
            'train': {
                'name': 'train',
                **data,
                'io_backend': {'type': 'disk'},
                'gt_size': 16,
                'use_hflip': True,
                'use_rot': True,
                'num_worker_per_gpu': 0,
                'batch_size_per_gpu': 2,
                'dataset_enlarge_ratio': 2,
            },
            'val': {'name': 'val', **data, 'io_backend': {'type': 'disk'}},
        },
        'network_g': dict(TINY_EDSR),
        'path': {'pretrain_network_g': None, 'strict_load_g': True, 'resume_state': None},
        'train': {
            'optim_g': {'type': 'Adam', 'lr': 1e-3},
            'scheduler': {'type': 'MultiStepLR', 'milestones': [3], 'gamma': 0.5},
            'total_iter': 4,
            'pixel_opt': {'type': 'L1Loss'},
        },
        'val': {
            'val_freq': 4,
            'save_img': False,
            'metrics': {'psnr': {'type': 'calculate_psnr', 'crop_border': 2, 'test_y_channel': True}},
        },
        'logger': {'print_freq': 1, 'save_checkpoint_freq': 2, 'use_tb_logger': False},
    }
    options.update(deepcopy(changes))
    return options


def gan_options(root: Path, model_type: str = 'ESRGANModel') -> dict[str, Any]:
    """Options of a stock adversarial run with a U-Net discriminator."""
    options = sr_options(root, model_type=model_type)
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4, 'skip_connection': True}
    options['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-3}
    options['train']['gan_opt'] = {
        'type': 'GANLoss',
        'gan_type': 'vanilla',
        'real_label_val': 1.0,
        'fake_label_val': 0.0,
        'loss_weight': 0.1,
    }
    options['train']['ema_decay'] = 0.9
    return options


def real_esrgan_options(root: Path, gt_size: int = 32, queue_size: int = 4) -> dict[str, Any]:
    """Options of a stock RealESRGANModel run, which degrades the images of :func:`write_pairs` itself."""
    options = gan_options(root, 'RealESRGANModel')
    kernel = {
        'blur_kernel_size': 21,
        'kernel_list': ['iso', 'aniso'],
        'kernel_prob': [0.5, 0.5],
        'sinc_prob': 0.1,
        'blur_sigma': [0.2, 3],
        'betag_range': [0.5, 4],
        'betap_range': [1, 2],
    }
    (root / 'meta.txt').write_text(''.join(f'{path.name}\n' for path in sorted((root / 'hr').iterdir())))
    options['datasets']['train'] = {
        'name': 'train', 'type': 'RealESRGANDataset', 'dataroot_gt': f'{root}/hr', 'meta_info': f'{root}/meta.txt',
        'io_backend': {'type': 'disk'}, **kernel, **{f'{key}2': value for key, value in kernel.items()},
        'final_sinc_prob': 0.8, 'gt_size': gt_size, 'use_hflip': True, 'use_rot': False, 'num_worker_per_gpu': 0,
        'batch_size_per_gpu': 2,
    }  # fmt: skip
    degradation = {
        'resize_prob': [0.2, 0.7, 0.1], 'resize_range': [0.5, 1.5], 'gaussian_noise_prob': 0.5, 'noise_range': [1, 30],
        'poisson_scale_range': [0.05, 3], 'gray_noise_prob': 0.4, 'jpeg_range': [30, 95],
    }  # fmt: skip
    options.update(degradation, **{f'{key}2': value for key, value in degradation.items()}, second_blur_prob=0.8)
    options.update(gt_size=gt_size, queue_size=queue_size, l1_gt_usm=True, percep_gt_usm=True, gan_gt_usm=False)
    return options


def eco_options(root: Path, **eco: Any) -> dict[str, Any]:
    """Options of an ECOModel run on :func:`write_pairs`' images and the stores of :func:`write_centroids`."""
    options = sr_options(root, model_type='ECOModel')
    train = options['datasets']['train']
    train.pop('io_backend')
    train.update(
        type='PairedCentroidDataset',
        output='uint8',
        dataroot_centroid=f'{root}/centroid.lmdb',
        dataroot_centroid_lq=f'{root}/centroid_lq.lmdb',
    )
    options['train']['eco'] = eco
    return options


def write_centroids(root: Path, seed: int = 3) -> Path:
    """Makes centroids of ``root/lr`` with a tiny random teacher; returns the file of its weights."""
    from basicsr.archs import build_network

    from basicsr_ext.prepare.centroids import make_centroids

    weights = root / 'teacher.pth'
    if not weights.exists():
        torch.manual_seed(seed)
        torch.save({'params': build_network(TINY_EDSR).state_dict()}, weights)
    make_centroids(
        root / 'lr', root / 'centroid.lmdb', root / 'centroid_lq.lmdb', network=TINY_EDSR, weights=weights, scale=2
    )
    return weights


def write_options(path: Path, options: dict[str, Any]) -> Path:
    """Writes an option file."""
    path.write_text(yaml.safe_dump(options, sort_keys=False))
    return path


def log_text(experiment: Path) -> str:
    """All log files of an experiment, in one text."""
    return '\n'.join(path.read_text() for path in sorted(experiment.glob('*.log')))


def network_weights(root: Path, name: str = 'run', iteration: int | str = 'latest', label: str = 'net_g') -> dict:
    """Loads the weights of a network that a run saved."""
    content = torch.load(root / 'experiments' / name / 'models' / f'{label}_{iteration}.pth', weights_only=True)
    assert content.pop('basicsr_ext', {'label': label})['label'] == label  # BasicSR's own command writes no such key
    return content


def assert_same_weights(first: dict, second: dict, tolerance: float = 0.0) -> None:
    """Compares two saved networks, key by key; tolerance is absolute, and 0 means to the bit."""
    assert first.keys() == second.keys()
    for key in first:
        assert first[key].keys() == second[key].keys()
        for name, value in first[key].items():
            difference = (value.double() - second[key][name].double()).abs().max().item() if value.numel() else 0.0
            assert difference <= tolerance, f'{key}/{name} differs by {difference}'


def on_ranks(world_size: int, function: Callable, *arguments: Any) -> None:
    """Calls a function in forked processes, with the environment that torchrun gives its ranks."""
    # the store is here, as in torchrun's agent: a port looked up for the first rank may be gone when it listens there
    store = torch.distributed.TCPStore('127.0.0.1', 0, is_master=True, wait_for_workers=False)
    environment = {
        'WORLD_SIZE': str(world_size),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(store.port),
        'TORCHELASTIC_USE_AGENT_STORE': 'True',
        'TORCHELASTIC_RESTART_COUNT': '0',
    }
    context = get_context('fork')
    processes = [
        context.Process(target=_rank, args=({**environment, 'RANK': str(r), 'LOCAL_RANK': str(r)}, function, arguments))
        for r in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(240)
        codes = [process.exitcode for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * world_size, f'ranks ended with {codes}'


def _rank(environment: dict[str, str], function: Callable, arguments: tuple) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*arguments)
    sys.stdout.flush()


@contextmanager
def model_options(options: dict[str, Any], root: Path, launcher: str = 'none') -> Iterator[dict[str, Any]]:
    """Options as a model meets them in a run, with the run's replacements in BasicSR in place."""
    from basicsr_ext.distributed import leave_ranks
    from basicsr_ext.trainer.patches.table import all_patches, installed
    from basicsr_ext.trainer.session import Run

    session = Run(options, is_train=True, root=root, launcher=launcher)
    try:
        with installed(all_patches(session)):
            opt = session.parse_options(str(root))[0]
            session.close()  # which lets a second run have the name
            yield opt
    finally:
        leave_ranks()


def plain(value: Any) -> Any:
    """Turns tensors into lists, so that states can be compared."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def final_state(root: Path, iteration: int = 7) -> dict:
    """Everything that must be equal: networks, state, metrics without wall-clock fields."""
    from basicsr_ext.trainer.metrics_log import read_metrics

    experiment = root / 'experiments/run'
    result = {}
    for path in sorted((experiment / 'models').glob(f'*_{iteration}.pth')):
        result[path.name] = plain(torch.load(path, weights_only=True))
    state = torch.load(experiment / f'training_states/{iteration}.state', weights_only=True)
    for key in ('networks', 'options', 'metrics_offset'):
        state.pop(key)
    result['state'] = plain(state)
    result['metrics'] = [
        {k: v for k, v in line.items() if k != 'wall'} for line in read_metrics(experiment / 'metrics.jsonl')
    ]
    return result


def run(root: Path, path: Path, *arguments: str) -> int:
    """Trains in a folder through the command; returns its exit status."""
    from basicsr_ext.cli.main import main

    os.chdir(root)
    return main(['train', '-opt', str(path), *arguments])


def forked(function: Callable, *arguments: Any) -> int:
    """Runs in a forked child of this warm process; returns its exit status (negative: the signal)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            status = function(*arguments)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status if isinstance(status, int) else 1)
    return status_of_child(child)
