"""Cria-CL: what a step of either player is, term by term."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from functools import partial

import pytest
import torch
from criacl_runs import batch, built, criacl_options, make_images
from torch.nn.functional import conv2d, interpolate, logsigmoid, max_pool2d

from basicsr_ext.models.criacl_model import CriaCLModel


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    return make_images(tmp_path_factory.mktemp('criacl'), photos)


# Raised, so that each term moves the weights as much as the others do.
TERMS = {'pixel': 30.0, 'perceptual': 3.0, 'adversarial': 300.0, 'align': 20.0, 'unif': 20.0}


@pytest.mark.parametrize('terms', [*([name] for name in TERMS), list(TERMS)], ids=lambda terms: '+'.join(terms))
def test_the_step_is_that_of_the_losses(images, tmp_path, terms):
    """One SGD step of the generator equals the gradient of what :func:`loss_by_hand` writes out, term by term."""
    weights = {name: value if name in terms else 0.0 for name, value in TERMS.items()}
    options = criacl_options(images, align_weight=weights['align'], unif_weight=weights['unif'])
    options['train'].update(optim_g={'type': 'SGD', 'lr': 1.0})
    for key, name in (('pixel_opt', 'pixel'), ('perceptual_opt', 'perceptual'), ('gan_opt', 'adversarial')):
        options['train'][key]['loss_weight'] = weights[name]
    model = built(options, tmp_path)
    model.net_d.eval()  # its spectral norm moves in training mode with every forward
    before = {name: value.detach().clone() for name, value in model.net_g.named_parameters()}
    data = batch()
    total = loss_by_hand(model, data, weights, torch.load(images / 'vgg19.pth', weights_only=True))
    found = torch.autograd.grad(total, model.net_g.parameters(), allow_unused=True, materialize_grads=True)
    model.feed_data(data)
    model.optimize_parameters(1)
    for (name, value), gradient in zip(model.net_g.named_parameters(), found, strict=True):
        step, largest = before[name] - value, gradient.abs().max()
        assert (step - gradient).abs().max() <= 1e-4 * largest + 1e-6, name
    moved = {
        name.partition('.')[0] for (name, _), gradient in zip(before.items(), found, strict=True) if gradient.any()
    }
    expected = {'align': 'unif', 'unif': 'align'}.get('+'.join(terms))  # the branch that this term does not reach
    assert f'branch_{expected}' not in moved and {'conv_first', 'trunk'} <= moved
    assert ('projector' in moved) == (expected is None)  # S is detached in the criteria


def loss_by_hand(model: CriaCLModel, data: dict, weights: dict, vgg: dict) -> torch.Tensor:
    """Eq. 11 with nothing but torch: no loss, map or feature extractor of the package."""

    def features(x):
        x = (x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(
            1, 3, 1, 1
        )
        relu1_1 = conv2d(x, vgg['features.0.weight'], vgg['features.0.bias'], padding=1).relu()
        x = conv2d(relu1_1, vgg['features.2.weight'], vgg['features.2.bias'], padding=1).relu()
        conv2_1 = conv2d(max_pool2d(x, 2), vgg['features.5.weight'], vgg['features.5.bias'], padding=1)
        return relu1_1, conv2_1, conv2_1.relu()

    def pix(x):
        return ((x - gt).square().mean(1, keepdim=True) + 1e-12).sqrt()

    def dissimilarity(x):
        line = torch.exp(-((torch.arange(11.0) - 5) ** 2) / (2 * 1.5**2))
        kernel = torch.outer(line, line)
        mean = partial(conv2d, weight=(kernel / kernel.sum()).expand(3, 1, 11, 11), padding=5, groups=3)
        mx, my = mean(x), mean(gt)
        vx, vy, covariance = mean(x * x) - mx**2, mean(gt * gt) - my**2, mean(x * gt) - mx * my
        similarity = (2 * mx * my + 1e-4) * (2 * covariance + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
        return 1 - similarity.mean(1, keepdim=True)

    gt = data['gt']
    sr, align, unif, mask = model.net_g(data['lq'], return_views=True)
    wanted = features(gt)
    perceptual = (features(sr)[1] - wanted[1]).abs().mean()
    total = weights['pixel'] * (sr - gt).abs().mean() + weights['perceptual'] * perceptual
    total = total - weights['adversarial'] * logsigmoid(model.net_d(sr)).mean()
    bottom = (features(align)[0] - wanted[0]).abs().mean(1, keepdim=True)
    pulled = (pix(align) - dissimilarity(align)) ** 2 + (pix(align) - bottom) ** 2
    top = interpolate((features(unif)[2] - wanted[2]).abs().mean(1, keepdim=True), size=gt.shape[-2:], mode='bilinear')
    sums = [-2 * (pix(unif) + other) ** 2 for other in (top, -logsigmoid(model.net_d(unif)))]
    pushed = -(sums[0].exp() + sums[1].exp()).log()
    mask = mask.detach()
    return total + weights['align'] * (mask * pulled).mean() + weights['unif'] * ((1 - mask) * pushed).mean() / 2


def test_the_step_of_the_discriminator(images, tmp_path):
    """One SGD step equals the gradient of its loss on real images and on made ones; the generator stays as it stepped."""
    options = criacl_options(images)
    options['train'].update({f'optim_{player}': {'type': 'SGD', 'lr': 1.0} for player in 'gd'})
    model = built(options, tmp_path)
    model.net_d.eval()  # as above
    before = {name: value.detach().clone() for name, value in model.net_d.named_parameters()}
    data = batch()
    made = model.net_g(data['lq']).detach()
    total = -logsigmoid(model.net_d(data['gt'])).mean() - logsigmoid(-model.net_d(made)).mean()
    found = torch.autograd.grad(total, model.net_d.parameters())
    model.feed_data(data)
    model.optimize_parameters(1)
    for (name, value), gradient in zip(model.net_d.named_parameters(), found, strict=True):
        assert (before[name] - value - gradient).abs().max() <= 1e-4 * gradient.abs().max() + 1e-6, name
    logged = model.get_current_log()
    assert logged['l_d_real'] + logged['l_d_fake'] == pytest.approx(total.item(), rel=1e-5)


def test_the_discriminator_gets_no_gradient_from_the_generators_step(images, tmp_path):
    model = built(criacl_options(images), tmp_path)
    model.net_d.zero_grad(set_to_none=True)
    model.feed_data(batch())
    views = model.forward(model.players['g'], model.batch['lq'], return_views=True)
    sum(model.generator_losses(views, model.batch['gt']).values()).backward()
    assert all(parameter.grad is None for parameter in model.net_d.parameters())
    assert all(parameter.grad is not None for parameter in model.net_g.parameters())
    generator = {name: value.clone() for name, value in model.net_g.state_dict().items()}
    model.update_discriminator(model.batch['gt'], views.sr)
    assert all(torch.equal(value, generator[name]) for name, value in model.net_g.state_dict().items())
