"""What networks need of their input, and that tiles are exact where they get it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.networks.inference import Inference, super_resolve
from basicsr_ext.networks.requirements import requirements_of

SRCNN = {'type': 'SRCNN', 'in_channels': 3, 'num_feat': 4, 'num_mapping_feat': 4}
REFINER = {'type': 'CliqueRefiner', 'num_feat': 2, 'num_block': 1}
RRDB = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'num_grow_ch': 2}


@pytest.mark.parametrize(
    ('network', 'expected'),
    [
        ({'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3}, (1, False)),
        ({'type': 'EDSR', 'num_in_ch': 1, 'num_out_ch': 1}, (1, True)),
        ({'type': 'SwinIR'}, (7, False)),  # its default
        ({'type': 'SwinIR', 'window_size': 8, 'in_chans': 1}, (8, True)),
        ({'type': 'VDSR'}, (1, True)),  # its default
        ({'type': 'VDSR', 'in_channels': 3}, (1, False)),
        ({'type': 'Unknown', 'window_size': [4, 6], 'num_in_ch': 3}, (12, False)),
        ({'type': 'Unknown'}, (1, False)),
        ({'type': 'CliqueRefiner'}, (2, False)),
        (RRDB, (1, False)),
        ({**RRDB, 'scale': 2}, (2, False)),
        ({**RRDB, 'scale': 1}, (4, False)),
        ({'type': 'LFCSR', 'stage_o': {**SRCNN, 'upscale': 3}}, (2, False)),  # the other stage by default
        ({'type': 'LFCSR', 'stage_o': {**SRCNN, 'upscale': 2}}, (1, False)),
        ({'type': 'LFCSR', 'stage_o': {'type': 'SRCNN', 'upscale': 1}, 'order': 'po'}, (2, True)),
        ({'type': 'LFCSR', 'stage_o': {**RRDB, 'scale': 2}, 'stage_p': REFINER}, (2, False)),
    ],
)
def test_needs(network, expected):
    assert requirements_of(network) == expected


# Pixels of overlap that cover the receptive field -> networks.
SMALL = {
    24: [
        {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2},
        {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_group': 1, 'num_block': 1, 'upscale': 2,
         'squeeze_factor': 2},
        {'type': 'HAN', 'num_feat': 4, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 2, 'upscale': 2},
        {'type': 'MSRResNet', 'num_feat': 4, 'num_block': 1, 'upscale': 2},
        {'type': 'SRVGGNetCompact', 'num_feat': 4, 'num_conv': 1, 'upscale': 3},
        {'type': 'ECBSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_block': 1, 'num_channel': 4, 'with_idt': False,
         'act_type': 'prelu', 'scale': 2},
        {'type': 'FSRCNN', 'num_feat': 4, 'num_shrink_feat': 2, 'num_mapping': 1, 'upscale': 3},
        {**SRCNN, 'upscale': 3},
        {'type': 'VDSR', 'num_feat': 4, 'num_conv': 3, 'upscale': 2},
        {'type': 'DRRN', 'num_feat': 4, 'num_unit': 1, 'upscale': 2},
        {'type': 'LapSRN', 'num_feat': 4, 'num_conv': 1, 'upscale': 4},
        {'type': 'LFCSR', 'stage_o': {**SRCNN, 'upscale': 2}, 'stage_p': REFINER},
        {'type': 'LFCSR', 'stage_o': {**SRCNN, 'upscale': 3}, 'stage_p': REFINER},
        {'type': 'SwinIR', 'upscale': 2, 'img_size': 8, 'window_size': 4, 'depths': [2], 'embed_dim': 8, 'num_heads': [2],
         'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect'},
        {'type': 'spandrel', 'architecture': 'Compact', 'num_feat': 4, 'num_conv': 1, 'upscale': 2},
    ],
    56: [
        REFINER,
        RRDB,
        {'type': 'LFCSR', 'stage_o': {**SRCNN, 'upscale': 1}, 'stage_p': REFINER, 'order': 'po'},
        {'type': 'RIDNet', 'in_channels': 3, 'mid_channels': 16, 'out_channels': 3, 'num_block': 1},
        {'type': 'CriaCLNet', 'num_feat': 4, 'num_grow_ch': 2, 'num_block': 1, 'num_branch_block': 1, 'upscale': 2},
    ],
    96: [{**RRDB, 'scale': 2}],
    176: [{**RRDB, 'scale': 1}],
}  # fmt: skip
OTHERS = {  # videos, faces, discriminators
    'BasicVSR', 'BasicVSRPlusPlus', 'DFDNet', 'DUF', 'EDVR', 'HiFaceGAN', 'HiFaceGANDiscriminator', 'IconVSR',
    'SRGANDiscriminator', 'SpyNet', 'StyleGAN2Discriminator', 'StyleGAN2Generator', 'TOFlow', 'UNetDiscriminatorSN',
    'VGGFeatureExtractor', 'VGGStyleDiscriminator',
}  # fmt: skip
CASES = [
    pytest.param(network, overlap, id=f'{network["type"]}-{network.get("scale", network.get("upscale", ""))}')
    for overlap, networks in SMALL.items()
    for network in networks
]


def test_every_network_is_known_here():
    from basicsr.utils.registry import ARCH_REGISTRY

    ours = {name for name, kind in ARCH_REGISTRY if kind.__module__.partition('.')[0] in ('basicsr', 'basicsr_ext')}
    tested = {network['type'] for networks in SMALL.values() for network in networks}
    assert {name.removesuffix('_basicsr') for name in ours} == tested | OTHERS


@pytest.mark.parametrize(('network', 'overlap'), CASES)
def test_tiles_give_what_the_whole_image_gives(network, overlap):
    """Sides are odd, and without its multiple a second tile would begin at pixel 13."""
    from basicsr.archs import build_network

    torch.manual_seed(0)
    built = build_network(dict(network)).eval().requires_grad_(False)
    for parameter in built.parameters():
        if parameter.ndim == 4:  # some networks begin so that they do next to nothing
            nn.init.kaiming_uniform_(parameter)
    for parent in list(built.modules()):  # their mean is of a tile or of an image
        for name, child in parent.named_children():
            if isinstance(child, nn.AdaptiveAvgPool2d):
                setattr(parent, name, nn.Identity())
    tile = overlap + overlap // 4 + 13
    needs = requirements_of(network)
    image = torch.rand(1, 3, tile + 13, tile + 13)[:, : 1 if needs.luminance else 3]
    whole = super_resolve(built, image, Inference(None, window=needs.window)).images
    tiled = super_resolve(built, image, Inference(None, tile, overlap, window=needs.window)).images
    assert whole.shape[-1] % image.shape[-1] == 0 and whole.std() > 1e-4
    assert (tiled - whole).abs().max() < 2e-3 * whole.std()
