"""Cria-CL: its losses, its two updates, every row of the ablations, resuming."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import sys
from pathlib import Path

import pytest
import torch
from run_helpers import (
    TINY_EDSR,
    final_state,
    forked,
    model_options,
    on_ranks,
    run,
    sr_options,
    write_options,
    write_pairs,
)

from basicsr_ext.errors import UserError
from basicsr_ext.functional.criteria import adversarial_map, align_loss, dissimilarity_map, pixel_map, uniformity_loss
from basicsr_ext.losses.cria_loss import CriaLoss
from basicsr_ext.models.criacl_model import CriaCLModel

sys.path.insert(0, str(Path(__file__).parents[1] / 'losses'))
from vgg_files import write_vgg

NETWORK = {'type': 'CriaCLNet', 'num_feat': 4, 'num_grow_ch': 2, 'num_block': 1, 'upscale': 2}


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = tmp_path_factory.mktemp('criacl')
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


def built(options: dict, root: Path) -> CriaCLModel:
    with model_options(options, root) as opt:
        return CriaCLModel(opt)


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {'lq': torch.rand(2, 3, 8, 8, generator=generator), 'gt': torch.rand(2, 3, 16, 16, generator=generator)}


# ---- losses ----------------------------------------------------------------------------------------------------------


def test_the_comparison_is_that_of_the_equations():
    """Anchor pix, without VGG: Eqs. 8, 9 and 11 composed by hand."""
    torch.manual_seed(0)
    align, unif, target = torch.rand(3, 2, 3, 16, 16)
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


def test_masks_learn_only_when_asked():
    torch.manual_seed(0)
    align, unif, target = torch.rand(3, 1, 3, 16, 16)
    for mask_grad in (False, True):
        mask = torch.rand(1, 1, 16, 16, requires_grad=True)
        loss = CriaLoss(positives=['ssim'], negatives=['ssim'], mask_grad=mask_grad)
        total = sum(loss(align.requires_grad_(), unif, target, mask)[0].values())
        total.backward()
        assert (mask.grad is not None) == mask_grad


def test_without_mask_everything_counts():
    align, unif, target = torch.rand(3, 1, 3, 16, 16)
    loss = CriaLoss(positives=['ssim'], negatives=['ssim'])
    ones = torch.ones(1, 1, 16, 16)
    both = [loss(align, unif, target, mask)[0] for mask in (None, ones, 1 - ones)]
    torch.testing.assert_close(both[0]['l_align'], both[1]['l_align'])
    torch.testing.assert_close(both[0]['l_unif'], both[2]['l_unif'])


def test_rows_of_table_v_compute_only_what_they_need():
    assert CriaLoss(align_weight=0, unif_weight=0).used == ()
    assert CriaLoss(unif_weight=0, positives=['ssim']).used == ('pix', 'ssim')
    assert CriaLoss(align_weight=0, negatives=['adv']).used == ('pix', 'adv')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'anchor': 'psnr'}, 'anchor of CriaLoss: expected names among pix, ssim'),
        ({'positives': ['pix']}, 'pix is the anchor'),
        ({'negatives': ['gan']}, 'negatives of CriaLoss'),
        ({'scales': {'pixel': 2}}, 'scales of CriaLoss'),
        ({'pixel_norm': 'l3'}, 'pixel_norm of CriaLoss'),
        ({'feature_norm': 'l3'}, 'feature_norm of CriaLoss'),
        ({'eta': 0.5}, 'eta of CriaLoss: expected a number from 1 on, found 0.5'),
        ({'t': float('nan')}, 't of CriaLoss'),
        ({'unif_weight': -1}, 'unif_weight of CriaLoss'),
        ({'scales': {'adv': float('inf')}}, r'scales\.adv of CriaLoss'),
        ({'ssim_window': 4}, 'ssim_window and ssim_sigma of CriaLoss: window_size'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(UserError, match=message):
        CriaLoss(**arguments)


# ---- training --------------------------------------------------------------------------------------------------------


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


def test_the_step_is_that_of_the_losses(images, tmp_path):
    """One SGD step of the generator equals the gradient of the sum of all losses, written out."""
    options = criacl_options(images)
    options['train'].update(optim_g={'type': 'SGD', 'lr': 1.0})
    model = built(options, tmp_path)
    before = {name: value.detach().clone() for name, value in model.net_g.named_parameters()}
    data = batch()
    views = model.net_g(data['lq'], return_views=True)
    cria = model.criteria['cria']
    compared, _ = cria(views.align, views.unif, data['gt'], views.mask, model.net_d)
    total = 0.01 * (views.sr - data['gt']).abs().mean() + model.criteria['perceptual'](views.sr, data['gt'])
    total = total + 0.005 * torch.nn.functional.softplus(-model.net_d(views.sr)).mean() + sum(compared.values())
    gradients = dict(zip(before, torch.autograd.grad(total, model.net_g.parameters()), strict=True))
    model.net_d.eval()  # its spectral norm moves in training mode with every forward
    model.feed_data(data)
    torch.manual_seed(0)
    model.optimize_parameters(1)
    for name, value in model.net_g.named_parameters():
        torch.testing.assert_close(before[name] - value, gradients[name], rtol=0.1, atol=1e-4)


ABLATIONS = {
    'weighted sum': {'cria_opt': None},
    'align': {'unif_weight': 0},
    'unif': {'align_weight': 0},
    'both, no projector': {'projector': False},
    'all': {},
    'anchor adv': {'anchor': 'adv', 'positives': ['perc_t'], 'negatives': ['pix', 'ssim', 'perc_b']},
    'anchor perc_t': {'anchor': 'perc_t', 'positives': ['ssim'], 'negatives': ['pix', 'adv']},
    'release': {'variant': 'release'},
}


@pytest.mark.parametrize('changes', ABLATIONS.values(), ids=ABLATIONS)
def test_every_row_of_the_ablations_trains(images, tmp_path, changes):
    network = {key: changes[key] for key in ('projector', 'variant') if key in changes}
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
    assert all(value == value and abs(value) < 1e3 for value in logged.values())
    views = {name.rpartition('_')[2] for name in logged if name.startswith('c_')}
    assert views == {name[2:] for name in expected}


def trained(model: CriaCLModel, iterations: int, part: slice = slice(None)) -> CriaCLModel:
    for iteration in range(1, iterations + 1):
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


def _train_on_a_rank(options: dict, root: Path, expected: dict) -> None:
    with model_options(options, root, launcher='pytorch') as opt:
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


def vgg_style(images: Path) -> dict:
    options = criacl_options(images)
    options['network_d'] = {'type': 'VGGStyleDiscriminator', 'num_in_ch': 3, 'num_feat': 4, 'input_size': 128}
    return options


def test_a_discriminator_of_one_output(images, tmp_path):
    """Its loss is spread over the map, and its weights get no gradient."""
    model = built(vgg_style(images), tmp_path)
    data = {'lq': torch.rand(2, 3, 64, 64), 'gt': torch.rand(2, 3, 128, 128)}
    views = model.forward(model.players['g'], data['lq'], return_views=True)
    torch.manual_seed(0)
    losses = model.generator_losses(views, data['gt'])
    sum(losses.values()).backward()
    assert all(parameter.grad is None for parameter in model.net_d.parameters())
    assert model.judge(views.unif).shape == (2, 1)
    expected = torch.nn.functional.softplus(-model.judge(views.unif)).mean().item()
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
    monkeypatch.setattr(torch, 'compile', lambda network: original(network, backend='eager'))
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
        models.append(trained(built(options, tmp_path), 2))
    assert_near(models[0].net_g.state_dict(), models[1].net_g.state_dict(), 1e-6)


def test_features_are_computed_once(images):
    """Of the target once for both views, and of a view no higher than it needs."""
    loss = CriaLoss(
        bottom_layers=['relu1_1'], top_layers=['relu2_1'], vgg_weights=str(images / 'vgg19.pth'), negatives=['perc_t']
    )
    calls, depths = [], []
    loss.vgg.register_forward_hook(lambda _, arguments, found: calls.append(sorted(found)))
    loss.vgg.features[5].register_forward_hook(lambda *_: depths.append(1))
    loss(*torch.rand(3, 1, 3, 16, 16))
    assert calls == [['relu1_1', 'relu2_1'], ['relu1_1'], ['relu2_1']]
    assert len(depths) == 2


# ---- resuming --------------------------------------------------------------------------------------------------------


def test_resumes_to_the_bit(images, tmp_path):
    """Killed in its third iteration and resumed: as one that nobody stopped. Samples come from two sources, with noise."""
    options = criacl_options(images)
    block = options['datasets']['train']
    source = {'dataroot_gt': block.pop('dataroot_gt'), 'dataroot_lq': block.pop('dataroot_lq'), 'weight': 1}
    noise = {'dataroot': f'{images}/hr', 'probability': 0.7}
    del block['io_backend']
    block.update(type='MixedStoreDataset', sources={'A': {**source, 'noise': noise}, 'B': {**source, 'weight': 2}})
    states = []
    for name in ('whole', 'killed'):
        root = tmp_path / name
        root.mkdir()
        path = write_options(root / 'o.yml', options)
        if name == 'killed':
            assert forked(_run_until_a_kill, root, path) == -9
        assert forked(run, root, path, *(['--auto_resume'] if name == 'killed' else [])) == 0
        states.append(final_state(root, 4))
    assert {'net_g_4.pth', 'net_d_4.pth'} <= states[0].keys()
    assert states[0] == states[1]


def _run_until_a_kill(root: Path, path: Path) -> int:
    step, calls = CriaCLModel.update_discriminator, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), 9)
        step(*arguments)

    CriaCLModel.update_discriminator = dying
    return run(root, path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda o: o.update(network_g=dict(TINY_EDSR)), 'needs a network of two views'),
        (lambda o: o.pop('network_d'), 'network_d: expected a block'),
        (lambda o: o['train'].pop('optim_d'), 'train.optim_d: expected a block'),
        (lambda o: o['train'].pop('gan_opt'), 'train.cria_opt compares the criterion adv'),
        (lambda o: o['train']['cria_opt'].update(anchr='pix'), 'anchor'),
        (lambda o: o['train']['gan_opt'].update(gan_type='hinge'), 'gan_type: expected vanilla'),
    ],
)
def test_refused_options(images, tmp_path, capfd, change, message):
    options = criacl_options(images)
    change(options)
    assert forked(run, tmp_path, write_options(tmp_path / 'o.yml', options)) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / 'experiments').exists()
