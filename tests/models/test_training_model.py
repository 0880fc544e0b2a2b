"""The shared base with one player: against BasicSR's SRModel, and what it adds."""

from __future__ import annotations

import math

import pytest
import torch
from run_helpers import TINY_EDSR, model_options, on_ranks, sr_options

import basicsr_ext

basicsr_ext.register()

from basicsr.models import build_model

from basicsr_ext.models.grad_clip import GradClip
from basicsr_ext.models.guard import Guard, GuardOptions
from basicsr_ext.models.optimizers import build_optimizer, build_scheduler
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.weights import load_weights, read_weights


def batch(seed=0, size=2, factor=1.0):
    generator = torch.Generator().manual_seed(seed)
    return {
        'lq': torch.rand(size, 3, 8, 8, generator=generator),
        'gt': factor * torch.rand(size, 3, 16, 16, generator=generator),
        'gt_path': [f'image{seed}_{i}' for i in range(size)],
    }


def step(model, iteration, data):
    model.update_learning_rate(iteration)
    model.feed_data(data)
    model.optimize_parameters(iteration)


def test_one_player_equals_stock_srmodel_to_the_bit(tmp_path):
    options = sr_options(tmp_path)
    options['train']['ema_decay'] = 0.9
    with model_options(options, tmp_path) as opt:
        ours, stock = TrainingModel(opt), build_model({**opt, 'model_type': 'SRModel'})
        stock.net_g.load_state_dict(ours.net_g.state_dict())
        stock.net_g_ema.load_state_dict(ours.net_g.state_dict())
        for iteration in range(1, 6):
            for model in (ours, stock):
                step(model, iteration, batch(iteration))
    for key, value in stock.net_g.state_dict().items():
        assert torch.equal(ours.net_g.state_dict()[key], value)
        assert (ours.net_g_ema.state_dict()[key] - stock.net_g_ema.state_dict()[key]).abs().max() < 1e-7
    assert ours.get_current_log() == {'l_pix': pytest.approx(stock.get_current_log()['l_pix'])}
    assert ours.get_current_learning_rate() == stock.get_current_learning_rate()


def test_ema_follows_buffers(tmp_path):
    options = sr_options(tmp_path)
    options['train']['ema_decay'] = 0.9
    with model_options(options, tmp_path) as opt:
        model = TrainingModel(opt)
    model.net_g.register_buffer('count', torch.zeros(1))
    model.net_g_ema.register_buffer('count', torch.zeros(1))
    model.net_g.count += 3
    step(model, 1, batch())
    assert model.net_g_ema.count.item() == 3


def test_integer_images_become_floats_on_the_device(tmp_path):
    with model_options(sr_options(tmp_path), tmp_path) as opt:
        model = TrainingModel(opt)
    data = batch()
    data['gt'] = (data['gt'] * 255).round().to(torch.uint8)
    model.feed_data(data)
    assert model.gt.dtype == torch.float32
    assert torch.equal(model.gt, data['gt'].float() / 255)
    model.feed_data({'lq': (data['lq'] * 65535).to(torch.uint16)})
    assert (model.lq - data['lq']).abs().max() < 2e-5


def test_losses_are_told_the_iteration_and_keep_their_state(tmp_path):
    class Counting(torch.nn.L1Loss):
        iteration = 0

        def set_iteration(self, iteration):
            self.iteration = iteration

        def extra_state(self):
            return {'iteration': self.iteration}

        def load_extra_state(self, state):
            self.iteration = state['iteration']

    with model_options(sr_options(tmp_path), tmp_path) as opt:
        models = [TrainingModel(opt), TrainingModel(opt)]
    for model in models:
        model.criteria['pixel'] = Counting()
    step(models[0], 1, batch())
    step(models[0], 2, batch())
    assert models[0].criteria['pixel'].iteration == 2
    models[1].load_extra_state(models[0].extra_state())
    assert models[1].criteria['pixel'].iteration == 2


def test_losses_are_read_back_only_when_printed(tmp_path, monkeypatch):
    """Reading a tensor waits for the GPU; a step without a guard reads none."""
    model = trained(tmp_path, {'optim_g': {'type': 'SGD', 'lr': 1e-3}, 'ema_decay': 0.9}, iterations=1)
    read = []
    for name in ('item', 'tolist', '__float__', '__bool__'):
        original = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, original=original: read.append(1) or original(self))
    step(model, 2, batch(2, size=4))
    assert not read
    model.get_current_log()
    assert len(read) == 2  # what is logged, and since when losses are not finite


