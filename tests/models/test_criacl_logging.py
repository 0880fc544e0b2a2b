"""Cria-CL: what is logged, and what losses share."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()


import pytest
import torch
from criacl_runs import (
    CRITERIA_OF_BOTH_VIEWS,
    assert_near,
    built,
    criacl_options,
    make_images,
    trained,
    vgg_style,
    weights_of,
)

from basicsr_ext.losses.feature_loss import FeatureLoss
from basicsr_ext.models.shared_weights import share_fixed_weights


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    return make_images(tmp_path_factory.mktemp('criacl'), photos)


def test_criteria_are_logged_where_a_line_is_printed(images, tmp_path):
    """Of both views, and nothing trains otherwise for it: neither networks nor the discriminator's norms."""
    weights, logs = [], []
    for logged in (None, [], ['pix', 'adv']):
        options = criacl_options(images, **({} if logged is None else {'logged': logged}))
        options['logger']['print_freq'] = 2
        torch.manual_seed(0)
        model = built(options, tmp_path)
        logs.append([set(trained(model, 1, first=k).get_current_log()) & CRITERIA_OF_BOTH_VIEWS for k in (1, 2)])
        weights.append(weights_of(model))
    compared = {'c_pix_align', 'c_ssim_align', 'c_perc_b_align', 'c_pix_unif', 'c_perc_t_unif', 'c_adv_unif'}
    assert logs == [
        [compared, CRITERIA_OF_BOTH_VIEWS],
        [compared, compared],
        [compared, compared | {'c_adv_align'}],
    ]
    for other in weights[1:]:
        assert_near(other, weights[0], 0)


def test_a_weighted_sum_may_be_measured(images, tmp_path):
    """With both weights 0 nothing is compared, and every criterion is logged."""
    options = criacl_options(images, align_weight=0, unif_weight=0, logged=['pix', 'ssim', 'perc_b', 'perc_t', 'adv'])
    logged = trained(built(options, tmp_path), 1).get_current_log()
    assert logged.keys() >= CRITERIA_OF_BOTH_VIEWS and not {'l_align', 'l_unif'} & logged.keys()


def test_what_looks_at_the_discriminator_moves_nothing(images, tmp_path):
    model = built(vgg_style(images), tmp_path)
    before = {name: value.clone() for name, value in model.net_d.state_dict().items()}
    opinion = model.discriminate_no_grad(torch.rand(2, 3, 128, 128))
    assert opinion.shape == (2, 1) and not opinion.requires_grad and model.net_d.training
    assert all(torch.equal(value, before[name]) for name, value in model.net_d.state_dict().items())


def test_losses_share_the_weights_of_vgg(images, tmp_path):
    """Perceptual loss and criteria each read them, and keep them once."""
    options = criacl_options(images, top_layers=['relu3_1'])
    model = built(options, tmp_path)
    places = {}
    for name, parameter in model.criteria.named_parameters():
        places.setdefault(name.rpartition('features.')[2], set()).add(parameter.data_ptr())
    assert {'0.weight', '5.bias', '10.weight'} <= places.keys()
    assert all(len(found) == 1 for found in places.values())
    data = torch.rand(2, 1, 3, 16, 16)
    alone = FeatureLoss({'conv2_1': 1.0}, vgg_weights=str(images / 'vgg19.pth'))
    torch.testing.assert_close(model.criteria['perceptual'](*data), alone(*data))


def test_fixed_weights_are_shared_where_they_are_equal():
    losses = torch.nn.ModuleList([torch.nn.Linear(2, 2) for _ in range(4)])
    state = losses[0].state_dict()
    for loss in losses[:3]:
        loss.load_state_dict(state)
        loss.requires_grad_(False)
    losses[2].requires_grad_(True)  # learns
    losses[3].requires_grad_(False)  # differs
    share_fixed_weights(losses)
    first, *others = (loss.weight.data_ptr() for loss in losses)
    assert [other == first for other in others] == [True, False, False]
