"""Eight orientations and their mean."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from basicsr_ext.networks.self_ensemble import inverse_transform, self_ensemble, transform

ORIENTATIONS = list(itertools.product((False, True), repeat=3))


def test_the_orientations_are_all_different_and_turn_back():
    image = torch.arange(9.0).reshape(1, 1, 3, 3)
    turned = [transform(image, *orientation) for orientation in ORIENTATIONS]
    assert len({tuple(t.flatten().tolist()) for t in turned}) == 8
    image = torch.rand(2, 3, 4, 7)
    for orientation in ORIENTATIONS:
        assert torch.equal(inverse_transform(transform(image, *orientation), *orientation), image)


def test_orientation_by_hand():
    image = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert transform(image, True, False, False).tolist() == [[3, 2, 1], [6, 5, 4]]
    assert transform(image, False, True, False).tolist() == [[4, 5, 6], [1, 2, 3]]
    assert transform(image, True, False, True).tolist() == [[3, 6], [2, 5], [1, 4]]


def test_an_equivariant_network_is_unchanged():
    image = torch.rand(1, 3, 5, 8, dtype=torch.float64)
    enlarge = nn.Upsample(scale_factor=2, mode='nearest')
    torch.testing.assert_close(self_ensemble(enlarge, image), enlarge(image), rtol=0, atol=1e-15)


def test_a_convolution_becomes_the_mean_of_its_turned_kernels():
    torch.manual_seed(0)
    kernel = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    image = torch.rand(1, 1, 6, 9, dtype=torch.float64)
    mean = torch.stack([inverse_transform(kernel, *orientation) for orientation in ORIENTATIONS]).mean(0)
    expected = nn.functional.conv2d(image, mean, padding=1)
    result = self_ensemble(lambda x: nn.functional.conv2d(x, kernel, padding=1), image)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float32])
def test_the_dtype_stays_and_the_sum_is_float32(dtype):
    value = torch.full((1, 1, 2, 2), 0.999, dtype=dtype)
    assert torch.equal(self_ensemble(lambda x: x, value), value)
