"""AIL against numbers of its published implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import basicsr_ext

basicsr_ext.register()

from basicsr.losses import build_loss

from basicsr_ext.models.ail.importance import DirectImportance
from basicsr_ext.models.ail.options import AILOptions


class Recorded(torch.nn.Module):
    """A network whose output is known."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, images):
        return self.output


@pytest.fixture(scope='module')
def golden(golden_dir):
    return {name: torch.from_numpy(array) for name, array in np.load(golden_dir / 'ail.npz').items()}


@pytest.mark.parametrize('number', [0, 1, 2, 5, 9])
def test_golden_direct_form(golden, number):
    options = AILOptions(form='direct', round_iterations=1)
    importance = DirectImportance(
        options, Recorded(golden['student_prev']), Recorded(golden['teacher']), seed=0, scale=1
    )
    importance.begin(number, 0)
    weights = importance.of({'lq': golden['target'], 'gt': golden['target']})
    if number == 0:
        torch.testing.assert_close(weights, golden['importance_round0'], rtol=1e-5, atol=1e-5)
    student = golden['student'].clone().requires_grad_()
    loss = build_loss({'type': 'MSELoss', 'reduction': 'sum'})(student * weights, golden['target'] * weights)
    loss.backward()
    torch.testing.assert_close(loss.detach(), golden[f'round{number}_loss_sum'], rtol=1e-5, atol=0)
    gradient = golden[f'round{number}_grad']
    torch.testing.assert_close(student.grad, gradient, rtol=0, atol=1e-5 * gradient.abs().max().item())
