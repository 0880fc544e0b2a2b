"""LFC-SR: phases, steps in turn, plans of forwards, every ablation, validation of both stages, resuming, ranks."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
import os
import signal
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from run_helpers import (
    TINY_EDSR,
    final_state,
    forked,
    log_text,
    model_options,
    on_ranks,
    run,
    sr_options,
    write_options,
    write_pairs,
)
from torch.nn import functional

from basicsr_ext.cli import main
from basicsr_ext.functional.admm import penalty
from basicsr_ext.functional.wavelet import gaussian_low, haar_high, haar_low
from basicsr_ext.models.lfcsr_model import LFCSRModel
from basicsr_ext.trainer.metrics_log import read_metrics

sys.path.insert(0, str(Path(__file__).parents[1] / 'losses'))
from vgg_files import write_vgg

REFINER = {'type': 'CliqueRefiner', 'num_feat': 2, 'num_block': 1}
CONVOLUTIONS = {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = tmp_path_factory.mktemp('lfcsr')
    write_pairs(root, photos)
    write_vgg(root / 'vgg19.pth')
    return root


def lfcsr_options(images: Path, order: str = 'op', **lfcsr) -> dict:
    """Two iterations of pretraining, then three in turn, without perceptual losses."""
    options = sr_options(images, model_type='LFCSRModel')
    enlarging, refining = dict(TINY_EDSR), dict(REFINER)
    stages = (enlarging, refining) if order == 'op' else (refining, enlarging)
    options['network_g'] = {'type': 'LFCSR', 'stage_o': stages[0], 'stage_p': stages[1], 'order': order}
    options['datasets']['train'].update(gt_size=32)
    options['train'] = {
        'total_iter': 5,
        'ema_decay': 0.9,
        'pixel_opt': {'type': 'L1Loss', 'loss_weight': 255},
        'pixel_p_opt': {'type': 'L1Loss', 'loss_weight': 25},
        'down_opt': {'type': 'L1Loss', 'loss_weight': 255},
        'grad_clip': {'value': 1e-1},
        **{f'optim_{player}': {'type': 'Adam', 'lr': 1e-3} for player in 'gop'},
        'scheduler_g': {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [1, 2], 'gamma': 0.5},
        'lfcsr': {'admm_start_iter': 2, **lfcsr},
    }
    options['val']['val_freq'] = 5
    options['logger'].update(print_freq=1, save_checkpoint_freq=1)
    return options


def with_discriminator(options: dict) -> dict:
    options['network_d'] = dict(CONVOLUTIONS)
    options['train'].update(
        gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.001}, optim_d={'type': 'Adam', 'lr': 1e-3}
    )
    return options


def with_all_losses(options: dict, images: Path) -> dict:
    vgg = str(images / 'vgg19.pth')
    options['train'].update(
        contextual_opt={'type': 'ContextualLoss', 'loss_weight': 0.1, 'layers': ['relu1_2'], 'vgg_weights': vgg},
        perceptual_opt={'type': 'FeatureLoss', 'layer_weights': {'conv2_1': 1.0}, 'vgg_weights': vgg},
    )
    return with_discriminator(options)


def built(options: dict, root: Path) -> LFCSRModel:
    with model_options(options, root) as opt:
        return LFCSRModel(opt)


def batches(count: int, size: int = 2) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {'lq': torch.rand(size, 3, 16, 16, generator=generator), 'gt': torch.rand(size, 3, 32, 32, generator=generator)}
        for _ in range(count)
    ]


def play(model: LFCSRModel, data: list, first: int = 1, logs: list | None = None) -> LFCSRModel:
    for iteration, batch in enumerate(data, first):
        model.update_learning_rate(iteration)
        model.feed_data(batch)
        model.optimize_parameters(iteration)
        if logs is not None:
            logs.append(dict(model.get_current_log()))
    return model


def everything(model: LFCSRModel) -> dict[str, torch.Tensor]:
    """All weights, EMA and the dual variable; of what the optimizers keep, the weights tell."""
    networks = {'g': model.net_g, 'ema': model.net_g_ema, **({'d': model.net_d} if hasattr(model, 'net_d') else {})}
    state = {f'{name}.{key}': value for name, net in networks.items() for key, value in net.state_dict().items()}
    return {**state, 's': torch.as_tensor(model.dual)}


def assert_equal(first: dict, second: dict, tolerance: float = 0.0) -> None:
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=tolerance, msg=lambda m, key=key: f'{key}: {m}')


# ---- one iteration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('order', ['op', 'po'])
def test_plans_of_forwards_give_the_same_updates_to_the_bit(images, tmp_path, order):
    """With every loss, a discriminator, EMA and clipping."""
    states, logs = {}, {}
    for plan in ('full', 'shared', 'lean'):
        options = with_all_losses(lfcsr_options(images, order, admm_start_iter=0, forwards=plan), images)
        logs[plan] = []
        states[plan] = everything(play(built(options, tmp_path), batches(3), logs=logs[plan]))
    assert states['full']['s'].abs().max() > 0
    for plan in ('shared', 'lean'):
        assert_equal(states[plan], states['full'])
        assert logs[plan] == logs['full']
    assert logs['full'][0].keys() == {
        'l_o_pix', 'l_o_constraint', 'l_p_pix', 'l_p_context', 'l_p_down', 'l_percep', 'l_p_gan', 'l_p_constraint',
        'l_d_real', 'l_d_fake', 'out_d_real', 'out_d_fake', 'residual', 'dual',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('plan', 'of_first', 'of_second'),
    [('shared', 'rn', 'rnn'), ('lean', 'nrn', 'rnn'), ('full', 'rrr', 'rrr')],
)
def test_forwards_of_a_plan(images, tmp_path, plan, of_first, of_second):
    """How often each stage runs, and whether it records a graph ("r") or not ("n")."""
    model = built(lfcsr_options(images, admm_start_iter=0, forwards=plan), tmp_path)
    seen = {'o': '', 'p': ''}
    for name, stage in (('o', model.net_g.stage_o), ('p', model.net_g.stage_p)):
        stage.register_forward_hook(
            lambda *_, name=name: seen.update({name: seen[name] + ('r' if torch.is_grad_enabled() else 'n')})
        )
    play(model, batches(1))
    assert seen == {'o': of_first, 'p': of_second}


@pytest.mark.parametrize('order', ['op', 'po'])
def test_an_iteration_is_equations_11_to_13(images, tmp_path, order):
    """Against a plain loop; the second stage moves first, and in the order po the high bands are constrained."""
    options = lfcsr_options(images, order, admm_start_iter=0)
    options['train'].update(scheduler={'type': 'MultiStepLR', 'milestones': [100]}, grad_clip=None)
    model = built(options, tmp_path)
    stages = {'o': deepcopy(model.net_g.stage_o), 'p': deepcopy(model.net_g.stage_p)}
    data = batches(3)
    play(model, data)
    bands = haar_low if order == 'op' else haar_high
    optimizers = {name: torch.optim.Adam(stage.parameters(), 1e-3) for name, stage in stages.items()}
    s = torch.zeros(())
    for batch in data:
        for moving in reversed(order):
            front = stages[order[0]](batch['lq'])
            image = dict(zip(order, (front, stages[order[1]](front.detach())), strict=True))
            image = {name: value if name == moving else value.detach() for name, value in image.items()}
            loss = penalty(bands(image['p']), bands(image['o']), s, 6.5025)
            if moving == 'o':
                loss = loss + 255 * functional.l1_loss(image['o'], batch['gt'])
            else:
                loss = loss + 25 * functional.l1_loss(image['p'], batch['gt'])
                loss = loss + 255 * functional.l1_loss(*(haar_low(i) / 2 for i in (image['p'], batch['gt'])))
            optimizers[moving].zero_grad()
            loss.backward()
            optimizers[moving].step()
        with torch.no_grad():
            front = stages[order[0]](batch['lq'])
            image = dict(zip(order, (front, stages[order[1]](front)), strict=True))
            s = s + bands(image['p']) - bands(image['o'])
    torch.testing.assert_close(model.dual, s, rtol=0, atol=1e-5)
    for name, stage in stages.items():
        assert_equal(dict(model.net_g.get_submodule(f'stage_{name}').state_dict()), dict(stage.state_dict()), 1e-6)
    assert model.get_current_log()['dual'] == pytest.approx(s.abs().mean().item(), rel=1e-3)


@pytest.mark.parametrize(('order', 'expected'), [('op', ['d', 'p', 'o']), ('po', ['o', 'd', 'p'])])
def test_the_discriminator_moves_within_the_step_of_stage_p(images, tmp_path, order, expected):
    model = built(with_discriminator(lfcsr_options(images, order, admm_start_iter=0)), tmp_path)
    moved, update = [], model.update
    model.update = lambda player, losses: (moved.append(player.name), update(player, losses))[1]
    play(model, batches(1))
    assert moved == expected


def test_only_stage_p_feels_the_regularizer(images, tmp_path):
    """Stage O moves as without a constraint; stage P's loss has the term of Eq. 7, and there is no dual variable."""
    models, logs = {}, {}
    for constraint in ('none', 'regularizer'):
        options = lfcsr_options(images, admm_start_iter=0, constraint=constraint, regularizer_weight=3.0)
        logs[constraint] = []
        models[constraint] = play(built(options, tmp_path), batches(1), logs=logs[constraint])
    none, regularized = (model.net_g for model in models.values())
    assert_equal(dict(none.stage_o.state_dict()), dict(regularized.stage_o.state_dict()))
    assert any(
        not torch.equal(value, regularized.stage_p.state_dict()[name])
        for name, value in none.stage_p.state_dict().items()
    )
    assert logs['regularizer'][0].keys() - logs['none'][0].keys() == {'l_p_constraint'}
    fresh = built(options, tmp_path).net_g(batches(1)[0]['lq'], return_stages=True)
    gap = haar_low(fresh.perceptual) - haar_low(fresh.objective)
    assert logs['regularizer'][0]['l_p_constraint'] == pytest.approx(3 * gap.square().mean().item(), rel=1e-4)
    assert logs['regularizer'][0]['residual'] == pytest.approx(gap.abs().mean().item(), rel=1e-4)
    assert models['regularizer'].extra_state().get('dual') is None


