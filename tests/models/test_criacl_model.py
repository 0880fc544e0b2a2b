"""Cria-CL: every row of the ablations, ranks, precisions."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from pathlib import Path

import pytest
import torch
from criacl_runs import (
    CRITERIA_OF_BOTH_VIEWS,
    assert_near,
    batch,
    built,
    criacl_options,
    make_images,
    trained,
    vgg_style,
    weights_of,
)
from run_helpers import model_options, on_ranks

from basicsr_ext.models.criacl_model import CriaCLModel


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    return make_images(tmp_path_factory.mktemp('criacl'), photos)


ABLATIONS = {
    'weighted sum': {'cria_opt': None},
    'align': {'unif_weight': 0},
    'unif': {'align_weight': 0},
    'both, no projector': {'projector': False},
    'all': {},
    'anchor adv': {'anchor': 'adv', 'positives': ['perc_t'], 'negatives': ['pix', 'ssim', 'perc_b']},
    'anchor perc_t': {'anchor': 'perc_t', 'positives': ['ssim'], 'negatives': ['pix', 'adv']},
    'release': {'variant': 'release'},
    'release, masked': {'variant': 'release', 'release_mask': 'max', 'release_views': 'masked'},
}


@pytest.mark.parametrize('changes', ABLATIONS.values(), ids=ABLATIONS)
def test_every_row_of_the_ablations_trains(images, tmp_path, changes):
    network = {key: changes[key] for key in ('projector', 'variant', 'release_mask', 'release_views') if key in changes}
    options = criacl_options(
        images, **{key: changes[key] for key in changes if key not in network and key != 'cria_opt'}
    )
    options['network_g'].update(network)
    if 'cria_opt' in changes:
        del options['train']['cria_opt']
    model = trained(built(options, tmp_path), 1)
    logged = model.get_current_log()
    compared = 'cria_opt' not in changes
    expected = {name for name in ('l_align', 'l_unif') if compared and changes.get(f'{name[2:]}_weight') != 0}
    assert {'l_align', 'l_unif'} & logged.keys() == expected
    assert {'l_pix', 'l_percep', 'l_g_gan', 'l_d_real', 'l_d_fake', 'mask'} <= logged.keys()
    assert CRITERIA_OF_BOTH_VIEWS - logged.keys() == (set() if compared else CRITERIA_OF_BOTH_VIEWS)
    assert all(value == value and abs(value) < 1e3 for value in logged.values())


def _train_on_a_rank(options: dict, root: Path, expected: dict) -> None:
    with model_options(options, root, launcher='pytorch') as opt:
        with torch.backends.mkldnn.flags(enabled=False):
            model = trained(CriaCLModel(opt), 3, slice(opt['rank'], opt['rank'] + 1))
        assert isinstance(model.players['d'].network, torch.nn.parallel.DistributedDataParallel)
        assert_near(weights_of(model), expected, 1e-6)


@pytest.mark.parametrize('variant', ['paper', 'release'])
def test_two_ranks_equal_one(images, tmp_path, variant):
    """Networks, their average, the discriminator with its spectral norm: after three iterations."""
    options = criacl_options(images)
    options['network_g']['variant'] = variant
    for player in 'gd':
        options['train'][f'optim_{player}'] = {'type': 'SGD', 'lr': 0.01}
    # oneDNN chooses kernels by the size of a batch; roots of small differences multiply their last bits by a thousand
    with torch.backends.mkldnn.flags(enabled=False):
        expected = weights_of(trained(built(options, tmp_path), 3))
    on_ranks(2, _train_on_a_rank, options, tmp_path, expected)


def test_two_ranks_with_batch_normalisation(images, tmp_path):
    """A discriminator of one output judges two images before the way back."""
    on_ranks(2, _train_with_batch_normalisation, vgg_style(images), tmp_path)


def _train_with_batch_normalisation(options: dict, root: Path) -> None:
    with model_options(options, root, launcher='pytorch') as opt:
        model = CriaCLModel(opt)
        model.feed_data({'lq': torch.rand(2, 3, 64, 64), 'gt': torch.rand(2, 3, 128, 128)})
        model.optimize_parameters(1)


def test_a_discriminator_of_one_output(images, tmp_path):
    """Its loss is spread over the map, and its weights get no gradient."""
    model = built(vgg_style(images), tmp_path)
    data = {'lq': torch.rand(2, 3, 64, 64), 'gt': torch.rand(2, 3, 128, 128)}
    views = model.forward(model.players['g'], data['lq'], return_views=True)
    torch.manual_seed(0)
    losses = model.generator_losses(views, data['gt'])
    sum(losses.values()).backward()
    assert all(parameter.grad is None for parameter in model.net_d.parameters())
    assert model.discriminate(views.unif).shape == (2, 1)
    expected = torch.nn.functional.softplus(-model.discriminate(views.unif)).mean().item()
    assert model.get_current_log()['c_adv_unif'] == pytest.approx(expected, rel=1e-5)


def test_scale_1_trains(images, tmp_path):
    options = criacl_options(images)
    options['scale'] = options['network_g']['upscale'] = 1
    model = built(options, tmp_path)
    before = weights_of(model)
    model.feed_data({key: torch.rand(2, 3, 16, 16) for key in ('lq', 'gt')})
    model.optimize_parameters(1)
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(model).items() if name[:2] == 'g.')
    assert model.output.shape == (2, 3, 16, 16)


def test_average_follows_the_network(images, tmp_path):
    model = built(criacl_options(images), tmp_path)
    before = weights_of(model)
    after = weights_of(trained(model, 1))
    for name in (name[2:] for name in before if name.startswith('g.')):
        torch.testing.assert_close(after[f'ema.{name}'], 0.9 * before[f'ema.{name}'] + 0.1 * after[f'g.{name}'])


def test_half_precision_leaves_criteria_in_single(images, tmp_path):
    """Only what the networks compute is rounded: the criteria of these views are those of single precision."""
    options = criacl_options(images)
    options['train']['precision'] = 'bf16'
    model = built(options, tmp_path)
    data = batch()
    views = model.forward(model.players['g'], data['lq'], return_views=True)
    exact = model.net_g(data['lq'], return_views=True)
    assert all(value.dtype == torch.float32 for value in views)
    assert 0 < (views.sr - exact.sr).abs().max() < 0.05
    seen = []
    model.criteria['cria'].register_forward_hook(lambda _, arguments, output: seen.append((arguments, output)))
    model.generator_losses(views, data['gt'])
    ((arguments, (losses, means)),) = seen
    again, _ = model.criteria['cria'](*arguments[:4], lambda image: model.forward(model.players['d'], image))
    assert losses['l_align'].item() == again['l_align'].item()
    assert {value.dtype for value in (*losses.values(), *means.values())} == {torch.float32}
    assert_near({'sr': model.output}, {'sr': views.sr}, 0)
    trained(model, 1)


def test_compiled_forward_computes_the_same(images, tmp_path, monkeypatch):
    original = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda network, **_: original(network, backend='eager'))
    options = criacl_options(images)
    for player in 'gd':
        options['train'][f'optim_{player}'] = {'type': 'SGD', 'lr': 0.01}
    plain = weights_of(trained(built(options, tmp_path), 2))
    options['train']['compile'] = True
    assert_near(weights_of(trained(built(options, tmp_path), 2)), plain, 1e-6)


def test_micro_batches_are_one_step(images, tmp_path):
    """Without a discriminator, since each player would have to wait for the other."""
    options = criacl_options(images, negatives=['perc_t'])
    for key in ('gan_opt', 'optim_d', 'ema_decay'):
        del options['train'][key]
    del options['network_d']
    options['train']['optim_g'] = {'type': 'SGD', 'lr': 0.1}
    models = []
    for parts in (1, 2):
        options['train']['accumulate'] = parts
        with torch.backends.mkldnn.flags(enabled=False):  # see above
            models.append(trained(built(options, tmp_path), 2))
    assert_near(models[0].net_g.state_dict(), models[1].net_g.state_dict(), 1e-6)