def test_a_network_without_a_loss_is_refused(tmp_path):
    options = sr_options(tmp_path)
    options['train'].pop('pixel_opt')
    with (
        model_options(options, tmp_path) as opt,
        pytest.raises(basicsr_ext.UserError, match='expected a loss in pixel_opt'),
    ):
        TrainingModel(opt)


@pytest.mark.parametrize('optim', [None, {}, {'type': 'Adam'}, {'lr': 1e-3}])
def test_incomplete_optimizers_are_refused(tmp_path, optim):
    options = sr_options(tmp_path)
    options['train']['optim_g'] = optim
    message = r'train\.optim_g: expected the keys type and lr'
    with model_options(options, tmp_path) as opt, pytest.raises(basicsr_ext.UserError, match=message):
        TrainingModel(opt)


def test_validation_without_gt_forgets_the_batch_before(tmp_path):
    with model_options(sr_options(tmp_path), tmp_path) as opt:
        model = TrainingModel(opt)
    model.feed_data(batch())
    model.feed_data({'lq': batch()['lq']})
    model.test()
    assert 'gt' not in model.get_current_visuals()


def test_testing_uses_the_ema_network_and_leaves_training_mode_alone(tmp_path):
    options = sr_options(tmp_path)
    for decay in (0, 0.9):
        options['train']['ema_decay'] = decay
        with model_options(options, tmp_path) as opt:
            model = TrainingModel(opt)
        step(model, 1, batch())
        model.test()
        network = model.net_g_ema if decay else model.net_g
        with torch.no_grad():
            assert torch.equal(model.output, network(model.lq))
        assert model.net_g.training


def test_window_networks_are_padded_to_whole_windows(tmp_path):
    options = sr_options(tmp_path)
    options['network_g'] = {'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 8, 'window_size': 4, 'img_range': 1.0,
                            'depths': [2], 'embed_dim': 8, 'num_heads': [2], 'mlp_ratio': 2,
                            'upsampler': 'pixelshuffledirect', 'resi_connection': '1conv'}  # fmt: skip
    with model_options(options, tmp_path) as opt:
        model = TrainingModel(opt)
    model.feed_data({'lq': torch.rand(1, 3, 10, 15)})
    model.test()
    assert model.output.shape == (1, 3, 20, 30)


# ---- clipping --------------------------------------------------------------------------------------------------------


def test_value_clipping_limits_every_gradient(tmp_path):
    options = sr_options(tmp_path)
    options['train'].update(pixel_opt={'type': 'L1Loss', 'loss_weight': 255.0}, optim_g={'type': 'SGD', 'lr': 1.0})
    moves = {}
    for limit in (None, 0.1):
        options['train']['grad_clip'] = limit and {'value': limit}
        with model_options(options, tmp_path) as opt:
            model = TrainingModel(opt)
        before = [p.detach().clone() for p in model.net_g.parameters()]
        step(model, 1, batch())
        moves[limit] = torch.cat([(a - b).flatten() for a, b in zip(before, model.net_g.parameters(), strict=True)])
    assert moves[None].abs().max() > 0.2
    torch.testing.assert_close(moves[0.1], moves[None].clamp(-0.1, 0.1), atol=1e-6, rtol=0)


def test_norm_clipping():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([3.0, 4.0])
    GradClip(norm=1.0).apply([parameter])
    torch.testing.assert_close(parameter.grad, torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize('block', [{}, {'value': 1, 'norm': 1}, {'value': -1}, {'clip': 1}])
def test_grad_clip_takes_one_positive_limit(block):
    with pytest.raises(basicsr_ext.UserError, match=r'train\.grad_clip'):
        GradClip.parse(block, 'train.grad_clip')


# ---- guard -----------------------------------------------------------------------------------------------------------


def guarded(tmp_path, **guard):
    options = sr_options(tmp_path)
    options['train'].update(ema_decay=0.9, guard={'initial': 1.0, **guard})
    with model_options(options, tmp_path) as opt:
        return TrainingModel(opt)


def snapshot(model):
    state = [p.detach().clone() for net in (model.net_g, model.net_g_ema) for p in net.parameters()]
    for values in model.optimizers[0].state_dict()['state'].values():
        state += [value.clone() for value in values.values() if isinstance(value, torch.Tensor)]
    return state


@pytest.mark.parametrize('factor', [1000.0, math.nan, math.inf])
def test_guard_skips_a_step_and_leaves_everything_but_the_schedule(tmp_path, factor):
    model = guarded(tmp_path, max_skips=3)
    step(model, 1, batch(1))
    accepted = model.guard.last_accepted['g']
    before, rate = snapshot(model), model.get_current_learning_rate()
    step(model, 2, batch(2, factor=factor))
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(model), strict=True))
    assert model.guard.last_accepted['g'] == accepted and model.get_current_log()['skipped'] == 1
    step(model, 3, batch(3))
    step(model, 4, batch(4))
    assert any(not torch.equal(a, b) for a, b in zip(before, snapshot(model), strict=True))
    assert model.get_current_learning_rate()[0] == rate[0] / 2  # the milestone at 3 was not missed
    assert model.guard.skips['g'] == 0