def test_a_gaussian_may_tell_low_frequencies(images, tmp_path):
    model = built(lfcsr_options(images, admm_start_iter=0, low_frequency='gaussian'), tmp_path)
    play(model, batches(1))
    with torch.no_grad():
        after = model.net_g(batches(1)[0]['lq'], return_stages=True)
    torch.testing.assert_close(
        model.dual, gaussian_low(after.perceptual) - gaussian_low(after.objective), rtol=0, atol=1e-6
    )


def test_the_dual_variable_waits_where_a_step_was_refused(images, tmp_path):
    options = lfcsr_options(images, admm_start_iter=0)
    options['train']['guard'] = {'initial': 1e6, 'max_skips': 100}
    model = play(built(options, tmp_path), batches(1))
    before = model.dual.clone()
    broken = batches(1)[0]
    broken['gt'][0, 0, 0, 0] = torch.nan
    play(model, [broken], first=2)
    assert torch.equal(model.dual, before)
    model.guard = None
    with torch.no_grad():
        broken['lq'][0, 0, 0, 0] = torch.inf
        model._step_of_dual(model.net_g(broken['lq'], return_stages=True), True)
    assert model.dual.isfinite().all() and not torch.equal(model.dual, before)


def test_half_precision_and_channels_last(images, tmp_path):
    """With HAN, which has a 3-D convolution; weights, losses and the dual variable stay float32."""
    options = lfcsr_options(images, admm_start_iter=1)
    options['network_g']['stage_o'] = {
        'type': 'HAN', 'num_feat': 4, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 2, 'upscale': 2,
    }  # fmt: skip
    options['train'].update(precision='bf16', channels_last=True)
    logs = []
    model = play(built(options, tmp_path), batches(3), logs=logs)
    assert model.net_g.stage_o.conv_last.weight.is_contiguous(memory_format=torch.channels_last)
    assert {tensor.dtype for tensor in everything(model).values()} == {torch.float32}
    options['train'].update(precision='fp32', channels_last=False)
    exact = []
    play(built(options, tmp_path), batches(3), logs=exact)
    for rough, right in zip(logs, exact, strict=True):
        assert rough == pytest.approx(right, rel=0.1)


