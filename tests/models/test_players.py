"""The shared base carries methods with two and three updates.

A model composed on it equals a plain PyTorch loop of the same updates to the bit, on two ranks to 1e-6; and an ESRGAN step
composed on it equals BasicSR's.
"""

from __future__ import annotations

import pytest
import torch
from run_helpers import gan_options, model_options, on_ranks, sr_options

import basicsr_ext

basicsr_ext.register()

from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models import build_model

from basicsr_ext.models.training_model import TrainingModel

ITERATIONS = 5


class WithDiscriminator(TrainingModel):
    """Two players; networks start from seeds of their own."""

    def build_network(self, name):
        torch.manual_seed({'g': 1, 'd': 2}[name])
        return super().build_network(name)

    def setup_players(self):
        super().setup_players()
        self.net_d = self.saved_networks['net_d'] = self.build_network('d')
        self.add_player('d', self.net_d)


class ThreeUpdates(WithDiscriminator):
    """An alternating game: the generator moves, then the critic moves twice, each with the other held fixed."""

    def training_step(self, batch, iteration):
        g, d = self.players['g'], self.players['d']
        lq, gt = self.prepare_batch(batch, iteration)
        with d.frozen() as critic:
            output = g.network(lq)
            losses = self.generator_losses(output, gt)
            losses['l_critic'] = 0.1 * critic(output).mean()
            self.update(g, losses)
        with torch.no_grad():
            output = g.network(lq)
        for _ in range(2):
            self.update(
                d, {'l_gap': (d.network(gt) - d.network(output)).mean(), 'l_size': d.network(gt).square().mean()}
            )


def plain_three_updates(options, batches):
    """The same updates as a plain PyTorch loop."""
    torch.manual_seed(1)
    g = build_network(options['network_g'])
    torch.manual_seed(2)
    d = build_network(options['network_d'])
    optimizers = [torch.optim.Adam(net.parameters(), lr=1e-3) for net in (g, d)]
    l1 = torch.nn.L1Loss()
    for iteration, batch in enumerate(batches, 1):
        for optimizer in optimizers:
            optimizer.param_groups[0]['lr'] = 1e-3 * (0.5 if iteration > 3 else 1)
        lq, gt = batch['lq'], batch['gt']
        optimizers[0].zero_grad()
        output = g(lq)
        (l1(output, gt) + 0.1 * d(output).mean()).backward()
        optimizers[0].step()
        output = g(lq).detach()
        for _ in range(2):
            optimizers[1].zero_grad()
            ((d(gt) - d(output)).mean() + d(gt).square().mean()).backward()
            optimizers[1].step()
    return g.state_dict(), d.state_dict()


class ComposedESRGAN(WithDiscriminator):
    """ESRGAN's step, with its two backward passes of the discriminator."""

    def build_criteria(self):
        super().build_criteria()
        self.criteria['gan'] = build_loss(self.opt['train']['gan_opt']).to(self.device)

    def training_step(self, batch, iteration):
        lq, gt = batch['lq'], batch['gt']
        gan, player = self.criteria['gan'], self.players['d']
        self.output = self.players['g'].network(lq)
        with player.frozen() as critic:
            losses = self.generator_losses(self.output, gt)
            real, fake = critic(gt).detach(), critic(self.output)
            l_real, l_fake = gan(real - fake.mean(), False, is_disc=False), gan(fake - real.mean(), True, is_disc=False)
            self.update(self.players['g'], {**losses, 'l_g_gan': (l_real + l_fake) / 2})
        self.update(player, self.discriminator_losses(player.network, gan, gt))

    def discriminator_losses(self, critic, gan, gt):
        fake = critic(self.output.detach()).detach()
        real = critic(gt)
        yield {'l_d_real': gan(real - fake.mean(), True, is_disc=True) * 0.5}
        fake = critic(self.output.detach())
        yield {'l_d_fake': gan(fake - real.mean().detach(), False, is_disc=True) * 0.5}