def test_guard_compares_the_first_loss_with_its_initial_value(tmp_path):
    model = guarded(tmp_path, initial=1e-6)
    before = snapshot(model)
    step(model, 1, batch())
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot(model), strict=True))


def test_guard_stops_after_skips_in_a_row_and_names_the_batch(tmp_path):
    model = guarded(tmp_path, max_skips=2)
    step(model, 1, batch(1, factor=1e4))
    step(model, 2, batch(2))  # an accepted step starts the count anew
    step(model, 3, batch(3, factor=1e4))
    with pytest.raises(basicsr_ext.UserError, match=r'2 steps in a row were skipped.*image4_0, image4_1'):
        step(model, 4, batch(4, factor=1e4))


def test_guard_state_is_resumed():
    guard = Guard(GuardOptions())
    assert guard.accepts('g', torch.tensor(3.0), [])
    assert not guard.accepts('g', torch.tensor(15.1), [])
    other = Guard(GuardOptions())
    other.load_extra_state(guard.extra_state())
    assert (other.last_accepted, other.skips) == ({'g': 3.0}, {'g': 1})
    assert other.accepts('g', torch.tensor(15.0), [])


def _guard_on_a_rank(root):
    with model_options(sr_options(root), root, launcher='pytorch') as opt:
        guard = Guard(GuardOptions(initial=1.0))
        assert guard.accepts('g', torch.tensor(1.0 + opt['rank']), [])
        assert guard.last_accepted['g'] == 2.0  # the largest of both ranks
        assert not guard.accepts('g', torch.tensor([1.0, math.nan][opt['rank']]), [])


def test_all_ranks_agree_on_a_skip(tmp_path):
    on_ranks(2, _guard_on_a_rank, tmp_path)


# ---- optimizers, schedulers, weights ---------------------------------------------------------------------------------


def test_lamb_is_the_published_one():
    """Betas (0.9, 0.99), eps 1e-6, no bias correction, weight norm clamped to 10: one step by hand, in float64."""
    torch.manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(50, dtype=torch.float64) * 5)
    start = parameter.detach().clone()
    optimizer = build_optimizer('LAMB', [parameter], 1.6e-3, betas=[0.9, 0.99], adam_debias=True)
    first = second = torch.zeros_like(start)
    expected = start
    for seed in range(3):
        parameter.grad = torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        optimizer.step()
        first = 0.9 * first + 0.1 * parameter.grad
        second = 0.99 * second + 0.01 * parameter.grad**2
        direction = first / (second.sqrt() + 1e-6)
        trust = min(expected.norm().item(), 10.0) / (direction.norm() + 1e-6)
        expected = expected - 1.6e-3 * trust * direction
    assert start.norm() > 10
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-12)


def test_schedulers_by_name():
    optimizer = build_optimizer('Adam', [torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = build_scheduler(optimizer, {'type': 'CosineAnnealingRestartLR', 'periods': [10], 'eta_min': 0})
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.5 * (1 + math.cos(math.pi * i / 10)) for i in range(10)])
    assert optimizer.param_groups[0]['lr'] == pytest.approx(0)
    for options, message in [({}, 'Scheduler None'), ({'type': 'MultStepLR'}, 'such as MultiStepLR'),
                             ({'type': 'MultiStepLR', 'milestone': [1]}, "'milestone'")]:  # fmt: skip
        with pytest.raises(basicsr_ext.UserError, match=message):
            build_scheduler(optimizer, options)


