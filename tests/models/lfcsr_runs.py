"""What tests of LFC-SR share: options of small runs, models, batches."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from run_helpers import TINY_EDSR, forked, model_options, run, sr_options, write_options, write_pairs

from basicsr_ext.models.lfcsr.lfcsr_model import LFCSRModel

sys.path.insert(0, str(Path(__file__).parents[1] / 'losses'))
from vgg_files import write_vgg

REFINER = {'type': 'CliqueRefiner', 'num_feat': 2, 'num_block': 1}
CONVOLUTIONS = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}


def make_images(root: Path, photos: dict) -> Path:
    """Writes small pairs of images, and random weights of VGG-19."""
    write_pairs(root, photos)
    write_vgg(root / 'vgg19.pth')
    return root


def lfcsr_options(images: Path, order: str = 'op', **lfcsr) -> dict:
    """Two iterations of pretraining, then three in turn, without perceptual losses."""
    options = sr_options(images, model_type='LFCSRModel')
    enlarging, refining = dict(TINY_EDSR), dict(REFINER)
    stages = (enlarging, refining) if order == 'op' else (refining, enlarging)
    options['network_g'] = {'type': 'LFCSR', 'stage_o': stages[0], 'stage_p': stages[1], 'order': order}
    options['datasets']['train'].update(gt_size=32)
    options['train'] = {
        'total_iter': 5,
        'ema_decay': 0.9,
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 255},
        'pixel_p_opt': {'type': 'L1Loss', 'loss_weight': 25},
        'down_opt': {'type': 'L1Loss', 'loss_weight': 255},
        'grad_clip': {'value': 1e-1},
        **{f'optim_{player}': {'type': 'Adam', 'lr': 1e-3} for player in 'gop'},
        'scheduler_g': {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [1, 2], 'gamma': 0.5},
        'lfcsr': {'admm_start_iter': 2, **lfcsr},
    }
    options['val']['val_freq'] = 5
    options['logger'].update(print_freq=1, save_checkpoint_freq=1)
    return options


def with_discriminator(options: dict) -> dict:
    options['network_d'] = dict(CONVOLUTIONS)
    options['train'].update(
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.001}, optim_d={'type': 'Adam', 'lr': 1e-3}
    )
    return options


def with_all_losses(options: dict, images: Path) -> dict:
    vgg = str(images / 'vgg19.pth')
    options['train'].update(
        contextual_opt={'type': 'ContextualLoss', 'loss_weight': 0.1, 'layers': ['relu1_2'], 'vgg_weights': vgg},
        perceptual_opt={'type': 'FeatureLoss', 'layer_weights': {'conv2_1': 1.0}, 'vgg_weights': vgg},
    )
    return with_discriminator(options)


def built(options: dict, root: Path) -> LFCSRModel:
    with model_options(options, root) as opt:
        return LFCSRModel(opt)


def batches(count: int, size: int = 2) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {'lq': torch.rand(size, 3, 16, 16, generator=generator), 'gt': torch.rand(size, 3, 32, 32, generator=generator)}
        for _ in range(count)
    ]


def play(model: LFCSRModel, data: list, first: int = 1, logs: list | None = None) -> LFCSRModel:
    for iteration, batch in enumerate(data, first):
        model.update_learning_rate(iteration)
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        if logs is not None:
            logs.append(dict(model.get_current_log()))
    return model


def everything(model: LFCSRModel) -> dict[str, torch.Tensor]:
    """All weights, EMA and the dual variable; of what the optimizers keep, the weights tell."""
    networks = {'g': model.net_g, 'ema': model.net_g_ema, **({'d': model.net_d} if hasattr(model, 'net_d') else {})}
    state = {f'{name}.{key}': value for name, net in networks.items() for key, value in net.state_dict().items()}
    return {**state, 's': torch.as_tensor(model.dual)}


def assert_equal(first: dict, second: dict, tolerance: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=tolerance, msg=lambda m, key=key: f'{key}: {m}')


def train(root: Path, options: dict, *arguments: str) -> int:
    return forked(run, root, write_options(root / 'o.yml', options), *arguments)