# ---- phases ------------------------------------------------------------------------------------------------------------


def test_one_run_equals_pretraining_and_then_admm_from_its_weights(images, tmp_path):
    """To the bit, given the same batches in both."""
    data = batches(5)
    whole = play(built(with_discriminator(lfcsr_options(images)), tmp_path), data)
    pretraining = lfcsr_options(images)
    pretraining['train'].update(total_iter=2)
    for key in ('optim_o', 'optim_p', 'pixel_p_opt', 'down_opt'):
        del pretraining['train'][key]
    first = play(built(pretraining, tmp_path), data[:2])
    torch.save({'params': first.net_g.state_dict(), 'params_ema': first.net_g_ema.state_dict()}, tmp_path / 'pre.pth')
    admm = with_discriminator(lfcsr_options(images, admm_start_iter=0))
    admm['path']['pretrain_network_g'] = str(tmp_path / 'pre.pth')
    del admm['train']['optim_g'], admm['train']['scheduler_g']
    second = built(admm, tmp_path)
    second.net_d.load_state_dict(built(with_discriminator(lfcsr_options(images)), tmp_path).net_d.state_dict())
    assert_equal(everything(play(second, data[2:])), everything(whole))


def test_schedules_are_counted_from_the_beginning_of_their_phase(images, tmp_path):
    model = built(with_discriminator(lfcsr_options(images)), tmp_path)
    rates = []
    for iteration, batch in enumerate(batches(5), 1):
        play(model, [batch], first=iteration)
        rates.append(model.get_current_learning_rate())
    assert rates == [pytest.approx(r) for r in ([1e-3], [1e-4], [1e-3] * 3, [5e-4] * 3, [2.5e-4] * 3)]
    assert [scheduler.last_epoch for scheduler in model.schedulers] == [1, 2, 2, 2]
    model = built(lfcsr_options(images), tmp_path)
    model.iteration = 3
    model.update_learning_rate(3, warmup_iter=4)
    assert model.get_current_learning_rate() == pytest.approx([2.5e-4] * 2)
    assert model.optimizers[0].param_groups[0]['lr'] == 1e-3


