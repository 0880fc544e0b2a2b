"""LFC-SR: phases, steps in turn, plans of forwards, every ablation, resuming, ranks."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import signal
from copy import deepcopy
from pathlib import Path

import cv2
import pytest
import torch
from basicsr.utils import get_root_logger
from lfcsr_runs import (
    REFINER,
    assert_equal,
    batches,
    built,
    everything,
    lfcsr_options,
    make_images,
    play,
    train,
    with_all_losses,
    with_discriminator,
)
from run_helpers import (
    TINY_EDSR,
    assert_same_weights,
    final_state,
    forked,
    log_text,
    model_options,
    network_weights,
    on_ranks,
    run,
    write_options,
)
from torch.nn import functional

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.functional.admm import penalty
from basicsr_ext.functional.wavelet import gaussian_low, haar_high, haar_low
from basicsr_ext.models.lfcsr.lfcsr_model import LFCSRModel
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    return make_images(tmp_path_factory.mktemp('lfcsr'), photos)


# ---- one iteration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('order', 'changes'),
    [
        ('op', {}),
        ('po', {}),
        ('op', {'low_frequency': 'gaussian'}),
        ('op', {'constraint': 'none'}),
        ('po', {'constraint': 'none'}),
        ('op', {'constraint': 'regularizer', 'regularizer_weight': 3.0}),
        ('po', {'constraint': 'regularizer', 'regularizer_weight': 3.0}),
    ],
)
def test_plans_of_forwards_give_the_same_updates_to_the_bit(images, tmp_path, order, changes):
    """With a discriminator, EMA and clipping; once with every loss."""
    states, logs = {}, {}
    for plan in ('full', 'shared', 'lean'):
        options = with_discriminator(lfcsr_options(images, order, admm_start_iter=0, forwards=plan, **changes))
        if not changes:
            options = with_all_losses(options, images)
        logs[plan] = []
        states[plan] = everything(play(built(options, tmp_path), batches(3), logs=logs[plan]))
    without_dual = 'constraint' in changes
    for log in [log for lines in logs.values() for log in lines] if without_dual else []:
        del log['residual']  # of images before or after the steps: nothing hangs on it
    for plan in ('shared', 'lean'):
        assert_equal(states[plan], states['full'])
        assert logs[plan] == logs['full']
    assert (states['full']['s'].abs().max() > 0) != without_dual
    if changes:
        return
    assert logs['full'][0].keys() == {
        'l_o_pix', 'l_o_constraint', 'l_p_pix', 'l_p_context', 'l_p_down', 'l_percep', 'l_p_gan', 'l_p_constraint',
        'l_d_real', 'l_d_fake', 'out_d_real', 'out_d_fake', 'residual', 'dual',
        'dual_skipped', 'lr_o', 'lr_p', 'lr_d',
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
    assert logs['regularizer'][0]['l_p_constraint'] == pytest.approx(3 * gap.abs().mean().item(), rel=1e-4)
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


def test_the_dual_variable_waits_where_a_step_was_refused(images, tmp_path, caplog):
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
        after = model.net_g(broken['lq'], return_stages=True)
        model._step_of_dual(after, True)
    assert model.dual.isfinite().all() and not torch.equal(model.dual, before)
    kept = (~(haar_low(after.perceptual) - haar_low(after.objective)).isfinite()).sum().item()
    resumed = built(options, tmp_path)
    resumed.load_extra_state(model.extra_state())
    assert resumed._dual_skipped == kept
    assert model.get_current_log()['dual_skipped'] == kept > 0
    assert f'{kept} elements of the dual variable' in caplog.text
    model.log('dual', 0.0)
    assert model.get_current_log()['dual_skipped'] == 0


@pytest.mark.parametrize('player', ['o', 'p'])
def test_the_dual_variable_waits_where_half_precision_overflowed(images, tmp_path, player):
    """A step that the scaler skipped is none: weights, their average and s stay; the next one is taken again."""
    options = lfcsr_options(images, admm_start_iter=0, constraint='admm')
    options['train']['precision'] = 'fp16'
    model = play(built(options, tmp_path), batches(1))
    before = {key: value.clone() for key, value in everything(model).items()}
    scaler = model.players[player].scaler
    scaler.update(3e38)  # overflows for sure
    play(model, batches(1), first=2)
    after = everything(model)
    assert torch.equal(after['s'], before['s'])
    for key in before:
        if key.startswith((f'g.stage_{player}.', f'ema.stage_{player}.')):
            assert torch.equal(after[key], before[key]), key
    assert any(not torch.equal(after[key], before[key]) for key in before if key.startswith('g.'))
    assert model.get_current_log()['skipped'] == 1
    scaler.update(1024.0)
    play(model, batches(1), first=3)
    assert not torch.equal(everything(model)['s'], before['s'])


@pytest.mark.parametrize('resumed', [False, True])
def test_a_batch_of_another_size_is_refused(images, tmp_path, resumed):
    """A smaller last batch, or a state of other batches: not torch's words about shapes."""
    model = play(built(lfcsr_options(images, admm_start_iter=0), tmp_path), batches(1))
    if resumed:
        state, model = model.extra_state(), built(lfcsr_options(images, admm_start_iter=0), tmp_path)
        model.load_extra_state(state)
    with pytest.raises(
        basicsr_ext.UserError, match=r'train\.lfcsr\.constraint: .*expected 2x3x16x16, .*found 1x3x16x16'
    ):
        play(model, batches(1, size=1), first=2)
    options = lfcsr_options(images, admm_start_iter=0, constraint='regularizer', regularizer_weight=1.0)
    play(play(built(options, tmp_path), batches(1)), batches(1, size=1), first=2)  # has no dual variable


