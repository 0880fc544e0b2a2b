"""VGG-19's features and the contextual loss over them."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from basicsr.archs import vgg_arch
from basicsr.losses import build_loss
from run_helpers import on_ranks
from torch.nn import functional
from vgg_files import write_vgg

from basicsr_ext.errors import UserError
from basicsr_ext.functional.contextual import contextual_loss
from basicsr_ext.losses import vgg_features
from basicsr_ext.losses.contextual_loss import ContextualLoss
from basicsr_ext.losses.vgg_features import LAYERS, VGGFeatures


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return str(write_vgg(tmp_path_factory.mktemp('vgg') / 'vgg19.pth'))


def by_hand(images, weights, layer):
    """The features again, from the weights alone."""
    state = torch.load(weights, weights_only=True)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    x = (images - mean) / std
    for index, name in enumerate(LAYERS[: LAYERS.index(layer) + 1]):
        if name.startswith('conv'):
            x = functional.conv2d(x, state[f'features.{index}.weight'], state[f'features.{index}.bias'], padding=1)
        else:
            x = functional.relu(x) if name.startswith('relu') else functional.max_pool2d(x, 2)
    return x


def test_features_are_those_of_the_named_layers(weights):
    images = torch.rand(2, 3, 16, 24)
    found = VGGFeatures(['conv2_2', 'relu2_2', 'relu3_4'], weights)(images)
    assert list(found) == ['conv2_2', 'relu2_2', 'relu3_4']
    for layer, features in found.items():
        torch.testing.assert_close(features, by_hand(images, weights, layer), rtol=1e-4, atol=1e-4)
    assert found['conv2_2'].min() < 0 <= found['relu2_2'].min()


def test_features_are_basicsrs(weights, monkeypatch):
    """With the same weights they equal those that BasicSR's PerceptualLoss sees."""
    full = vgg_arch.vgg.vgg19(weights=None)
    full.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    monkeypatch.setattr(vgg_arch.vgg, 'vgg19', lambda **_: full)
    images = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(
        VGGFeatures(['relu1_2', 'conv3_4'], weights)(images),
        dict(vgg_arch.VGGFeatureExtractor(['relu1_2', 'conv3_4'])(images)),
        rtol=1e-5,
        atol=1e-5,
    )


def test_loss_is_that_of_the_features(weights):
    loss = build_loss(
        {'type': 'ContextualLoss', 'loss_weight': 0.5, 'layers': ['relu2_1', 'relu3_1'], 'vgg_weights': weights}
    )
    pred, target = torch.rand(2, 3, 24, 24, requires_grad=True), torch.rand(2, 3, 24, 24)
    expected = sum(
        contextual_loss(by_hand(pred, weights, layer), by_hand(target, weights, layer))
        for layer in ('relu2_1', 'relu3_1')
    )
    value = loss(pred, target)
    torch.testing.assert_close(value, 0.5 * expected, rtol=1e-4, atol=1e-5)
    value.backward()
    assert pred.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    assert not loss.state_dict().keys() & {'vgg.mean'}


def test_published_range(weights):
    images = torch.rand(1, 3, 16, 16)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    odd = VGGFeatures(['conv1_1'], weights, input_range=255)(images)['conv1_1']
    same = VGGFeatures(['conv1_1'], weights)((images * 255 - mean) / std * std + mean)['conv1_1']
    torch.testing.assert_close(odd, same, rtol=1e-3, atol=1e-2)


def test_places_of_the_weights(weights, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(vgg_features, 'VGG_PRETRAIN_PATH', str(tmp_path / 'basicsr.pth'))
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setattr(vgg_features, 'read_weights', lambda path: asked.append(path) or torch.load(weights))
    cached = tmp_path / 'hub/checkpoints/vgg19-dcbb9e9d.pth'
    cached.parent.mkdir(parents=True)
    cached.touch()
    VGGFeatures(['conv1_1'])
    (tmp_path / 'basicsr.pth').touch()
    VGGFeatures(['conv1_1'])
    assert asked == [cached, tmp_path / 'basicsr.pth']


def test_missing_weights_are_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))

    def refused(url, **_):
        raise vgg_features.URLError('no route')

    monkeypatch.setattr(torch.hub, 'load_state_dict_from_url', refused)
    with pytest.raises(UserError, match='Put the file into one of these places, or name it in the option vgg_weights'):
        VGGFeatures(['relu3_4'])


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'layers': ['relu9_9']}, 'relu9_9'),
        ({'layers': []}, 'found none'),
        ({'bandwidth': 0}, 'bandwidth of ContextualLoss'),
        ({'bandwidth': float('nan')}, 'bandwidth of ContextualLoss'),
        ({'bandwidth': float('inf')}, 'bandwidth of ContextualLoss'),
        ({'max_pairs': 0}, 'max_pairs of ContextualLoss'),
        ({'vgg_weights': 'nowhere.pth'}, 'expected a file at nowhere.pth'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        build_loss({'type': 'ContextualLoss', **arguments})


def test_weights_of_another_network(tmp_path):
    torch.save({'features.0.weight': torch.zeros(3, 3)}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match="expected those of torchvision's VGG-19"):
        VGGFeatures(['relu1_1'], tmp_path / 'other.pth')


def _half_of_a_batch(path, pred, target, expected):
    from torch import distributed

    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    part = slice(rank, None, 2)  # as the sampler deals samples out
    image = pred[part].clone().requires_grad_()
    loss = ContextualLoss(layers=['relu1_2'], vgg_weights=path)(image, target[part])
    loss.backward()
    value, gradient = loss.detach(), image.grad
    distributed.all_reduce(value)
    torch.testing.assert_close(value / 2, expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient / 2, expected[1][part], rtol=1e-3, atol=1e-7)
    distributed.destroy_process_group()


def test_two_ranks_compute_the_loss_of_one(tmp_path):
    """Features are centred on the mean over all ranks' batches; those of a rank alone would be another loss."""
    path = write_vgg(tmp_path / 'vgg19.pth')
    torch.manual_seed(0)
    target = torch.rand(4, 3, 12, 12) * torch.tensor([0.2, 1.0, 0.4, 0.9]).view(4, 1, 1, 1)
    pred = target + 0.2 * torch.rand_like(target)
    loss = ContextualLoss(layers=['relu1_2'], vgg_weights=path)
    image = pred.clone().requires_grad_()
    whole = loss(image, target)
    whole.backward()
    alone = sum(loss(pred[rank::2], target[rank::2]) for rank in (0, 1)) / 2
    assert abs(alone - whole) > 1e-3 * whole
    on_ranks(2, _half_of_a_batch, path, pred, target, (whole.detach(), image.grad))