def test_pretraining_moves_both_stages_and_accumulates(images, tmp_path):
    """L1(Y) + L1(Y'), the first's gradient flowing into stage O too; two micro-batches are one batch."""
    states = []
    for parts in (1, 2):
        options = lfcsr_options(images, admm_start_iter=1)
        options['train'].update(total_iter=1, accumulate=parts, grad_clip=None, optim_g={'type': 'SGD', 'lr': 1e-4})
        model = built(options, tmp_path)
        start = deepcopy(model.net_g)
        logs = []
        states.append(everything(play(model, batches(1), logs=logs)))
    assert_equal(*states, tolerance=1e-6)
    batch = batches(1)[0]
    stages = start(batch['lq'], return_stages=True)
    loss = 255 * sum(functional.l1_loss(image, batch['gt']) for image in stages)
    loss.backward()
    expected = {f'g.{name}': (p - 1e-4 * p.grad).detach() for name, p in start.named_parameters()}
    assert_equal({name: states[0][name] for name in expected}, expected, tolerance=1e-6)
    assert logs[0]['l_o_pix'] + logs[0]['l_p_pix'] == pytest.approx(loss.item(), rel=1e-4)
    assert set(logs[0]) == {'l_o_pix', 'l_p_pix', 'residual'}
    assert set(model.players) == {'g'}


# ---- runs --------------------------------------------------------------------------------------------------------------


def train(root: Path, options: dict, *arguments: str) -> int:
    return forked(run, root, write_options(root / 'o.yml', options), *arguments)


ABLATIONS = {
    'none': {'constraint': 'none'},
    'regularizer': {'constraint': 'regularizer', 'regularizer_weight': 3.25},
    'gaussian': {'low_frequency': 'gaussian'},
    'po': {'order': 'po'},
    'another stage O': {'stage_o': {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_group': 1,
                                    'num_block': 1, 'squeeze_factor': 2, 'upscale': 2}},
}  # fmt: skip


@pytest.mark.parametrize('changes', ABLATIONS.values(), ids=ABLATIONS)
def test_every_ablation_trains(images, tmp_path, changes):
    changes = dict(changes)
    stage_o = changes.pop('stage_o', None)
    options = with_all_losses(lfcsr_options(images, admm_start_iter=0, **changes), images)
    options['network_d'] = {
        'type': 'SRGANDiscriminator',
        'input_size': 32,
        'num_feat': 2,
        'num_conv': 6,
        'num_dense': 8,
    }
    options['network_g'].update({'stage_o': stage_o} if stage_o else {})
    options['train']['total_iter'] = 1
    options['val'] = None
    assert train(tmp_path, options) == 0
    (line,) = read_metrics(tmp_path / 'experiments/run/metrics.jsonl')
    constrained = {name for name in ('l_o_constraint', 'l_p_constraint') if name in line}
    expected = {'none': set(), 'regularizer': {'l_p_constraint'}}
    assert constrained == expected.get(changes.get('constraint'), {'l_o_constraint', 'l_p_constraint'})
    assert ('dual' in line) == ('l_o_constraint' in line)
    assert {
        'l_o_pix',
        'l_p_context',
        'l_p_down',
        'l_percep',
        'l_p_gan',
        'l_d_real',
        'l_d_fake',
        'residual',
    } <= line.keys()
    assert all(value == value and abs(value) < 1e3 for value in line.values() if isinstance(value, float))