def test_a_run_of_pretraining_alone_may_go_on_into_the_turns(images, tmp_path):
    """As one that was long enough from the beginning, with the discriminator."""
    options = with_discriminator(lfcsr_options(images))
    options['train']['total_iter'] = 4
    (tmp_path / 'whole').mkdir(), (tmp_path / 'parts').mkdir()
    assert train(tmp_path / 'whole', options) == 0
    options['train']['total_iter'] = 2
    assert train(tmp_path / 'parts', options) == 0
    options['train']['total_iter'] = 4
    assert train(tmp_path / 'parts', options, '--auto_resume') == 0
    for label in ('net_g', 'net_d'):
        whole, parts = (network_weights(tmp_path / name, label=label) for name in ('whole', 'parts'))
        assert_same_weights(whole, parts)


def test_resuming_with_other_batches_is_refused(images, tmp_path, capfd):
    options = lfcsr_options(images, admm_start_iter=0)
    options['train']['total_iter'] = 2
    assert train(tmp_path, options) == 0
    options['train']['total_iter'] = 3
    for key, value in (('batch_size_per_gpu', 1), ('gt_size', 16)):
        changed = deepcopy(options)
        changed['datasets']['train'][key] = value
        assert train(tmp_path, changed, '--auto_resume') == 2
        assert f'datasets.train.{key} (was' in capfd.readouterr().err


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


def test_one_run_of_the_command_equals_two(images, tmp_path):
    """To the bit where each batch holds the same samples: only their order begins anew with the second run.

    Weights, their average, the discriminator's first weights and the schedules are the same.
    """
    for side, size in (('hr', 32), ('lr', 16)):
        (tmp_path / side).mkdir()
        picture = cv2.imread(str(min((images / side).iterdir())))
        cv2.imwrite(str(tmp_path / side / 'one.png'), picture[:size, :size])
    whole = with_discriminator(lfcsr_options(tmp_path))
    for name in ('train', 'val'):
        del whole['datasets'][name]['io_backend']
        whole['datasets'][name]['type'] = 'PairedStoreDataset'
    whole['datasets']['train'].update(use_hflip=False, use_rot=False)
    whole['train']['grad_clip'] = {'value': 1e-1, 'players': ['o', 'p']}
    first = deepcopy(whole)
    first['train']['total_iter'] = 2
    for key in ('optim_o', 'optim_p', 'optim_d', 'gan_opt', 'pixel_p_opt', 'down_opt', 'grad_clip'):
        del first['train'][key]
    del first['network_d']
    second = deepcopy(whole)
    second['train'].update(total_iter=3, lfcsr={'admm_start_iter': 0})
    del second['train']['optim_g'], second['train']['scheduler_g']
    second['path']['pretrain_network_g'] = str(tmp_path / 'first/experiments/run/models/net_g_2.pth')
    for name, options in (('whole', whole), ('first', first), ('second', second)):
        (tmp_path / name).mkdir()
        assert train(tmp_path / name, options) == 0
    for network in ('net_g', 'net_d'):
        files = [
            tmp_path / f'{name}/experiments/run/models/{network}_{last}.pth'
            for name, last in (('whole', 5), ('second', 3))
        ]
        weights = [torch.load(file, weights_only=True) for file in files]
        for key in ('params', 'params_ema') if network == 'net_g' else ('params',):
            assert_equal(*(content[key] for content in weights))


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


