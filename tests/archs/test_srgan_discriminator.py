"""SRGAN's discriminator: its form, any patch size, BasicSR's losses on it."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from torch import nn

from basicsr_ext.archs.srgan_discriminator_arch import SRGANDiscriminator
from basicsr_ext.errors import UserError


@pytest.mark.parametrize(
    ('num_conv', 'features'), [(8, [64, 64, 128, 128, 256, 256, 512, 512]), (6, [64, 64, 128, 128, 256, 256])]
)
def test_the_form_is_srgans(num_conv, features):
    with torch.device('meta'):
        network = SRGANDiscriminator(144, num_conv=num_conv, norm_first=False)
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == features
    assert [layer.stride for layer in convolutions] == [(1, 1), (2, 2)] * (num_conv // 2)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.features) == num_conv - 1
    side = 144 // 2 ** (num_conv // 2)
    dense = [layer for layer in network.classifier if isinstance(layer, nn.Linear)]
    assert [(d.in_features, d.out_features) for d in dense] == [(features[-1] * side**2, 1024), (1024, 1)]


def test_the_published_form_of_lfc_sr():
    """Every convolution is normalised, and has no bias; the number of weights is that of the published code."""
    with torch.device('meta'):
        network = SRGANDiscriminator(144, num_conv=6)
    convolutions = [layer for layer in network.features if isinstance(layer, nn.Conv2d)]
    assert all(layer.bias is None for layer in convolutions)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.features) == len(convolutions)
    assert sum(parameter.numel() for parameter in network.parameters()) == 86_083_009


@pytest.mark.parametrize('size', [1, 17, 32, 45, 144])
def test_patches_of_any_size(size):
    torch.manual_seed(0)
    network = SRGANDiscriminator(size, num_feat=8, num_conv=6, num_dense=4).double()  # little is left of a single pixel
    logits = network.train(size > 8)(torch.rand(3, 3, size, size, dtype=torch.float64))
    assert logits.shape == (3, 1) and logits.std() > 0


def test_it_learns_to_tell_noise_from_flat_patches():
    torch.manual_seed(0)
    network = SRGANDiscriminator(16, num_feat=4, num_conv=4, num_dense=16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    real, fake = torch.rand(8, 3, 16, 16), torch.rand(8, 3, 1, 1).expand(-1, -1, 16, 16)
    for _ in range(20):
        optimizer.zero_grad()
        (nn.functional.softplus(-network(real)) + nn.functional.softplus(network(fake))).mean().backward()
        optimizer.step()
    assert network(real).min() > 0 > network(fake).max()


def test_patches_of_another_size_are_refused():
    with pytest.raises(UserError, match=r'input_size is 16, and patches \(datasets.train.gt_size\) are 20x16'):
        SRGANDiscriminator(16, num_feat=2)(torch.rand(1, 3, 20, 16))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'num_conv': 7}, 'num_conv of SRGANDiscriminator: expected an even number, found 7'),
        ({'num_conv': 0}, 'num_conv of SRGANDiscriminator: expected an integer of at least 2'),
        ({'input_size': 0}, 'input_size of SRGANDiscriminator'),
        ({'num_dense': 1.5}, 'num_dense of SRGANDiscriminator'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        SRGANDiscriminator(**{'input_size': 16, **arguments})
