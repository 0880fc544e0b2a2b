"""The contextual loss: against loops in float64, limits, gradients, memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from basicsr_ext.functional.contextual import contextual_loss


def by_loops(x, y, bandwidth):
    centre = y.mean((0, 2, 3), keepdim=True)
    losses = []
    for a, b in zip((x - centre).flatten(2), (y - centre).flatten(2), strict=True):
        positions = a.shape[1]
        similarity = torch.zeros(positions, positions, dtype=a.dtype)
        for i in range(positions):
            distances = [
                1 - max(0.0, min(1.0, (a[:, i] @ b[:, j] / a[:, i].norm() / b[:, j].norm()).item()))
                for j in range(positions)
            ]
            weights = [math.exp((1 - d / (min(distances) + 1e-5)) / bandwidth) for d in distances]
            similarity[i] = torch.tensor(weights) / sum(weights)
        losses.append(-math.log(similarity.amax(0).mean().item() + 1e-5))
    return sum(losses) / len(losses)


@pytest.mark.parametrize('bandwidth', [0.1, 0.5])
def test_equals_loops(bandwidth):
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 5, 3, 4, dtype=torch.float64)
    assert contextual_loss(x, y, bandwidth).item() == pytest.approx(by_loops(x, y, bandwidth), rel=1e-6)


def test_equal_features_score_near_zero_and_position_does_not_matter():
    torch.manual_seed(0)
    y = torch.randn(1, 64, 5, 5, dtype=torch.float64)
    assert contextual_loss(y, y).item() == pytest.approx(0, abs=1e-4)
    assert contextual_loss(y.flip(-1), y).item() == pytest.approx(0, abs=1e-4)
    assert contextual_loss(torch.randn_like(y), y) > 0.5


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_loss_of_equal_features_is_not_below_zero(dtype):
    torch.manual_seed(0)
    for channels, side in ((64, 5), (256, 12), (512, 2)):
        y = torch.randn(2, channels, side, side, dtype=dtype)
        assert 0 <= contextual_loss(y, y) < 1e-4


def test_features_may_be_centred_elsewhere():
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, 8, 3, 3, dtype=torch.float64)
    centre = y.mean((0, 2, 3), keepdim=True)
    halves = [contextual_loss(a, b, centre=centre) for a, b in zip(x.chunk(2), y.chunk(2), strict=True)]
    torch.testing.assert_close(sum(halves) / 2, contextual_loss(x, y))
    assert contextual_loss(x[:2], y[:2]) != halves[0]


def test_parts_change_neither_value_nor_gradient():
    torch.manual_seed(0)
    x, y = torch.randn(2, 2, 8, 6, 6, dtype=torch.float64)
    results = []
    for max_pairs in (10**9, 100, 1):
        features = x.clone().requires_grad_()
        loss = contextual_loss(features, y, 0.5, max_pairs)
        loss.backward()
        results.append((loss.detach(), features.grad))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-10, atol=1e-12)


def test_gradient():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 4, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda f: contextual_loss(f, y, 0.5), x)


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 16, 6, 6)
    with torch.autocast('cpu', torch.bfloat16):
        inside = contextual_loss(x, y)
    torch.testing.assert_close(inside, contextual_loss(x, y))
    assert contextual_loss(x.bfloat16(), y.bfloat16()).dtype == torch.float32


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor had that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize(('side', 'max_pairs', 'with_gradient'), [(96, 2**22, False), (48, 2**18, True)])
def test_memory_is_bounded_for_big_patches(side, max_pairs, with_gradient):
    """No operation makes a tensor of all pairs (85 million of 96x96 features), and the graph keeps no pairs of a part."""
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 4, side, side)
    x.requires_grad_(with_gradient)
    saved = [0]
    with (
        LargestTensor() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda t: (saved.append(t.numel()), t)[1], lambda t: t),
    ):
        loss = contextual_loss(x, y, max_pairs=max_pairs)
        if with_gradient:
            loss.backward()
            assert x.grad.abs().max() > 0
    parts = math.ceil(side**4 / max_pairs) + 1
    assert max_pairs / 2 < largest.elements <= max_pairs < side**4 / 10
    assert max(saved) <= max(x.numel(), parts * side**2) and sum(saved) < 20 * max(x.numel(), parts * side**2)


def test_parts_equal_the_whole_in_float32():
    torch.manual_seed(0)
    x, y = torch.randn(2, 1, 16, 32, 32)
    results = []
    for max_pairs in (2**22, 2**15):
        features = x.clone().requires_grad_()
        loss = contextual_loss(features, y, max_pairs=max_pairs)
        loss.backward()
        results.append((loss.detach(), features.grad / features.grad.abs().max()))
    torch.testing.assert_close(*results, rtol=0, atol=1e-6)