def killed_within(root: Path, path: Path, steps: int) -> int:
    """Trains, and dies by kill -9 where stage O would take one step more than so many."""
    original, taken = LFCSRModel._step, [0]

    def counted(self, player, total):
        taken[0] += player.name == 'o'
        if taken[0] > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, player, total)

    LFCSRModel._step = counted
    return run(root, path)


def test_a_run_killed_in_step_2_ends_as_one_that_was_not(images, tmp_path):
    """Killed in the fourth iteration, the second of ADMM, when d and p have moved and o has not."""
    states = []
    for killed in (False, True):
        root = tmp_path / str(killed)
        root.mkdir()
        path = write_options(root / 'o.yml', with_discriminator(lfcsr_options(images)))
        if killed:
            assert forked(killed_within, root, path, 1) == -signal.SIGKILL
            assert (root / 'experiments/run/training_states/3.state').exists()
            assert not (root / 'experiments/run/training_states/4.state').exists()
        assert forked(run, root, path, *(['--auto_resume'] if killed else [])) == 0
        states.append(final_state(root, 5))
    dual = torch.load(root / 'experiments/run/training_states/5.state', weights_only=True)['ranks'][0]['extra_state'][
        'dual'
    ]
    assert dual.shape == (2, 3, 16, 16) and dual.abs().max() > 0
    assert states[0] == states[1]


# ---- validation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('order', ['op', 'po'])
def test_validation_reports_both_stages(images, tmp_path, order):
    """In metrics.jsonl, the record of the best and the log; then in a test's tables, with the pictures of both."""
    other = f'_{order[0]}'
    options = lfcsr_options(images, order)
    options['val']['metrics']['ssim'] = {'type': 'calculate_ssim', 'crop_border': 2, 'test_y_channel': True}
    options['val']['val_freq'] = 4
    assert train(tmp_path, options) == 0
    lines = [x for x in read_metrics(tmp_path / 'experiments/run/metrics.jsonl') if x['event'] == 'validation']
    names = {'psnr', 'ssim', f'psnr{other}', f'ssim{other}', 'll_difference'}
    assert [set(line['metrics']) for line in lines] == [names] * 2 and set(lines[1]['best']) == names
    least = min(lines, key=lambda line: line['metrics']['ll_difference'])
    assert lines[1]['best']['ll_difference'] == {
        'value': least['metrics']['ll_difference'],
        'iteration': least['iteration'],
    }
    assert f'# psnr{other}: ' in log_text(tmp_path / 'experiments/run')

    test = {key: options[key] for key in ('name', 'model_type', 'scale', 'num_gpu', 'network_g')}
    test['datasets'] = {'test': {**options['datasets']['val'], 'name': 'photos'}}
    test['path'] = {
        'pretrain_network_g': str(tmp_path / 'experiments/run/models/net_g_5.pth'),
        'param_key_g': 'params_ema',
    }
    test['val'] = {'save_img': True, 'suffix': None, 'metrics': options['val']['metrics']}
    path = write_options(tmp_path / 'test.yml', test)
    assert forked(lambda: (os.chdir(tmp_path), main(['test', '-opt', str(path)]))[1]) == 0
    (table,) = json.loads((tmp_path / 'results/run/metrics.json').read_text())['results']
    assert table['mean'] == pytest.approx(lines[1]['metrics'], rel=1e-5)
    assert all(set(scores) == names for scores in table['images'].values())
    pictures = tmp_path / 'results/run/visualization'
    assert sorted(p.name for p in pictures.iterdir()) == ['photos', f'photos{other}']
    assert [len(list(folder.iterdir())) for folder in pictures.iterdir()] == [5, 5]


