"""Cria-CL's loss: its equations, what each option changes, what is measured, what is refused."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from vgg_files import write_vgg

from basicsr_ext.errors import UserError
from basicsr_ext.functional.criteria import (
    adversarial_map,
    align_loss,
    dissimilarity_map,
    feature_map,
    pixel_map,
    uniformity_loss,
)
from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.losses.cria_loss import CriaLoss

ALL = ('pix', 'ssim', 'perc_b', 'perc_t', 'adv')


@pytest.fixture(scope='module')
def vgg(tmp_path_factory):
    """Options with which a loss finds a small VGG-19."""
    weights = write_vgg(tmp_path_factory.mktemp('vgg') / 'vgg19.pth')
    return {'bottom_layers': ['relu1_1', 'conv2_1'], 'top_layers': ['relu2_1'], 'vgg_weights': str(weights)}


def pictures(seed=0, count=3, size=16):
    torch.manual_seed(seed)
    return torch.rand(count, 2, 3, size, size)


def logits_of(images: torch.Tensor) -> torch.Tensor:
    """A discriminator whose logits are half as large as the image."""
    return torch.nn.functional.avg_pool2d(images, 2).sum(1, keepdim=True) * 4 - 6


# ---- equations -------------------------------------------------------------------------------------------------------


def test_the_comparison_is_that_of_the_equations():
    """Anchor pix, without VGG: Eqs. 8, 9 and 11 composed by hand."""
    align, unif, target = pictures()
    mask = torch.rand(2, 1, 16, 16, requires_grad=True)
    logits = torch.randn(2, 1, 16, 16)
    loss = CriaLoss(0.3, 0.7, unif_scale=1.5, positives=['ssim'], negatives=['adv'], eta=2, t=3, scales={'ssim': 0.5})
    losses, means = loss(align, unif, target, mask, lambda images: logits)
    expected = 0.3 * (mask * align_loss(pixel_map(align, target), [0.5 * dissimilarity_map(align, target)])).mean()
    torch.testing.assert_close(losses['l_align'], expected.detach())
    unlike = uniformity_loss(pixel_map(unif, target), [adversarial_map(logits, (16, 16))], 3)
    torch.testing.assert_close(losses['l_unif'], (0.7 * 1.5 * ((1 - mask) * unlike).mean() / 2).detach())
    assert set(means) == {'c_pix_align', 'c_ssim_align', 'c_pix_unif', 'c_adv_unif'}
    assert means['c_ssim_align'].item() == pytest.approx(0.5 * dissimilarity_map(align, target).mean().item())


def test_perceptual_criteria_are_those_of_their_layers(vgg):
    align, unif, target = pictures()
    loss = CriaLoss(1, 1, positives=['perc_b'], negatives=['perc_t'], **vgg)
    found, other, wanted = (loss.criteria.features(image) for image in (align, unif, target))
    bottom = feature_map(found, wanted, {'relu1_1': 1, 'conv2_1': 1}, (16, 16))
    top = feature_map(other, wanted, {'relu2_1': 1}, (16, 16))
    losses, _ = loss(align, unif, target)
    torch.testing.assert_close(losses['l_align'], align_loss(pixel_map(align, target), [bottom]).mean())
    torch.testing.assert_close(losses['l_unif'], uniformity_loss(pixel_map(unif, target), [top]).mean() / 2)


def test_masks_learn_only_when_asked():
    align, unif, target = pictures()
    for mask_grad in (False, True):
        mask = torch.rand(2, 1, 16, 16, requires_grad=True)
        loss = CriaLoss(positives=['ssim'], negatives=['ssim'], mask_grad=mask_grad)
        total = sum(loss(align.requires_grad_(), unif, target, mask)[0].values())
        total.backward()
        assert (mask.grad is not None) == mask_grad


def test_without_mask_everything_counts():
    align, unif, target = pictures()
    loss = CriaLoss(positives=['ssim'], negatives=['ssim'])
    ones = torch.ones(2, 1, 16, 16)
    both = [loss(align, unif, target, mask)[0] for mask in (None, ones, 1 - ones)]
    torch.testing.assert_close(both[0]['l_align'], both[1]['l_align'])
    torch.testing.assert_close(both[0]['l_unif'], both[2]['l_unif'])
    assert both[1]['l_unif'] == 0 and both[2]['l_align'] == 0


def test_rows_of_table_v_compute_only_what_they_need():
    assert CriaLoss(align_weight=0, unif_weight=0).used == ()
    assert CriaLoss(unif_weight=0, positives=['ssim']).used == ('pix', 'ssim')
    assert CriaLoss(align_weight=0, negatives=['adv']).used == ('pix', 'adv')


def test_features_are_computed_once(vgg):
    """Of the target once for both views, and of a view no higher than it needs."""
    loss = CriaLoss(**{**vgg, 'bottom_layers': ['relu1_1']}, negatives=['perc_t'])
    calls, depths = [], []
    loss.criteria.features.register_forward_hook(lambda _, arguments, found: calls.append(sorted(found)))
    loss.criteria.features.features[5].register_forward_hook(lambda *_: depths.append(1))
    loss(*pictures())
    assert calls == [['relu1_1', 'relu2_1'], ['relu1_1'], ['relu2_1']]
    assert len(depths) == 2


# ---- what the paper leaves open --------------------------------------------------------------------------------------


def measured(align: torch.Tensor, target: torch.Tensor, **options) -> dict[str, float]:
    loss = CriaLoss(0, 0, logged=ALL, **options)
    values = loss.measure(align, align, target, logits_of)
    return {name: values[f'c_{name}_align'].item() for name in ALL}


@pytest.mark.parametrize(
    ('option', 'changed', 'by_hand'),
    [
        ({'pixel_norm': 'l1'}, {'pix'}, lambda x, y: pixel_map(x, y, 'l1')),
        ({'feature_norm': 'l2'}, {'perc_b', 'perc_t'}, None),
        ({'channels': 'max'}, {'pix', 'ssim', 'perc_b', 'perc_t'}, lambda x, y: pixel_map(x, y, channels='max')),
        ({'ssim_window': 5}, {'ssim'}, lambda x, y: dissimilarity_map(x, y, SSIMSettings(window_size=5))),
        ({'ssim_sigma': 3.0}, {'ssim'}, lambda x, y: dissimilarity_map(x, y, SSIMSettings(sigma=3))),
        ({'ssim_k1': 0.5}, {'ssim'}, lambda x, y: dissimilarity_map(x, y, SSIMSettings(k1=0.5))),
        ({'ssim_k2': 0.5}, {'ssim'}, lambda x, y: dissimilarity_map(x, y, SSIMSettings(k2=0.5))),
        ({'ssim_range': 9.0}, {'ssim'}, lambda x, y: dissimilarity_map(x, y, SSIMSettings(data_range=9))),
        ({'bottom_layers': ['relu1_1']}, {'perc_b'}, None),
        ({'top_layers': ['conv1_2']}, {'perc_t'}, None),
        ({'layer_weights': {'conv2_1': 3}}, {'perc_b'}, None),
        ({'gan_type': 'lsgan'}, {'adv'}, lambda x, y: (logits_of(x) - 1).square()),
        ({'scales': {'pix': 3}}, {'pix'}, lambda x, y: 3 * pixel_map(x, y)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_each_decision_is_an_option(vgg, option, changed, by_hand):
    """It changes the criteria that it is of, to what it says, and no other."""
    align, target = pictures(count=2)
    plain, other = measured(align, target, **vgg), measured(align, target, **{**vgg, **option})
    assert {name for name in ALL if abs(plain[name] - other[name]) > 1e-4} == changed
    if by_hand is not None:
        (name, *_) = (name for name in ALL if name in changed)
        assert other[name] == pytest.approx(by_hand(align, target).mean().item(), rel=1e-3)


def test_enlargement_is_an_option(vgg):
    """Of features and of the discriminator's logits, both half as large as the image."""
    image, target = pictures(count=2)
    for name, options in (('adv', {}), ('perc_t', {**vgg, 'top_layers': ['conv2_1']})):
        loss = CriaLoss(align_weight=0, negatives=[name], enlargement='nearest', **options)
        seen = loss.criteria(image, target, loss.criteria.wanted(target, [name]), [name], logits_of)[name]
        assert torch.equal(seen[..., ::2, ::2], seen[..., 1::2, 1::2])
        loss = CriaLoss(align_weight=0, negatives=[name], **options)
        seen = loss.criteria(image, target, loss.criteria.wanted(target, [name]), [name], logits_of)[name]
        assert not torch.equal(seen[..., ::2, ::2], seen[..., 1::2, 1::2])