@pytest.mark.parametrize(
    ('start', 'words'), [(1, '1 iterations, then in turn for 2'), (9, '3 iterations, then in turn for 0')]
)
def test_the_log_says_how_long_the_phases_are(images, tmp_path, monkeypatch, start, words):
    lines = []
    monkeypatch.setattr(get_root_logger(), 'info', lambda line, *_: lines.append(line))
    options = lfcsr_options(images, admm_start_iter=start)
    options['train']['total_iter'] = 3
    built(options, tmp_path)
    assert f'LFC-SR: both stages together for {words}.' in lines


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


# ---- clipping --------------------------------------------------------------------------------------------------------


def test_gradients_are_limited_of_the_players_that_are_named(images, tmp_path):
    options = with_discriminator(lfcsr_options(images))
    options['train']['grad_clip'] = {'value': 1e-4, 'players': ['o', 'p']}
    model = built(options, tmp_path)
    largest = {}
    for name, player in model.players.items():
        step = player.optimizer.step
        player.optimizer.step = lambda name=name, player=player, step=step: (
            largest.update({name: max(p.grad.abs().max().item() for p in player.parameters)}),
            step(),
        )
    play(model, batches(3))
    assert largest['o'] <= 1e-4 and largest['p'] <= 1e-4
    assert largest['g'] > 1e-3 and largest['d'] > 1e-3


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
        (lambda o: o['train']['lfcsr'].update(rho=float('inf')), 'train.lfcsr.rho: input should be a finite number'),
        (lambda o: o['train']['lfcsr'].update(rho=float('nan')), 'train.lfcsr.rho: input should be a finite number'),
        (lambda o: o['train']['lfcsr'].update(regularizer_weight=float('inf')), 'regularizer_weight: input should be'),
        (
            lambda o: o['train']['grad_clip'].update(value=float('nan')),
            'train.grad_clip.value: input should be a finite',
        ),
        (lambda o: o['train']['grad_clip'].update(players=['x']), "players: expected some of g, o, p, d, found 'x'"),
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
        LFCSRModel.check_combination(options)


def test_a_discriminator_of_another_size_is_refused(images, tmp_path, capfd):
    options = with_discriminator(lfcsr_options(images))
    options['network_d'] = {'type': 'SRGANDiscriminator', 'input_size': 128, 'num_feat': 2}
    assert train(tmp_path, options) == 2
    assert 'input_size is 128, and patches (datasets.train.gt_size) are 32x32' in capfd.readouterr().err


def test_a_second_stage_that_enlarges_is_refused_before_the_run(images, tmp_path, capfd):
    options = lfcsr_options(images)
    options['network_g']['order'] = 'po'
    assert train(tmp_path, options) == 2
    assert 'with order: po stage_p enlarges and stage_o keeps the size' in capfd.readouterr().err


# ---- BasicSR's own command -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (lambda o: o.update(scale=3), 'train.down_opt: wavelets reduce images by powers of two, and scale is 3'),
        (lambda o: o['train'].pop('optim_p'), 'train.optim_p: expected a block'),
        (lambda o: o['train']['lfcsr'].update(constraint='regularizer'), 'train.lfcsr.regularizer_weight: expected'),
        (
            lambda o: o['train'].update(grad_clip={'value': 1, 'players': ['q']}),
            'train.grad_clip.players: expected some of',
        ),
    ],
)
def test_the_model_itself_refuses_what_contradicts(images, tmp_path, spoil, message):
    """BasicSR's own command checks nothing before it builds a model."""
    options = lfcsr_options(images)
    spoil(options)
    with pytest.raises(UserError, match=message):
        built(options, tmp_path)


def test_learning_rates_have_the_names_of_players(images, tmp_path):
    """Those that move in the phase."""
    options = with_discriminator(lfcsr_options(images))
    options['train']['scheduler_p'] = {'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1}
    model, logs = built(options, tmp_path), []
    play(model, batches(4), logs=logs)
    rates = [{key: value for key, value in log.items() if key.startswith('lr_')} for log in logs]
    assert [set(line) for line in rates] == [{'lr_g'}, {'lr_g'}, {'lr_o', 'lr_p', 'lr_d'}, {'lr_o', 'lr_p', 'lr_d'}]
    assert rates[3]['lr_p'] == pytest.approx(1e-4) and rates[3]['lr_o'] == pytest.approx(5e-4)
