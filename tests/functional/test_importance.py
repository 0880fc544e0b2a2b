"""Importance of AIL: by hand, at its limits, and Theorem 1 against a grid."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from basicsr_ext.functional.importance import (
    direct_importance,
    initial_importance,
    raised_importance,
    random_importance,
    round_of,
)


def test_round_of_counts_iterations_from_one():
    assert [round_of(iteration, 3, 2) for iteration in (1, 3, 4, 6, 7, 9, 10, 100)] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert round_of(100, 3, 0) == 0


def test_initial_importance_by_hand():
    error = torch.tensor([0.0, 0.01, 0.05, 1.0], dtype=torch.float64)
    z = 1 + math.exp(-1)
    expected = [1.0, z / 2, z / (1 + math.exp(4)), z / (1 + math.exp(99))]
    torch.testing.assert_close(
        initial_importance(error), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0
    )
    assert initial_importance(torch.zeros(1), midpoint=0.2, steepness=7).item() == pytest.approx(1)


def test_closed_form_minimises_the_convex_problem_on_a_grid():
    """Theorem 1: w' = min(1, w + lambda exp(-d)) minimises Eq. 6 over [w, 1]."""
    rng = np.random.default_rng(0)
    for importance, loss, step in zip(
        rng.uniform(0, 1, 40), rng.uniform(0, 5, 40), rng.uniform(0.01, 1, 40), strict=True
    ):
        rise = np.linspace(1e-9, 1 - importance, 200_001)
        objective = loss * rise + rise * (np.log(rise / step) - 1)
        best = importance + rise[objective.argmin()]
        ours = raised_importance(torch.tensor(importance), torch.tensor(loss), step).item()
        assert ours == pytest.approx(best, abs=1e-5)
        assert (np.diff(objective, 2) > -1e-9).all()  # convex


def test_raised_importance_never_falls_and_all_reach_one():
    torch.manual_seed(0)
    loss = torch.rand(1000)
    importance = torch.rand(1000)
    for _ in range(20):
        raised = raised_importance(importance, loss)
        assert (raised >= importance).all() and raised.max() <= 1
        assert ((raised - importance >= 0.15 * math.exp(-1)) | (raised == 1)).all()
        importance = raised
    assert (importance == 1).all()


def test_direct_importance_of_round_0_is_the_initial_one():
    initial = torch.rand(2, 1, 4, 4)
    assert direct_importance(initial, None, 0) is initial
    by_hand = (initial + 3 * 0.15 * torch.exp(torch.tensor(-2.0))).clamp(max=1)
    torch.testing.assert_close(direct_importance(initial, torch.full_like(initial, 2.0), 3), by_hand)


def test_random_importance_of_a_window_is_a_part_of_the_whole():
    whole = random_importance(3, 0, 0, 64, 48, seed=5)
    torch.testing.assert_close(random_importance(3, 10, 20, 8, 9, seed=5), whole[10:18, 20:29], rtol=0, atol=0)
    assert whole.min() >= 0 and whole.max() < 1
    assert not torch.equal(whole, random_importance(4, 0, 0, 64, 48, seed=5))
    assert not torch.equal(whole, random_importance(3, 0, 0, 64, 48, seed=6))


def test_random_importance_is_uniform_and_uncorrelated():
    values = random_importance(0, 0, 0, 256, 256, seed=2**40).double()
    counts = torch.histc(values, bins=16, min=0, max=1)
    assert ((counts - 4096).abs() < 5 * 64).all()  # five standard deviations
    centred = values - 0.5
    for shifted in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert shifted.mean().abs() * 12 < 5 / 256


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    error, importance = torch.rand(100), torch.rand(100)
    torch.testing.assert_close(
        raised_importance(importance.to(dtype), error.to(dtype)).float(),
        raised_importance(importance, error),
        rtol=0,
        atol=1e-2,
    )
