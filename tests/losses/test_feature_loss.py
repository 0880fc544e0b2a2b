"""The perceptual loss over VGG-19."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from basicsr.archs import vgg_arch
from basicsr.losses.basic_loss import PerceptualLoss
from vgg_files import write_vgg

from basicsr_ext.errors import UserError
from basicsr_ext.losses.feature_loss import FeatureLoss


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(write_vgg(tmp_path_factory.mktemp('vgg') / 'vgg19.pth'))


def test_it_is_basicsrs_loss(weights, monkeypatch):
    """With the same weights: the value of its L1 loss, and its gradient."""
    full = vgg_arch.vgg.vgg19(weights=None)
    full.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    monkeypatch.setattr(vgg_arch.vgg, 'vgg19', lambda **_: full)
    layers = {'conv3_4': 1.0, 'relu1_1': 0.5}
    stock, ours = PerceptualLoss(layers, perceptual_weight=0.3), FeatureLoss(layers, 0.3, vgg_weights=weights)
    image, target = torch.rand(1, 3, 16, 16, requires_grad=True), torch.rand(1, 3, 16, 16)
    values = stock(image, target)[0], ours(image, target)
    torch.testing.assert_close(*values, rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(value, image)[0] for value in values]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_squares(weights):
    image, target = torch.rand(2, 1, 3, 16, 16)
    loss = FeatureLoss({'conv1_2': 2.0}, criterion='l2', vgg_weights=weights)
    found, wanted = (loss.features(x)['conv1_2'] for x in (image, target))
    torch.testing.assert_close(loss(image, target), 2 * (found - wanted).square().mean())
    assert loss(target, target) == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'criterion': 'fro'}, 'criterion of FeatureLoss: expected one of l1, l2'),
        ({'layer_weights': {}}, 'expected names among'),
        ({'layer_weights': {'conv9_9': 1}}, 'conv9_9'),
        ({'layer_weights': {'conv1_1': float('nan')}}, r'layer_weights\.conv1_1 of FeatureLoss'),
        ({'loss_weight': -1}, 'loss_weight of FeatureLoss'),
        ({'loss_weight': float('inf')}, 'loss_weight of FeatureLoss'),
    ],
)
def test_bad_arguments(weights, arguments, message):
    with pytest.raises(UserError, match=message):
        FeatureLoss(**{'layer_weights': {'conv1_1': 1}, 'vgg_weights': weights, **arguments})