def test_schedulers_of_torch_by_name():
    optimizer = build_optimizer('SGD', [torch.nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = build_scheduler(optimizer, {'type': 'CosineAnnealingLR', 'T_max': 4})
    assert isinstance(scheduler, torch.optim.lr_scheduler.CosineAnnealingLR)


# ---- precision and speed ---------------------------------------------------------------------------------------------


def trained(tmp_path, changes, iterations=3, size=4):
    options = sr_options(tmp_path)
    options['datasets']['train']['batch_size_per_gpu'] = size
    options['train'].update(changes)
    with model_options(options, tmp_path) as opt:
        torch.manual_seed(0)
        model = TrainingModel(opt)
    for iteration in range(1, iterations + 1):
        step(model, iteration, batch(iteration, size=size))
    return model


def furthest(first, second):
    pairs = zip(first.net_g.parameters(), second.net_g.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize('precision', ['tf32', 'bf16', 'fp16'])
def test_precisions_stay_near_float32_and_keep_float32_weights(tmp_path, precision):
    exact, other = trained(tmp_path, {}), trained(tmp_path, {'precision': precision})
    assert all(p.dtype == torch.float32 for p in other.net_g.parameters())
    assert other.output.dtype == torch.float32
    assert furthest(exact, other) < 5e-3
    assert (furthest(exact, other) > 0) == (precision in ('bf16', 'fp16'))
    torch.set_float32_matmul_precision('highest')


def test_forward_runs_in_the_precision_asked_for_and_losses_do_not(tmp_path):
    model = trained(tmp_path, {'precision': 'bf16'}, iterations=0)
    seen = {}
    model.net_g.conv_last.register_forward_hook(lambda module, inputs, output: seen.update(network=output.dtype))
    original = model.criteria['pixel'].forward
    model.criteria['pixel'].forward = lambda a, b: seen.update(loss=a.dtype) or original(a, b)
    step(model, 1, batch())
    assert seen == {'network': torch.bfloat16, 'loss': torch.float32}


def test_the_scaler_skips_overflowed_steps_and_is_resumed(tmp_path):
    model = trained(tmp_path, {'precision': 'fp16', 'grad_clip': {'value': 0.1}}, iterations=1)
    before = [p.detach().clone() for p in model.net_g.parameters()]
    scale = model.players['g'].scaler.get_scale()
    data = batch(2, size=4)
    data['lq'][0, 0, 0, 0] = math.inf
    step(model, 2, data)
    assert all(torch.equal(a, b) for a, b in zip(before, model.net_g.parameters(), strict=True))
    assert model.players['g'].scaler.get_scale() == scale / 2
    other = trained(tmp_path, {'precision': 'fp16'}, iterations=0)
    other.load_extra_state(model.extra_state())
    assert other.players['g'].scaler.get_scale() == scale / 2


def test_channels_last_computes_the_same(tmp_path):
    exact, other = trained(tmp_path, {}), trained(tmp_path, {'channels_last': True})
    assert other.net_g.conv_first.weight.is_contiguous(memory_format=torch.channels_last)
    assert furthest(exact, other) < 1e-4


def test_compiled_forward_computes_the_same(tmp_path, monkeypatch):
    original = torch.compile
    monkeypatch.setattr(torch, 'compile', lambda network, **arguments: original(network, backend='eager', **arguments))
    other = trained(tmp_path, {'compile': True})
    assert furthest(trained(tmp_path, {}), other) < 1e-6
    assert 'conv_first.weight' in other.net_g.state_dict()  # what is saved is the bare network


@pytest.mark.parametrize('parts', [2, 4])
def test_accumulation_is_one_step_over_the_same_samples(tmp_path, parts):
    whole, split = trained(tmp_path, {'optim_g': {'type': 'SGD', 'lr': 0.1}}), None
    split = trained(tmp_path, {'optim_g': {'type': 'SGD', 'lr': 0.1}, 'accumulate': parts})
    assert furthest(whole, split) < 1e-6
    assert split.get_current_log()['l_pix'] == pytest.approx(whole.get_current_log()['l_pix'], rel=1e-5)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'accumulate': 3}, r'accumulate: 3 does not divide datasets\.train\.batch_size_per_gpu: 4'),
        ({'accumulate': 2, 'pixel_opt': {'type': 'L1Loss', 'reduction': 'sum'}}, r'train\.pixel_opt has sum'),
        ({'accumulate': 0}, r'train\.accumulate'),
        ({'precision': 'int8'}, r"train\.precision: input should be 'fp32'"),
        ({'channels_last': 'maybe'}, r'train\.channels_last'),
    ],
)
def test_wrong_step_options(tmp_path, changes, message):
    with pytest.raises(basicsr_ext.UserError, match=message):
        trained(tmp_path, changes, iterations=0)


def test_fused_optimizers_are_an_argument(tmp_path):
    fused = trained(tmp_path, {'optim_g': {'type': 'Adam', 'lr': 1e-3, 'fused': True}})
    assert furthest(trained(tmp_path, {}), fused) < 1e-6


