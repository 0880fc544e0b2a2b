"""BasicSR 1.4.2's published option files, as far as their keys go, with plausible values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

_TABLE = json.loads((Path(__file__).parent / 'stock_option_keys.json').read_text())
FILES = {file: blocks for blocks, files in _TABLE['files'].items() for file in files}

# Small where size costs time; 'PATH' for whatever names a file or folder.
_VALUES: dict[str, Any] = {
    'name': 'REDS4', 'num_gpu': 'auto', 'manual_seed': 0, 'find_unused_parameters': True, 'suffix': None,
    'crop_border': 4, 'save_img': False, 'test_y_channel': True, 'better': 'higher', 'pbar': False, 'val_freq': 5e3,
    'flip_seq': True, 'center_frame_only': True, 'print_freq': 100, 'save_checkpoint_freq': 5e3, 'use_tb_logger': True,
    'project': None, 'resume_id': None, 'backend': 'nccl', 'port': 29500, 'strict_load_g': True, 'param_key_g': 'params_ema',
    'resume_state': None, 'pretrain_network_g': 'PATH', 'dataroot_gt': 'PATH', 'dataroot_lq': 'PATH', 'dataroot_flow': None,
    'meta_info_file': 'PATH', 'meta_info': 'PATH', 'cache_data': False, 'padding': 'reflection_circle', 'num_frame': 7,
    'use_duf_downsampling': True, 'filename_tmpl': '{}x4', 'gt_size': 192, 'use_hflip': True, 'use_rot': True,
    'interval_list': [1], 'random_reverse': False, 'flip_sequence': True, 'test_mode': False, 'val_partition': 'REDS4',
    'num_worker_per_gpu': 6, 'batch_size_per_gpu': 4, 'dataset_enlarge_ratio': 200, 'prefetch_mode': None, 'color': 'y',
    'mean': [0.5, 0.5, 0.5], 'std': [0.5, 0.5, 0.5], 'blur_kernel_size': 21, 'kernel_list': ['iso', 'plateau_aniso'],
    'kernel_prob': [0.45, 0.55], 'sinc_prob': 0.1, 'blur_sigma': [0.2, 3], 'betag_range': [0.5, 4], 'betap_range': [1, 2],
    'final_sinc_prob': 0.8, 'resize_prob': [0.2, 0.7, 0.1], 'resize_range': [0.15, 1.5], 'gaussian_noise_prob': 0.5,
    'noise_range': [1, 30], 'poisson_scale_range': [0.05, 3], 'gray_noise_prob': 0.4, 'jpeg_range': [30, 95],
    'second_blur_prob': 0.8, 'queue_size': 180, 'gt_usm': True, 'l1_gt_usm': True, 'percep_gt_usm': True, 'gan_gt_usm': False,
    'ema_decay': 0.999, 'lr': 1e-4, 'weight_decay': 0, 'betas': [0.9, 0.99], 'periods': [300000], 'restart_weights': [1],
    'eta_min': 1e-7, 'milestones': [200000], 'gamma': 0.5, 'total_iter': 300000, 'warmup_iter': -1, 'fix_flow': 5000,
    'flow_lr_mul': 0.125, 'lr_flow': 0.0, 'tsa_iter': 50000, 'dcn_lr_mul': 1, 'loss_weight': 1e-2, 'reduction': 'mean',
    'layer_weights': {'conv5_4': 1}, 'vgg_type': 'vgg19', 'use_input_norm': True, 'range_norm': False,
    'perceptual_weight': 1.0, 'style_weight': 0, 'criterion': 'l1', 'gan_type': 'lsgan', 'real_label_val': 1.0,
    'fake_label_val': 0.0, 'net_d_iters': 1, 'net_d_init_iters': 0, 'r1_reg_weight': 10, 'path_batch_shrink': 2,
    'path_reg_weight': 2, 'net_g_reg_every': 4, 'net_d_reg_every': 16, 'mixing_prob': 0.9,
    # networks
    'spynet_path': None, 'edvr_path': None, 'num_feat': 16, 'num_block': 1, 'keyframe_stride': 5, 'temporal_padding': 2,
    'mid_channels': 16, 'num_blocks': 1, 'is_low_res_input': True, 'num_layer': 52, 'adapt_official_weights': True,
    'num_in_ch': 3, 'num_out_ch': 3, 'res_scale': 1, 'img_range': 255.0, 'rgb_mean': [0.4488, 0.4371, 0.404],
    'deformable_groups': 8, 'num_extract_block': 1, 'num_reconstruct_block': 1, 'center_frame_idx': None, 'hr_in': False,
    'with_predeblur': True, 'with_tsa': True, 'num_grow_ch': 4, 'use_vae': False, 'z_dim': 256, 'crop_size': 512,
    'norm_g': 'spectralspadebatch3x3', 'is_train': False, 'num_group': 1, 'squeeze_factor': 4, 'num_channel': 4,
    'with_idt': False, 'act_type': 'prelu', 'input_size': 256, 'conditional_d': True, 'norm_d': 'spectralinstance',
    'skip_connection': True, 'out_size': 32, 'num_style_feat': 16, 'num_mlp': 2, 'channel_multiplier': 2,
    'resample_kernel': [1, 3, 3, 1], 'lr_mlp': 0.01, 'in_chans': 3, 'img_size': 48, 'window_size': 8, 'depths': [1, 1],
    'embed_dim': 12, 'num_heads': [2, 2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffle', 'resi_connection': '1conv',
}  # fmt: skip


def options_of(file: str) -> dict[str, Any]:
    """Options with the keys of a published file."""
    model, scale, *blocks = FILES[file].split()
    options: dict[str, Any] = {'name': file.rpartition('/')[2], 'model_type': model, 'path': {}}
    if scale != '-':
        options['scale'] = int(scale)
    for block in blocks:
        where, _, name = block.partition('=')
        made = _block(_TABLE['blocks'][name], int(scale) if scale != '-' else 1)
        target = options
        if where == 'top':
            target.update(made)
            continue
        *above, key = where.split('.')
        for part in above:
            target = target.setdefault(part, {})
        target[key] = made
    for dataset in options['datasets'].values():
        if dataset['type'] == 'VideoRecurrentTestDataset':
            dataset['cache_data'] = True
    return options


def _block(text: str, scale: int) -> dict[str, Any]:
    made, rest = _parse(text, scale)
    assert not rest.strip()
    return made


def _parse(text: str, scale: int) -> tuple[dict[str, Any], str]:
    """Reads ``type: key key(type: key)`` up to the end or an unopened bracket."""
    made: dict[str, Any] = {}
    typed = re.match(r'\s*(\w+)(:|(?=\)))', text)
    if typed:
        made['type'] = typed[1]
        text = text[typed.end() :]
    while (match := re.match(r'\s*(\w+)', text)) is not None:
        key, text = match[1], text[match.end() :]
        if text.startswith('('):
            made[key], text = _parse(text[1:], scale)
            assert text.startswith(')')
            text = text[1:]
        else:
            made[key] = (
                scale if key in ('scale', 'upscale') else _VALUES[key if key in _VALUES else key.removesuffix('2')]
            )
    return made, text