def test_scores_are_those_of_each_stages_image(images, tmp_path):
    """By hand, in tiles too: the first stage's image is that of the first stage alone."""
    from basicsr.metrics import calculate_metric
    from basicsr.utils import tensor2img

    batch = {'lq': torch.rand(1, 3, 20, 23), 'gt': torch.rand(1, 3, 40, 46), 'lq_path': ['a.png']}

    class Loader(list):
        dataset = type('Set', (), {'opt': {'name': 'one'}})

    for tile in (None, 20):
        options = lfcsr_options(images)
        options['val'].update(tile=tile, overlap=16)
        del options['train']['ema_decay']
        model = built(options, tmp_path)
        model.nondist_validation(Loader([batch]), 1, None, False)
        with torch.no_grad():
            stages = model.net_g(batch['lq'], return_stages=True)
        tolerance = 1e-6 if tile is None else 1e-2
        for name, image in (('psnr', stages.perceptual), ('psnr_o', stages.objective)):
            data = {'img': tensor2img([image]), 'img2': tensor2img([batch['gt']])}
            expected = calculate_metric(data, dict(options['val']['metrics']['psnr']))
            assert model.metric_results[name] == pytest.approx(expected, rel=tolerance)
        gap = (haar_low(stages.perceptual) - haar_low(stages.objective)).abs().mean().item()
        assert model.metric_results['ll_difference'] == pytest.approx(gap, rel=tolerance)
        assert model.net_g.training and model.net_g.stage_p.training


def test_stages_of_luminance_are_measured_by_what_they_made(images, tmp_path):
    """Colour images through networks of one channel: each stage's score is of its own luminance."""
    options = lfcsr_options(images)
    plain = {'num_in_ch': 1, 'img_range': 1, 'rgb_mean': [0]}
    options['network_g']['stage_o'] = {
        'type': 'SRVGGNetCompact', 'num_in_ch': 1, 'num_out_ch': 1, 'num_feat': 4, 'num_conv': 1, 'upscale': 2,
    }  # fmt: skip
    options['network_g']['stage_p'].update(plain)
    model = built(options, tmp_path)
    model.feed_data({'lq': torch.rand(1, 3, 12, 12)})
    model.test()
    final, first = model.results
    assert final.images.shape == first.images.shape == (1, 3, 24, 24)
    assert final.luminance.shape == first.luminance.shape == (1, 1, 24, 24)
    assert not torch.equal(final.luminance, first.luminance)
    assert model.output_luminance is final.luminance


# ---- ranks -------------------------------------------------------------------------------------------------------------


def _play_on_a_rank(options: dict, root: Path, expected: dict) -> None:
    with model_options(options, root, launcher='pytorch') as opt:
        part = slice(2 * opt['rank'], 2 * opt['rank'] + 2)
        data = [{key: value[part] for key, value in batch.items()} for batch in batches(4, size=4)]
        model = play(LFCSRModel(opt), data)
        state = everything(model)
        assert_equal({'s': state.pop('s')}, {'s': expected['s'][part]}, tolerance=1e-5)
        assert_equal(state, {key: value for key, value in expected.items() if key != 's'}, tolerance=1e-6)
        for player in model.players.values():
            assert isinstance(player.network, torch.nn.parallel.DistributedDataParallel)


@pytest.mark.parametrize('plan', ['shared', 'full'])
def test_two_ranks_equal_one(images, tmp_path, plan):
    """Both phases, with a discriminator; each rank keeps the dual variable of its part of the batch."""
    options = with_discriminator(lfcsr_options(images, forwards=plan))
    options['train']['optim_d'] = {'type': 'SGD', 'lr': 1e-3}
    expected = everything(play(built(options, tmp_path), batches(4, size=4)))
    on_ranks(2, _play_on_a_rank, options, tmp_path, expected)


def _train_on_a_rank(root: str, *arguments: str) -> None:
    os.chdir(root)
    assert main(['train', '-opt', 'o.yml', '--launcher', 'pytorch', *arguments]) == 0


