"""What is known of losses without waiting for the device in each step."""

from __future__ import annotations

import math

import pytest
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.models import loss_record
from basicsr_ext.models.loss_record import LossRecord


def noted(values: list[dict[str, float]], skipped: tuple[int, ...] = ()) -> LossRecord:
    record = LossRecord()
    for iteration, losses in enumerate(values, 1):
        tensors = {name: torch.tensor(value) for name, value in losses.items()}
        record.note(tensors, iteration, iteration not in skipped)
    return record


@pytest.mark.parametrize('steps', [1, 2, 3, 100])
@pytest.mark.parametrize('spoiled', [math.nan, math.inf, -math.inf])
def test_the_first_loss_that_is_not_finite_is_named(monkeypatch, steps, spoiled):
    """However many steps are looked at together; in another group of names, such as a discriminator's, too."""
    monkeypatch.setattr(loss_record, '_STEPS', steps)
    values = [{'l_a': 1.0, 'l_b': 2.0} for _ in range(7)]
    values[4]['l_b'] = values[5]['l_a'] = spoiled
    with pytest.raises(UserError, match='in iteration 5 the loss l_b is not finite'):
        noted(values).check()
    assert noted(values, skipped=(5, 6)).check() == []
    with pytest.raises(UserError, match='in iteration 6 the loss l_a is not finite'):
        noted(values, skipped=(5,)).check()
    other = noted(values[:4])
    other.note({'l_d': torch.tensor(spoiled)}, 4, True)
    with pytest.raises(UserError, match='in iteration 4 the loss l_d is not finite'):
        other.check()


@pytest.mark.parametrize('steps', [1, 2, 100])
def test_losses_of_exactly_zero_are_those_of_a_whole_interval(monkeypatch, steps):
    monkeypatch.setattr(loss_record, '_STEPS', steps)
    record = noted([{'l_a': 0.0, 'l_b': 0.0}, {'l_a': 0.0, 'l_b': 1e-30}, {'l_a': -0.0, 'l_b': 0.0}])
    assert record.check() == ['l_a']
    record.begin_interval()
    assert record.check() == []  # nothing of this interval yet
    record.note({'l_a': torch.tensor(3.0), 'l_b': torch.tensor(0.0, dtype=torch.float64)}, 4, True)
    assert record.check() == ['l_b']


def test_losses_may_have_a_dimension_of_one():
    """Such a loss can be propagated back; those of other packages may have one."""
    record = LossRecord()
    record.note({'l_a': torch.tensor([0.0]), 'l_b': torch.tensor(1.0)}, 1, True)
    assert record.check() == ['l_a']
    record.note({'l_a': torch.tensor([[math.nan]]), 'l_b': torch.tensor(1.0)}, 2, True)
    with pytest.raises(UserError, match='in iteration 2 the loss l_a is not finite'):
        record.check()


def test_losses_of_a_phase_that_is_over_are_not_taken_for_zero():
    record = noted([{'l_a': 1.0}])
    record.begin_interval()
    record.note({'l_b': torch.tensor(1.0)}, 2, True)
    assert record.check() == []


def test_nothing_is_computed_in_a_step():
    from torch.utils._python_dispatch import TorchDispatchMode

    calls = []

    class Counting(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            calls.append(function)
            return function(*args, **(kwargs or {}))

    record, loss = LossRecord(), torch.tensor(1.0)
    with Counting():
        record.note({'l_a': loss}, 1, True)
        assert not calls
        record.check()
    assert calls
