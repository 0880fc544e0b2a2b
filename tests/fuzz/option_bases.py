"""Valid options to damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from run_helpers import eco_options, gan_options, sr_options, write_centroids, write_pairs

_KERNEL = {
    'blur_kernel_size': 21, 'kernel_list': ['iso', 'aniso'], 'kernel_prob': [0.5, 0.5], 'sinc_prob': 0.1,
    'blur_sigma': [0.2, 3], 'betag_range': [0.5, 4], 'betap_range': [1, 2],
}  # fmt: skip
_DEGRADATION = {
    'resize_prob': [0.2, 0.7, 0.1], 'resize_range': [0.5, 1.5], 'gaussian_noise_prob': 0.5, 'noise_range': [1, 30],
    'poisson_scale_range': [0.05, 3], 'gray_noise_prob': 0.4, 'jpeg_range': [30, 95],
}  # fmt: skip


def real_esrgan_options(root: Path) -> dict[str, Any]:
    """Options of a RealESRGANModel with its own dataset, on the images of ``write_pairs`` and a list of them."""
    real = gan_options(root, 'RealESRGANModel')
    real['datasets']['train'] = {
        'name': 'train', 'type': 'RealESRGANDataset', 'dataroot_gt': f'{root}/hr', 'meta_info': f'{root}/meta.txt',
        'io_backend': {'type': 'disk'}, **_KERNEL, **{f'{k}2': v for k, v in _KERNEL.items()}, 'final_sinc_prob': 0.8,
        'use_hflip': True, 'use_rot': False, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': 2,
    }  # fmt: skip
    real.update(
        **_DEGRADATION, **{f'{k}2': v for k, v in _DEGRADATION.items()}, second_blur_prob=0.8, gt_size=32, queue_size=4,
        l1_gt_usm=True, percep_gt_usm=True, gan_gt_usm=False,
    )  # fmt: skip
    return real


def prepare(root: Path, photos: dict) -> list[tuple[bool, dict[str, Any]]]:
    """Writes images into a folder; returns valid options on them, with whether they are those of a training."""
    write_pairs(root, photos)
    write_centroids(root)
    (root / 'meta.txt').write_text(''.join(f'{p.name}\n' for p in sorted((root / 'hr').iterdir())))
    stock = sr_options(root)
    stock['train'].update(ema_decay=0.9, warmup_iter=-1)
    stock['val'].update(
        pbar=False, metrics={**stock['val']['metrics'], 'ssim': {'type': 'calculate_ssim', 'crop_border': 2}}
    )
    gan = gan_options(root)
    gan['train'].update(net_d_iters=1, net_d_init_iters=0)
    eco = eco_options(root, objective='eco', schedule={'type': 'linear'}, noise_sigma=0.01)
    eco['train'].update(grad_clip={'value': 0.1}, guard={'factor': 5, 'initial': 100, 'max_skips': 3})
    test = sr_options(root, name='test')
    test['datasets'] = {'test': test['datasets']['val']}
    test['val'] = {'save_img': False, 'suffix': None, 'metrics': test['val']['metrics']}
    del test['train'], test['logger']
    return [(True, stock), (True, gan), (True, eco), (True, real_esrgan_options(root)), (False, test)]