def test_another_number_of_ranks_goes_on_without_the_dual_variable(images, tmp_path):
    """With a warning; validation is shared, and gives one rank's numbers for both stages."""
    options = lfcsr_options(images, admm_start_iter=0)
    options['train']['total_iter'] = 2
    assert train(tmp_path, options) == 0
    options['train']['total_iter'] = 3
    write_options(tmp_path / 'o.yml', options)
    on_ranks(2, _train_on_a_rank, str(tmp_path), '--auto_resume', '--force_yml', 'datasets:train:batch_size_per_gpu=2')
    log = log_text(tmp_path / 'experiments/run')
    assert 'WARNING: The dual variable, which each rank keeps for its batch, starts again at 0.' in log
    lines = read_metrics(tmp_path / 'experiments/run/metrics.jsonl')
    duals = {line['iteration']: line['dual'] for line in lines if line['event'] == 'train'}
    residuals = {line['iteration']: line['residual'] for line in lines if line['event'] == 'train'}
    assert duals[3] == pytest.approx(residuals[3]) and duals[2] != pytest.approx(residuals[2])
    shared = lines[-1]['metrics']
    model = built(
        {**options, 'path': {'pretrain_network_g': str(tmp_path / 'experiments/run/models/net_g_3.pth')}}, tmp_path
    )
    from basicsr.data import build_dataloader, build_dataset

    block = {**options['datasets']['val'], 'phase': 'val', 'scale': 2}
    model.nondist_validation(build_dataloader(build_dataset(block), block, num_gpu=0), 3, None, False)
    assert shared == pytest.approx(model.metric_results, rel=1e-5)


# ---- options that do not go together -----------------------------------------------------------------------------------


def _without(*keys):
    return lambda o: [o['train'].pop(key) for key in keys]


def _blurred_high_bands(options):
    options['network_g'].update(order='po', stage_o=dict(REFINER), stage_p=dict(TINY_EDSR))
    options['train']['lfcsr']['low_frequency'] = 'gaussian'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda o: o.update(network_g=dict(TINY_EDSR)), 'needs a network of two stages: expected LFCSR, found EDSR'),
        (_without('optim_o', 'optim_p'), 'Missing: train.optim_o, train.optim_p.'),
        (_without('optim_g'), 'Missing: train.optim_g.'),
        (_without('pixel_opt'), 'Missing: train.pixel_opt.'),
        (_without('pixel_p_opt', 'down_opt'), 'train.contextual_opt: expected a loss of the perceptual stage'),
        (
            lambda o: o['train'].update(gan_opt={'type': 'GANLoss', 'gan_type': 'vanilla'}),
            'network_d: expected a block',
        ),
        (lambda o: o['train']['lfcsr'].update(constraint='regularizer'), 'regularizer_weight: expected a positive'),
        (lambda o: o['train']['lfcsr'].update(constraints='admm'), 'did you mean "constraint"?'),
        (lambda o: o['train']['lfcsr'].update(rho=-1), 'rho'),
        (lambda o: o['train'].update(accumulate=2), 'needs a model of one player, and LFCSRModel has 3'),
        (lambda o: o['train']['down_opt'].update(reduction='none'), 'down_opt.reduction: expected mean or sum'),
        (lambda o: o['network_g'].update(order='oo'), "expected one of op, po, found 'oo'"),
        (lambda o: o['network_g'].update(type='LFCRS'), 'LFCSR'),
        (_blurred_high_bands, 'low_frequency: expected haar, since the order po'),
    ],
)
def test_refused_options(images, tmp_path, capfd, change, message):
    options = lfcsr_options(images)
    change(options)
    assert train(tmp_path, options) == 2
    error = capfd.readouterr().err
    assert message in error and 'Traceback' not in error
    assert not (tmp_path / 'experiments').exists()


def test_images_of_another_scale_than_a_power_of_two_are_not_reduced():
    train_opt = {key: {'type': 'something'} for key in ('pixel_opt', 'down_opt', 'optim_o', 'optim_p')}
    train_opt['total_iter'] = 1
    options = {'train': train_opt, 'network_g': {'type': 'LFCSR'}, 'scale': 3, 'datasets': {}}
    with pytest.raises(basicsr_ext.UserError, match='powers of two, and scale is 3'):
        LFCSRModel.check_together(options)


def test_a_discriminator_of_another_size_is_refused(images, tmp_path, capfd):
    options = with_discriminator(lfcsr_options(images))
    options['network_d'] = {'type': 'SRGANDiscriminator', 'input_size': 128, 'num_feat': 2}
    assert train(tmp_path, options) == 2
    assert '(input_size is 128, and patches (datasets.train.gt_size) are 32x32)' in capfd.readouterr().err
