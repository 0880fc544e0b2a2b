"""Penalty and dual update: by hand, gradients, and ADMM on a problem whose solution is known."""

from __future__ import annotations

import pytest
import torch

from basicsr_ext.functional.admm import dual_update, penalty, regularizer


def test_by_hand():
    p, o, s = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0]), torch.tensor([0.5, 0.0])
    assert penalty(p, o, s, rho=4.0).item() == pytest.approx(4 / 2 * (1 + 1) / 2)
    assert dual_update(p, o, s).tolist() == [1.0, -1.0]
    assert regularizer(p, o, 0.1).item() == pytest.approx(0.1 * (0.5 + 1) / 2)  # the paper's Eq. 7 has the L1 norm
    assert regularizer(p, o, 0.1, 'l2').item() == pytest.approx(0.1 * (0.25 + 1) / 2)
    assert regularizer(p, o, 2.0, 'l2').item() == pytest.approx(penalty(p, o, 0.0, rho=4.0).item())


def test_gradients():
    p, o, s = (torch.randn(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    assert torch.autograd.gradcheck(lambda *x: penalty(*x, rho=0.7), (p, o, s))
    for norm in ('l1', 'l2'):
        assert torch.autograd.gradcheck(lambda *x, norm=norm: regularizer(*x, weight=0.7, norm=norm), (p, o))


def test_alternating_with_the_dual_variable_meets_the_constraint():
    """min (p - 3)^2 + (o - 1)^2 with p = o has the solution 2; the penalty alone, without s, stays apart."""
    rho = 1.0
    ends = {}
    for name, with_dual in (('admm', True), ('penalty', False)):
        p = o = s = torch.zeros(1, dtype=torch.float64)
        for _ in range(200):
            p = (2 * 3 + rho * (o - s)) / (2 + rho)  # minimises the Lagrangian in p, then in o
            o = (2 * 1 + rho * (p + s)) / (2 + rho)
            assert (
                torch.autograd.functional.jacobian(
                    lambda x, o=o, p=p, s=s: (x - 1).square().sum() + penalty(p, x, s, rho), o
                )
                .abs()
                .max()
                < 1e-9
            )
            s = dual_update(p, o, s) if with_dual else s
        ends[name] = p.item(), o.item()
    assert ends['admm'] == pytest.approx((2, 2), abs=1e-6)
    assert abs(ends['penalty'][0] - ends['penalty'][1]) > 0.1
