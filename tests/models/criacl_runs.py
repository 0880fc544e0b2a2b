"""What tests of Cria-CL share: options of small runs, models, batches."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from run_helpers import model_options, sr_options, write_pairs

from basicsr_ext.models.criacl_model import CriaCLModel

sys.path.insert(0, str(Path(__file__).parents[1] / 'losses'))
from vgg_files import write_vgg

CRITERIA_OF_BOTH_VIEWS = {f'c_{c}_{v}' for c in ('pix', 'ssim', 'perc_b', 'perc_t', 'adv') for v in ('align', 'unif')}
NETWORK = {'type': 'CriaCLNet', 'num_feat': 4, 'num_grow_ch': 2, 'num_block': 1, 'upscale': 2}


def make_images(root: Path, photos: dict) -> Path:
    """Writes small pairs of images, and random weights of VGG-19."""
    write_pairs(root, photos)
    write_vgg(root / 'vgg19.pth')
    return root


def criacl_options(images: Path, **cria) -> dict:
    options = sr_options(images, model_type='CriaCLModel')
    options['network_g'] = dict(NETWORK)
    options['network_d'] = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}
    vgg = str(images / 'vgg19.pth')
    options['train'].update(
        total_iter=4,
        ema_decay=0.9,
        pixel_opt={'type': 'L1Loss', 'loss_weight': 0.01},
        perceptual_opt={'type': 'FeatureLoss', 'layer_weights': {'conv2_1': 1.0}, 'vgg_weights': vgg},
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.005},
        optim_d={'type': 'Adam', 'lr': 1e-3},
        cria_opt={
            'type': 'CriaLoss',
            'bottom_layers': ['relu1_1'],
            'top_layers': ['relu2_1'],
            'vgg_weights': vgg,
            **cria,
        },
    )
    options['logger'].update(print_freq=1, save_checkpoint_freq=1)
    return options


def mixed(options: dict) -> dict:
    """Training images from two sources, one with noise."""
    block = options['datasets']['train']
    source = {'dataroot_gt': block.pop('dataroot_gt'), 'dataroot_lq': block.pop('dataroot_lq'), 'weight': 1}
    noise = {'dataroot': source['dataroot_gt'], 'probability': 0.7}
    del block['io_backend']
    block.update(type='MixedStoreDataset', sources={'A': {**source, 'noise': noise}, 'B': {**source, 'weight': 2}})
    return options


def vgg_style(images: Path) -> dict:
    options = criacl_options(images)
    options['network_d'] = {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4, 'input_size': 128}
    return options


def built(options: dict, root: Path) -> CriaCLModel:
    with model_options(options, root) as opt:
        return CriaCLModel(opt)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {'lq': torch.rand(2, 3, 8, 8, generator=generator), 'gt': torch.rand(2, 3, 16, 16, generator=generator)}


def trained(model: CriaCLModel, iterations: int, part: slice = slice(None), first: int = 1) -> CriaCLModel:
    for iteration in range(first, first + iterations):
        model.feed_data({key: value[part] for key, value in batch(iteration).items()})
        model.optimize_parameters(iteration)
    return model


def weights_of(model: CriaCLModel) -> dict[str, torch.Tensor]:
    """Values of all networks, by name."""
    networks = {'g': model.net_g, 'ema': model.net_g_ema, 'd': model.net_d}
    return {f'{n}.{k}': v.detach().clone() for n, net in networks.items() for k, v in net.state_dict().items()}


def assert_near(first: dict, second: dict, tolerance: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert (value - second[name]).abs().max() <= tolerance, name
