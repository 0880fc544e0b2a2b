"""PSPL against the published formula in float64; the published implementation, in float32, is farther from it than ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from basicsr_ext.functional.self_paced import self_paced_loss
from basicsr_ext.functional.ssim_map import SSIMSettings, ssim_map

RANGES = (1, 255)
STEPS = ('0.001', '0.25', '1.0', '5.0', '50.0', '300.0')
# What float32 may be off, relative to the largest value: rounding, and what is left of cancellation in variances.
ROUNDING, OF_MAP, OF_SMALL_STEP = 1e-6, 5e-5, 3e-4
CRITERIA = {'l1': 'l1', 'mse': 'l2'}


@pytest.fixture(scope='module')
def golden(golden_dir):
    return np.load(golden_dir / 'pspl.npz')


def images(golden, data_range: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in their range."""
    sr, hr = (torch.from_numpy(golden[name]).to(dtype) * data_range for name in ('sr', 'hr'))
    return sr, hr


def assert_near(ours: torch.Tensor, theirs: np.ndarray, tolerance: float) -> None:
    largest = np.abs(theirs).max()
    assert np.abs(ours.detach().numpy().astype(np.float64) - theirs).max() <= tolerance * largest + 1e-42


def loss_of(sr, hr, step: str, criterion: str) -> torch.Tensor:
    return self_paced_loss(sr, hr, float(step), criterion=CRITERIA[criterion]).mean()


@pytest.mark.parametrize('data_range', RANGES)
def test_golden_map(golden, data_range):
    exact, published = golden[f'ssim64_range{data_range}'], golden[f'ssim_range{data_range}']
    assert np.abs(ssim_map(*images(golden, data_range, torch.float64)).numpy() - exact).max() < 1e-9
    ours = ssim_map(*images(golden, data_range, torch.float32))
    assert_near(ours, exact, OF_MAP)
    assert np.abs(ours.numpy() - exact).max() < np.abs(published - exact).max()


@pytest.mark.parametrize('step', STEPS)
@pytest.mark.parametrize('criterion', CRITERIA)
@pytest.mark.parametrize('data_range', RANGES)
def test_golden_loss(golden, data_range, criterion, step):
    key = f'range{data_range}_step{step}'
    exact = golden[f'{criterion}64_{key}']
    assert_near(loss_of(*images(golden, data_range, torch.float64), step, criterion), exact, 1e-9)
    ours = loss_of(*images(golden, data_range, torch.float32), step, criterion)
    assert_near(ours, exact, OF_SMALL_STEP if step == '0.25' else ROUNDING)


@pytest.mark.parametrize('step', ['1.0', '50.0'])
@pytest.mark.parametrize('data_range', RANGES)
def test_golden_gradient(golden, data_range, step):
    key = f'l1_range{data_range}_step{step}'
    exact, published = golden[f'grad64_{key}'], golden[f'grad_{key}']
    gradients = {}
    for dtype in (torch.float64, torch.float32):
        sr, hr = images(golden, data_range, dtype)
        sr.requires_grad_()
        loss_of(sr, hr, step, 'l1').backward()
        gradients[dtype] = sr.grad
    assert_near(gradients[torch.float64], exact, 1e-9)
    assert_near(gradients[torch.float32], exact, OF_SMALL_STEP if step == '1.0' else ROUNDING)
    if step == '1.0':  # at step 50 both are right to float32's last digit
        assert np.abs(gradients[torch.float32].numpy() - exact).max() < np.abs(published - exact).max()


def test_the_published_constants_with_images_of_our_range(golden):
    """The published code has images in [0, 255] and the constants of range 1: here a data range of 1/255."""
    sr, hr = images(golden, 1, torch.float64)
    ours = ssim_map(sr, hr, SSIMSettings(data_range=1 / 255)).numpy()
    assert np.abs(ours - golden['ssim64_range255']).max() < 1e-9
