"""The mixed pair and the schedules of alpha."""

from __future__ import annotations

import math

import pytest
import torch

from basicsr_ext.functional.centroid import cosine_alpha, linear_alpha, mix, progress, sigmoid_alpha, step_alpha
from basicsr_ext.functional.resize import downsample


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 16, 24, dtype=torch.float64, generator=generator) for _ in range(2)]


@pytest.mark.parametrize('alpha', [0.0, 0.2, 0.5, 0.9, 1.0])
def test_mixed_pair_is_equation_14(images, alpha):
    centroid, image = images
    torch.testing.assert_close(mix(centroid, image, alpha), centroid + alpha * (image - centroid), rtol=0, atol=1e-15)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float64])
def test_the_ends_are_exact(images, dtype):
    centroid, image = (x.to(dtype) for x in images)
    assert torch.equal(mix(centroid, image, 0.0), centroid)
    assert torch.equal(mix(centroid, image, 1.0), image)


@pytest.mark.parametrize('factor', [2, 4])
def test_mixing_lr_images_is_downsampling_the_mixed_hr_image(images, factor):
    """``down`` is linear (eco.md's reason why LR images can be mixed)."""
    centroid, image = images
    mixed = mix(downsample(centroid, factor), downsample(image, factor), 0.3)
    torch.testing.assert_close(mixed, downsample(mix(centroid, image, 0.3), factor), rtol=0, atol=1e-14)


def test_gradient():
    values = [torch.rand(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda a, b: mix(a, b, 0.3), values)


def test_progress_counts_iterations_from_one():
    assert [progress(iteration, 4) for iteration in (1, 2, 4, 5, 9)] == [0, 0.25, 0.75, 1, 1]


def test_schedules_by_hand():
    assert [linear_alpha(p) for p in (0, 0.25, 1)] == [0, 0.25, 1]
    assert [cosine_alpha(p) for p in (0, 0.5, 1)] == pytest.approx([0, 0.5, 1])
    assert [step_alpha(p, at=0.3) for p in (0, 0.29, 0.3, 1)] == [0, 0, 1, 1]
    assert [sigmoid_alpha(p) for p in (0, 0.5, 1)] == pytest.approx([0, 0.5, 1])
    assert sigmoid_alpha(0.5, shift=2) < 0.5 < sigmoid_alpha(0.5, shift=-2)


@pytest.mark.parametrize('shift', [705, 710, 1e6, 1e300, -705, -1e300])
def test_a_sigmoid_may_be_shifted_by_any_number(shift):
    assert {sigmoid_alpha(p / 10, shift) for p in range(11)} == {0.0 if shift > 0 else 1.0}


def test_the_sigmoid_is_the_published_one():
    for p in (0.0, 0.1, 0.37, 0.5, 0.93, 1.0):
        for shift in (0.0, 1.5, -2.0):
            sigmoid = 1 / (1 + math.exp(-(10 * (p - 0.5) - shift)))
            assert sigmoid_alpha(p, shift) == pytest.approx(min(1.0, max(0.0, 1.2 * (sigmoid - 0.5) + 0.5)), abs=1e-15)
