"""PSPLLoss as an option file builds it: its options, its count of iterations, its state."""

from __future__ import annotations

import copy

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from basicsr.losses import build_loss

from basicsr_ext.errors import UserError
from basicsr_ext.functional.self_paced import self_paced_loss
from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.losses.pspl_loss import PSPLLoss


def make(**options) -> PSPLLoss:
    return build_loss({'type': 'PSPLLoss', **options})


@pytest.fixture
def pair():
    generator = torch.manual_seed(4)
    target = torch.rand(2, 3, 24, 28, generator=generator)
    pred = (0.8 * target + 0.2 * torch.rand(target.shape, generator=generator)).requires_grad_()
    return pred, target


def value(pair, iteration=1500, **options) -> float:
    loss = make(**options)
    loss.set_iteration(iteration)
    return loss(*pair).item()


def test_options_reach_the_formula(pair):
    loss = make(
        gamma=1.5, mu=-0.5, alpha=0.5, beta=0.3, step_iters=50, k1=0.02, k2=0.05, data_range=2, window_size=7, sigma=1.1,
        criterion='charbonnier', loss_weight=3, reduction='none',
    )  # fmt: skip
    loss.set_iteration(75)
    assert loss.delta == pytest.approx(0.5 * 1.5 + 0.3)
    expected = self_paced_loss(
        *pair, 1.05, gamma=1.5, mu=-0.5, criterion='charbonnier', settings=SSIMSettings(2, 0.02, 0.05, 7, 1.1)
    )
    torch.testing.assert_close(loss(*pair), 3 * expected)
    assert make().settings == SSIMSettings(1, 0.01, 0.03, 11, 1.5)


def test_reductions_and_weight(pair):
    losses = {reduction: make(reduction=reduction, loss_weight=2) for reduction in ('mean', 'sum', 'none')}
    for loss in losses.values():
        loss.set_iteration(2000)
    whole = losses['none'](*pair)
    assert whole.shape == pair[0].shape
    torch.testing.assert_close(losses['mean'](*pair), whole.mean())
    torch.testing.assert_close(losses['sum'](*pair), whole.sum())
    weight = torch.zeros(2, 1, 24, 28)
    weight[..., :5] = 1
    torch.testing.assert_close(losses['mean'](*pair, weight), whole[..., :5].mean())


def test_width_counts_thousands_of_iterations_from_one(pair):
    loss = make()
    loss(*pair)
    assert loss.iteration == 1 and loss.delta == 0.001
    loss.set_iteration(250)
    assert loss.delta == 0.25


def test_training_begins_with_almost_no_loss_and_ends_at_gamma_times_the_plain_one(pair):
    pred, target = pair
    assert value(pair, 1) == 0
    assert 0 < value(pair, 250) < 1e-20 < 1e-4 < value(pair, 1000)
    plain = {'l1': (pred - target).abs().mean().item(), 'l2': (pred - target).square().mean().item()}
    assert value(pair, 10**9) == pytest.approx(2 * plain['l1'], rel=1e-5)
    assert value(pair, 10**9, criterion='l2') == pytest.approx(4 * plain['l2'], rel=1e-5)
    assert value(pair, 300_000) == pytest.approx(2 * plain['l1'], rel=1e-3)
    assert value(pair, 300_000) < 2 * plain['l1']


def test_the_worst_pixels_weigh_most():
    target = torch.rand(1, 1, 32, 64, generator=torch.manual_seed(0))
    pred = target + 0.02
    pred[..., 40:] = target[..., 40:].flip(-1)
    loss = make(reduction='none')
    loss.set_iteration(1000)
    weights = loss(pred, target) / (pred - target).abs()
    assert weights[..., 50:].mean() > 10 * weights[..., :30].mean()


def test_no_width_at_all_is_no_trouble(pair):
    loss = make(alpha=0)
    result = loss(*pair)
    result.backward()
    assert result == 0 and pair[0].grad.count_nonzero() == 0


def test_the_published_constants_are_a_data_range(pair):
    """In [0, 255] with C1 = 0.01^2 and C2 = 0.03^2, as published, the loss is 255 times that in [0, 1]."""
    wide = tuple(255 * image.double() for image in pair)
    published = value(wide)
    pair = tuple(image.double() for image in pair)
    assert 255 * value(pair, data_range=1 / 255) == pytest.approx(published, rel=1e-9)
    assert 255 * value(pair, k1=0.01 / 255, k2=0.03 / 255) == pytest.approx(published, rel=1e-9)
    assert 255 * value(pair) != pytest.approx(published, rel=1e-5)
    assert 255 * value(pair) == pytest.approx(value(wide, data_range=255), rel=1e-9)


# ---- counting ----------------------------------------------------------------------------------------------------------


def test_counting_gives_the_numbers_of_being_told(pair):
    counting, told = make(step_iters=4), make(step_iters=4)
    for iteration in range(1, 8):
        told.set_iteration(iteration)
        assert counting(*pair).item() == told(*pair).item()
        assert counting.iteration == told.iteration == iteration


def test_only_training_counts(pair):
    pred, target = pair
    loss = make()
    loss(pred, target)
    with torch.no_grad():
        loss(pred, target)
    loss(pred.detach(), target)
    loss.eval()
    loss(pred, target)
    assert loss.iteration == 1
    loss.train()
    loss(pred, target)
    assert loss.iteration == 2


def test_who_is_told_does_not_count(pair):
    """Several forwards of one iteration, such as micro-batches, are of one step."""
    loss = make()
    loss.set_iteration(5)
    loss(*pair)
    loss(*pair)
    assert loss.iteration == 5


def test_state_goes_on(pair):
    loss = make(step_iters=2)
    for _ in range(3):
        loss(*pair)
    state = loss.extra_state()
    assert state == {'iteration': 3}
    resumed = make(step_iters=2)
    resumed.load_extra_state(state)
    copied, started = copy.deepcopy(loss), make(step_iters=2, start_iteration=3)
    following = loss(*pair).item()
    assert following == resumed(*pair).item() == copied(*pair).item() == started(*pair).item()


# ---- precision ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(pair, dtype):
    exact = value(pair)
    with torch.autocast('cpu', dtype=dtype):
        assert value(pair) == exact
    half = tuple(image.detach().to(dtype) for image in pair)
    assert value(half) == value(tuple(image.float() for image in half))


# ---- options that are refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'gamma': 0}, 'PSPLLoss, gamma: expected a positive, finite number, found 0.'),
        ({'step_iters': -1}, 'step_iters: expected a positive, finite number'),
        ({'mu': float('nan')}, 'mu: expected a finite number, found nan'),
        ({'loss_weight': float('inf')}, 'loss_weight: expected a finite number'),
        ({'criterion': 'mse'}, "criterion: expected one of l1, l2, charbonnier, found 'mse'"),
        ({'reduction': 'max'}, 'reduction: expected one of mean, sum, none'),
        ({'window_size': 10}, 'PSPLLoss, window_size: expected an odd, positive whole number, found 10'),
        ({'sigma': 0}, 'PSPLLoss, sigma: expected a positive, finite number'),
        ({'data_range': -255}, 'PSPLLoss, data_range: expected a positive'),
        ({'start_iteration': -1}, 'start_iteration: expected a whole number from 0 on'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UserError) as caught:
        make(**options)
    assert message in str(caught.value)
