"""Attention, its limits, and the loss with its gradient against the paper's equations."""

from __future__ import annotations

import math

import pytest
import torch
from ssim_images import HARD_IMAGES, textbook_map

from basicsr_ext.functional.self_paced import CRITERIA, attention, self_paced_loss, step_of, width
from basicsr_ext.functional.ssim_map import SSIMSettings, ssim_map

NARROW = SSIMSettings(k1=0.3, k2=0.5)  # brings the similarities of random images near 1


def images(*shape: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.manual_seed(1)
    target = torch.rand(shape, generator=generator, dtype=torch.float64)
    pred = target + 0.2 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return pred.to(dtype).requires_grad_(), target.to(dtype)


def literal_loss(pred, target, delta, gamma=2.0, mu=-1.0, criterion='l1', settings=None):
    """Eqs. 6-10 one after another, with the attention a constant."""
    similarity = ssim_map(pred.detach(), target.detach(), settings)
    weights = gamma * torch.exp(-(((similarity - mu) / delta) ** 2))
    difference = weights * pred - weights * target
    if criterion == 'l1':
        return difference.abs()
    return difference**2 if criterion == 'l2' else torch.sqrt(difference**2 + 1e-12)


def test_the_first_iteration_is_one():
    assert [step_of(1), step_of(250), step_of(300_000), step_of(3, 2)] == [0.001, 0.25, 300, 1.5]
    assert width(step_of(1)) == 0.001
    assert width(0.5, alpha=4, beta=-1) == 1


def test_attention_by_hand():
    similarity = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    assert attention(similarity, 0.5).tolist() == pytest.approx([2, 2 * math.exp(-4), 2 * math.exp(-16)])
    assert attention(similarity, 1, gamma=3, mu=0.5).tolist() == pytest.approx(
        [3 * math.exp(-2.25), 3 * math.exp(-0.25), 3 * math.exp(-0.25)]
    )
    assert torch.equal(attention(similarity, -0.5), attention(similarity, 0.5))
    assert similarity.tolist() == [-1, 0, 1]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('delta', [0.0, 1e-300, -1e-30, 1e-19, 1e-17, 1e-12])
def test_no_width_attends_to_one_similarity_only(dtype, delta):
    similarity = torch.tensor([-1, -0.999, 0, 1], dtype=dtype)
    assert attention(similarity, delta).tolist() == [2, 0, 0, 0]
    assert attention(similarity, delta, mu=0).tolist() == [0, 0, 2, 0]


def test_a_large_width_attends_to_everything():
    similarity = torch.linspace(-1, 1, 11)
    for delta in (1e5, 1e30, 1e300):
        torch.testing.assert_close(attention(similarity, delta), torch.full((11,), 2.0), rtol=1e-6, atol=0)


@pytest.mark.parametrize('criterion', CRITERIA)
@pytest.mark.parametrize(('delta', 'gamma', 'mu'), [(1.0, 2.0, -1.0), (0.3, 1.5, 0.9), (40.0, 2.0, -1.0)])
def test_loss_and_gradients_equal_the_equations(criterion, delta, gamma, mu):
    pred, target = images(2, 3, 40, 53)
    target.requires_grad_()
    keywords = {'gamma': gamma, 'mu': mu, 'criterion': criterion, 'settings': NARROW}
    weights = torch.rand(pred.shape, generator=torch.manual_seed(2), dtype=torch.float64)
    ours, theirs = self_paced_loss(pred, target, delta, **keywords), literal_loss(pred, target, delta, **keywords)
    assert theirs.mean() > 1e-4
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-15)
    ours_gradients = torch.autograd.grad((weights * ours).sum(), (pred, target))
    gradients = torch.autograd.grad((weights * theirs).sum(), (pred, target))
    torch.testing.assert_close(ours_gradients, gradients, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('criterion', CRITERIA)
def test_gradient_by_finite_differences(criterion):
    """With a width so large the attention is constant, as the gradient takes it to be at any width."""
    pred, target = images(1, 2, 4, 5)
    assert torch.autograd.gradcheck(
        lambda p, t: self_paced_loss(p, t, 1e9, criterion=criterion), (pred, target.requires_grad_())
    )


@pytest.mark.parametrize('criterion', CRITERIA)
def test_the_attention_takes_no_gradient(criterion):
    """At a small width a gradient through the attention would be many times larger."""
    pred, target = images(1, 1, 24, 24)
    loss = self_paced_loss(pred, target, 0.2, criterion=criterion)
    (gradient,) = torch.autograd.grad(loss.sum(), pred)
    weights = attention(ssim_map(pred.detach(), target), 0.2)
    difference = (pred - target).detach()
    expected = {
        'l1': weights * difference.sign(),
        'l2': 2 * weights**2 * difference,
        'charbonnier': weights**2 * difference / torch.sqrt((weights * difference) ** 2 + 1e-12),
    }
    torch.testing.assert_close(gradient, expected[criterion])


@pytest.mark.parametrize('criterion', CRITERIA)
@pytest.mark.parametrize('delta', [0.0, 1e-300, 0.001, 0.25, 1e300])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_loss_and_gradient_are_finite_at_every_width(criterion, delta, dtype):
    pred, target = images(1, 3, 20, 20, dtype=dtype)
    for mu in (-1.0, 1.0):
        for image in (pred, target.clone().requires_grad_()):  # the second: similarity 1, difference 0
            loss = self_paced_loss(image, target, delta, mu=mu, criterion=criterion)
            (gradient,) = torch.autograd.grad(loss.mean(), image)
            assert loss.isfinite().all() and gradient.isfinite().all()
    if delta < 0.01 and criterion != 'charbonnier':
        assert self_paced_loss(pred, target, delta, criterion=criterion).count_nonzero() == 0


def test_in_the_end_it_is_the_plain_loss_times_gamma():
    pred, target = images(1, 3, 30, 30)
    difference = (pred - target).detach()
    torch.testing.assert_close(self_paced_loss(pred, target, 1e8), 2 * difference.abs())
    torch.testing.assert_close(self_paced_loss(pred, target, 1e8, gamma=3, criterion='l2'), 9 * difference**2)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    pred, target = images(1, 3, 40, 40, dtype=dtype)
    wide = pred.detach().float().requires_grad_()
    exact = self_paced_loss(wide, target.float(), 1.0).sum()
    exact.backward()
    loss = self_paced_loss(pred, target, 1.0).sum()
    loss.backward()
    assert loss.dtype == torch.float32 and torch.equal(loss, exact)
    assert pred.grad.dtype == dtype and torch.equal(pred.grad, wide.grad.to(dtype))
    with torch.autocast('cpu', dtype=dtype):
        assert torch.equal(self_paced_loss(wide, target.float(), 1.0).sum(), exact)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('hard_images', HARD_IMAGES)
@pytest.mark.parametrize('data_range', [1.0, 1 / 255])
def test_float32_gradient_is_nearer_to_float64_than_one_step_after_another(hard_images, seed, data_range):
    """On average and at the worst pixel: what float32 loses of the map goes into the attention."""
    settings = SSIMSettings(data_range)

    def plain_gradient(x, y):
        weights = 2 * torch.exp(-((textbook_map(x, y, settings) + 1) ** 2))
        return weights * torch.sign(x - y)

    x, y = hard_images(seed)
    exact = plain_gradient(x.double(), y.double())
    x.requires_grad_()
    self_paced_loss(x, y, 1.0, settings=settings).sum().backward()
    ours, plain = (x.grad - exact).abs(), (plain_gradient(x.detach(), y) - exact).abs()
    assert ours.max() < plain.max() and ours.mean() < 0.5 * plain.mean()


def test_gradient_of_equal_pixels_is_zero():
    """As that of torch's L1 loss."""
    _, target = images(1, 1, 16, 16)
    pred = target.clone()
    pred[0, 0, 3, 3] += 0.1
    pred.requires_grad_()
    (gradient,) = torch.autograd.grad(self_paced_loss(pred, target, 5.0).sum(), pred)
    assert gradient.count_nonzero() == 1 and gradient[0, 0, 3, 3] > 0


def test_memory_formats_and_views():
    pred, target = images(2, 3, 24, 20)
    exact = self_paced_loss(pred, target, 1.0)
    other = pred.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    strided = torch.stack([target, target], -1)[..., 0]
    result = self_paced_loss(other, strided, 1.0)
    assert torch.equal(result, exact)
    assert torch.equal(*torch.autograd.grad(result.sum(), other), *torch.autograd.grad(exact.sum(), pred))


def test_a_second_derivative_is_refused():
    pred, target = images(1, 1, 8, 8)
    (gradient,) = torch.autograd.grad(self_paced_loss(pred, target, 1.0).square().sum(), pred, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        gradient.sum().backward()


def test_not_a_number_is_passed_on():
    pred, target = images(1, 1, 8, 8)
    with torch.no_grad():
        pred[0, 0, 0, 0] = float('nan')
    assert self_paced_loss(pred, target, 1.0).mean().isnan()


def test_wrong_arguments():
    pred, target = images(1, 1, 8, 8)
    with pytest.raises(ValueError, match='criterion: expected one of l1, l2, charbonnier, found'):
        self_paced_loss(pred, target, 1.0, criterion='mse')
    with pytest.raises(ValueError, match='delta: expected a finite number'):
        self_paced_loss(pred, target, math.nan)
    with pytest.raises(ValueError, match='same shape'):
        self_paced_loss(pred, target[..., :4], 1.0)


@pytest.mark.parametrize('criterion', CRITERIA)
def test_the_sum_of_the_attention(criterion):
    pred, target = images(3, 2, 40, 30)
    attention_sum = torch.zeros((), dtype=torch.float64)
    with_sum = self_paced_loss(pred, target, 1.5, criterion=criterion, attention_sum=attention_sum)
    assert torch.equal(with_sum, self_paced_loss(pred, target, 1.5, criterion=criterion))
    similarity = ssim_map(pred.detach(), target)
    expected = (2 * torch.exp(-(((similarity + 1) / 1.5) ** 2))).sum()
    assert attention_sum.item() == pytest.approx(expected.item(), rel=1e-12)