def test_criteria_may_be_numbers_instead_of_maps():
    """Each is then the mean of its map, and masks weigh the comparison of the whole image."""
    align, unif, target = pictures()
    mask = torch.rand(2, 1, 16, 16)
    losses, _ = CriaLoss(1, 0, positives=['ssim'], maps=False)(align, unif, target, mask)
    pix, ssim = (f(align, target).mean((1, 2, 3)) for f in (pixel_map, dissimilarity_map))
    expected = ((pix - ssim).square() * mask.mean((1, 2, 3))).mean()
    torch.testing.assert_close(losses['l_align'], expected)
    assert losses['l_align'] != CriaLoss(1, 0, positives=['ssim'])(align, unif, target, mask)[0]['l_align']


# ---- measuring -------------------------------------------------------------------------------------------------------


def names_of(means: dict) -> set[str]:
    return {name.removeprefix('c_') for name in means}


def test_everything_at_hand_is_measured(vgg):
    """Together with what is compared: every criterion of both views, where their parts exist."""
    images = pictures()
    every = {f'{name}_{view}' for name in ALL for view in ('align', 'unif')}
    for judge, missing in ((logits_of, ()), (None, ('adv',))):
        loss = CriaLoss(negatives=['perc_t'], **vgg)
        both = names_of(loss(*images, None, judge)[1]) | names_of(loss.measure(*images, judge))
        assert both == {name for name in every if not name.startswith(missing)}
    without = CriaLoss(positives=['ssim'], negatives=['adv'])
    assert names_of(without.measure(*images, logits_of)) == {
        'adv_align',
        'ssim_unif',
    }  # the rest is compared, or needs VGG
    assert without.criteria.features is None