def game_options(root):
    options = sr_options(root)
    options['network_d'] = {
        'type': 'EDSR',
        'num_in_ch': 3,
        'num_out_ch': 3,
        'num_feat': 2,
        'num_block': 1,
        'upscale': 2,
    }
    options['train']['optim_d'] = {'type': 'Adam', 'lr': 1e-3}
    return options


def make_batches(size=4):
    generator = torch.Generator().manual_seed(0)
    return [
        {'lq': torch.rand(size, 3, 8, 8, generator=generator), 'gt': torch.rand(size, 3, 16, 16, generator=generator)}
        for _ in range(ITERATIONS)
    ]


def play(model, batches):
    for iteration, batch in enumerate(batches, 1):
        model.update_learning_rate(iteration)
        model.feed_data(batch)
        model.optimize_parameters(iteration)
    return model


def assert_equal(state, expected, tolerance=0.0):
    assert state.keys() == expected.keys()
    for key in expected:
        assert (state[key] - expected[key]).abs().max() <= tolerance, key


def test_three_updates_equal_a_plain_loop_to_the_bit(tmp_path):
    options, batches = game_options(tmp_path), make_batches()
    with model_options(options, tmp_path) as opt:
        model = play(ThreeUpdates(opt), batches)
    for net, expected in zip((model.net_g, model.net_d), plain_three_updates(options, batches), strict=True):
        assert_equal(net.state_dict(), expected)
    assert set(model.get_current_log()) == {'l_pix', 'l_critic', 'l_gap', 'l_size', 'lr_g', 'lr_d'}


def _game_on_a_rank(root, expected):
    with model_options(game_options(root), root, launcher='pytorch') as opt:
        first = opt['rank'] * 2
        batches = [{key: value[first : first + 2] for key, value in batch.items()} for batch in make_batches()]
        model = play(ThreeUpdates(opt), batches)
        assert isinstance(model.players['d'].network, torch.nn.parallel.DistributedDataParallel)
        for net, state in zip((model.net_g, model.net_d), expected, strict=True):
            assert_equal(net.state_dict(), state, tolerance=1e-6)


def test_three_updates_on_two_ranks_equal_a_plain_loop(tmp_path):
    on_ranks(2, _game_on_a_rank, tmp_path, plain_three_updates(game_options(tmp_path), make_batches()))


def test_composed_esrgan_equals_stock(tmp_path):
    """Networks to the bit; the EMA, averaged by another formula, to rounding."""
    options, batches = gan_options(tmp_path), make_batches()
    with model_options(options, tmp_path) as opt:
        composed = ComposedESRGAN(opt)
        stock = build_model(opt)
        stock.net_g.load_state_dict(composed.net_g.state_dict())
        stock.net_g_ema.load_state_dict(composed.net_g.state_dict())
        stock.net_d.load_state_dict(composed.net_d.state_dict())
        play(stock, batches)
        play(composed, batches)
    assert_equal(composed.net_g.state_dict(), stock.net_g.state_dict())
    assert_equal(composed.net_d.state_dict(), stock.net_d.state_dict())
    assert_equal(composed.net_g_ema.state_dict(), stock.net_g_ema.state_dict(), tolerance=1e-7)
    assert composed.get_current_log()['l_g_gan'] == pytest.approx(stock.get_current_log()['l_g_gan'], abs=1e-7)


def test_accumulation_is_refused_by_models_of_several_players(tmp_path):
    options = game_options(tmp_path)
    options['train']['accumulate'] = 2
    with (
        model_options(options, tmp_path) as opt,
        pytest.raises(basicsr_ext.UserError, match='needs a model of one player'),
    ):
        ThreeUpdates(opt)


def test_a_frozen_player_gets_no_gradient(tmp_path):
    with model_options(game_options(tmp_path), tmp_path) as opt:
        model = ThreeUpdates(opt)
    with model.players['d'].frozen() as critic:
        leaf = torch.rand(1, 3, 8, 8, requires_grad=True)
        critic(leaf).mean().backward()
    assert leaf.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in model.net_d.parameters())