def test_weights_are_found_and_checked(tmp_path):
    from basicsr.archs import build_network

    network = build_network(TINY_EDSR)
    state = network.state_dict()
    torch.save(
        {'params': {}, 'params_ema': {f'module.{key}': value for key, value in state.items()}}, tmp_path / 'ema.pth'
    )
    assert read_weights(tmp_path / 'ema.pth').keys() == state.keys()
    torch.save(state, tmp_path / 'bare.pth')
    assert read_weights(tmp_path / 'bare.pth').keys() == state.keys()
    other = build_network({**TINY_EDSR, 'num_feat': 6, 'num_block': 2})
    with pytest.raises(basicsr_ext.UserError, match=r'do not fit EDSR: .*missing in the file.*of another shape'):
        load_weights(other, tmp_path / 'bare.pth')
    with pytest.raises(basicsr_ext.UserError, match='expected the key "params_x", found'):
        read_weights(tmp_path / 'ema.pth', 'params_x')
    (tmp_path / 'bad.pth').write_bytes(b'abc')
    with pytest.raises(basicsr_ext.UserError, match=r'bad\.pth: expected a file that torch.save wrote'):
        read_weights(tmp_path / 'bad.pth')
    with pytest.raises(basicsr_ext.UserError, match='found none'):
        read_weights(tmp_path / 'none.pth')


def test_safetensors_are_read(tmp_path):
    import safetensors.torch
    from basicsr.archs import build_network

    state = build_network(TINY_EDSR).state_dict()
    safetensors.torch.save_file(state, tmp_path / 'net.safetensors')
    network = build_network(TINY_EDSR)
    load_weights(network, tmp_path / 'net.safetensors')
    assert all(torch.equal(network.state_dict()[key], value) for key, value in state.items())


@pytest.mark.parametrize('content', ['params', 'params_ema', 'bare'])
def test_runs_find_weights_by_themselves(tmp_path, content):
    from basicsr.archs import build_network

    state = {f'module.{key}': value for key, value in build_network(TINY_EDSR).state_dict().items()}
    torch.save(state if content == 'bare' else {content: state}, tmp_path / 'net.pth')
    options = sr_options(tmp_path)
    options['train']['ema_decay'] = 0.9
    options['path']['pretrain_network_g'] = str(tmp_path / 'net.pth')
    with model_options(options, tmp_path) as opt:
        model = TrainingModel(opt)
    for net in (model.net_g, model.net_g_ema):
        assert all(torch.equal(net.state_dict()[key.removeprefix('module.')], value) for key, value in state.items())


def test_x2_weights_start_an_x4_network_with_its_upsampler_anew(tmp_path):
    from basicsr.archs import build_network

    torch.save({'params': build_network(TINY_EDSR).state_dict()}, tmp_path / 'x2.pth')
    options = sr_options(tmp_path, scale=4)
    options['network_g'] = {**TINY_EDSR, 'upscale': 4}
    options['path'].update(pretrain_network_g=str(tmp_path / 'x2.pth'), pretrain_network_g_leave_out=['upsample'])
    state = read_weights(tmp_path / 'x2.pth')
    with model_options(options, tmp_path) as opt:
        loaded = TrainingModel(opt).net_g.state_dict()
        assert all(torch.equal(loaded[k], v) for k, v in state.items() if not k.startswith('upsample'))
        assert not torch.equal(loaded['upsample.0.weight'], state['upsample.0.weight'])
        opt['path'].pop('pretrain_network_g_leave_out')
        with pytest.raises(basicsr_ext.UserError, match=r'do not fit EDSR.*upsample\.2\.weight'):
            TrainingModel(opt)
        opt['path']['strict_load_g'] = False
        assert torch.equal(TrainingModel(opt).net_g.state_dict()['upsample.0.weight'], state['upsample.0.weight'])


def test_partly_fitting_weights_say_their_share(tmp_path):
    from basicsr.archs import build_network

    from basicsr_ext.networks.weights import fit_weights

    network = build_network({**TINY_EDSR, 'num_block': 2})
    sentence = fit_weights(network, build_network(TINY_EDSR).state_dict(), 'x.pth', strict=False)
    total = len(network.state_dict())
    assert str(sentence).startswith(f'{total - 4} of {total} tensors matched')
    with pytest.raises(basicsr_ext.UserError, match='do not fit'):
        fit_weights(network, {'other': torch.zeros(1)}, 'x.pth', strict=False)