def test_what_is_measured_is_an_option(vgg):
    images = pictures()
    assert CriaLoss(logged=[], **vgg).measure(*images, logits_of) == {}
    loss = CriaLoss(0, 0, logged=['perc_t', 'pix'], **vgg)
    assert loss(*images)[0] == {}
    means = loss.measure(*images)
    assert names_of(means) == {'perc_t_align', 'pix_align', 'perc_t_unif', 'pix_unif'}
    assert means['c_pix_unif'].item() == pytest.approx(pixel_map(images[1], images[2]).mean().item())


def test_measured_as_compared(vgg):
    """The same numbers, whoever computes them."""
    images = pictures()
    options = {'scales': dict.fromkeys(ALL, 0.5), **vgg}
    compared = CriaLoss(1, 1, **options)(*images, None, logits_of)[1]
    means = CriaLoss(0, 0, logged=ALL, **options).measure(*images, logits_of)
    for name, value in compared.items():
        torch.testing.assert_close(means[name], value)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'anchor': 'psnr'}, 'anchor of CriaLoss: expected names among pix, ssim'),
        ({'positives': ['pix']}, 'positives of CriaLoss: pix is the anchor'),
        ({'negatives': ['adv', 'pix']}, 'negatives of CriaLoss: pix is the anchor'),
        ({'positives': ['ssim', 'ssim']}, 'positives of CriaLoss: expected each criterion once, found ssim twice'),
        ({'negatives': ['gan']}, 'negatives of CriaLoss'),
        ({'logged': ['psnr']}, 'logged of CriaLoss'),
        ({'scales': {'pixel': 2}}, 'scales of CriaLoss'),
        ({'pixel_norm': 'l3'}, 'pixel_norm of CriaLoss'),
        ({'feature_norm': 'l3'}, 'feature_norm of CriaLoss'),
        ({'channels': 'sum'}, 'channels of CriaLoss'),
        ({'enlargement': 'cubic'}, 'enlargement of CriaLoss'),
        ({'gan_type': 'hinge'}, 'gan_type of CriaLoss: expected one of vanilla, wgan_softplus, lsgan'),
        ({'layer_weights': {'relu9_9': 1}}, 'layer_weights of CriaLoss: expected layers among'),
        ({'layer_weights': {'relu1_2': 0}}, r'layer_weights\.relu1_2 of CriaLoss: expected a number above 0'),
        ({'eta': 0.5}, 'eta of CriaLoss: expected a number from 1 on, found 0.5'),
        ({'eta': 0}, 'eta of CriaLoss'),
        ({'eta': float('inf')}, 'eta of CriaLoss'),
        ({'t': float('nan')}, 't of CriaLoss'),
        ({'t': 0}, 't of CriaLoss: expected a number above 0, found 0'),
        ({'t': -2}, 't of CriaLoss'),
        ({'t': 'two'}, 't of CriaLoss'),
        ({'unif_weight': -1}, 'unif_weight of CriaLoss'),
        ({'align_weight': float('inf')}, 'align_weight of CriaLoss'),
        ({'unif_scale': float('nan')}, 'unif_scale of CriaLoss'),
        ({'scales': {'adv': float('inf')}}, r'scales\.adv of CriaLoss'),
        ({'scales': {'adv': -1}}, r'scales\.adv of CriaLoss'),
        ({'ssim_window': 4}, 'of CriaLoss: window_size'),
        ({'ssim_k1': 0}, 'of CriaLoss: k1'),
    ],
)
def test_bad_arguments(vgg, arguments, message):
    with pytest.raises(UserError, match=message):
        CriaLoss(**{'vgg_weights': vgg['vgg_weights'], **arguments})


def test_adv_needs_a_discriminator():
    with pytest.raises(UserError, match=r'the criterion adv needs a discriminator: add train\.gan_opt'):
        CriaLoss(positives=['ssim'], negatives=['adv'])(*pictures())
