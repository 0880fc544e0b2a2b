"""Automatic mixed precision by name."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.precision import PRECISIONS, autocast, without_autocast


@pytest.mark.parametrize(
    ('precision', 'dtype'), [('fp32', torch.float32), ('bf16', torch.bfloat16), ('fp16', torch.float16)]
)
def test_layers_compute_in_the_named_type(precision, dtype):
    layer = nn.Linear(4, 4)
    with autocast('cpu', precision):
        assert layer(torch.rand(2, 4)).dtype == dtype
    assert layer(torch.rand(2, 4)).dtype == torch.float32


def test_fp32_leaves_an_outer_context_alone():
    with autocast(torch.device('cpu'), 'bf16'), autocast('cpu', 'fp32'):
        assert nn.Linear(4, 4)(torch.rand(2, 4)).dtype == torch.bfloat16


def test_a_context_within_leaves_the_type_alone():
    with autocast('cpu', 'bf16'), without_autocast('cpu'):
        assert nn.Linear(4, 4)(torch.rand(2, 4)).dtype == torch.float32
    with without_autocast(torch.device('meta')):  # knows no mixed precision
        assert nn.Linear(4, 4, device='meta')(torch.empty(2, 4, device='meta')).dtype == torch.float32


def test_other_names_are_refused():
    with pytest.raises(UserError, match=f"{', '.join(PRECISIONS)}, found 'half'"):
        autocast('cpu', 'half')
