"""The constraint does what it is for: under ADMM the residual falls, without it stays; and what s can balance.

Stage P's loss asks for what stage O's forbids, so that without a constraint the stages stay apart. rho is so small that the
penalty alone does nothing: only what s gathers over the iterations can bring them together.
"""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from basicsr.utils.registry import ARCH_REGISTRY, LOSS_REGISTRY
from lfcsr_runs import built, lfcsr_options, play
from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.models.lfcsr.options import LFCSROptions

WITHOUT, WITH = 40, 160  # iterations


@ARCH_REGISTRY.register()
class LinearStage(nn.Module):
    """Enlarges, and adds what a convolution makes of it: nothing at first, so that both images begin as the same."""

    def __init__(self, upscale: int = 1):
        super().__init__()
        self.upscale = upscale
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=self.upscale, mode='nearest')
        return x + self.conv(x - 0.5)


@LOSS_REGISTRY.register()
class MSEOfChanged(nn.Module):
    """Squared error to the target made brighter, or richer in contrast."""

    def __init__(self, brighter: float = 0.0, contrast: float = 1.0):
        super().__init__()
        self.brighter, self.contrast = brighter, contrast

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        return functional.mse_loss(pred, (target - 0.5) * self.contrast + 0.5 + self.brighter)


def smooth_batches(changing: bool) -> list[dict[str, Tensor]]:
    generator, batches = torch.Generator().manual_seed(0), []
    for _ in range(WITHOUT if changing else 1):
        small = torch.rand(2, 3, 4, 4, generator=generator)
        gt = functional.interpolate(small, size=16, mode='bicubic').clamp(0, 1)
        batches.append({'lq': functional.avg_pool2d(gt, 2), 'gt': gt})
    return batches


def what_stays(root, constraint: str, changing: bool, **change: float) -> float:
    """Residual at the end of iterations with a constraint, over the one at the end of iterations without, before them."""
    options = lfcsr_options(root)
    options['network_g'] = {
        'type': 'LFCSR',
        'stage_o': {'type': 'LinearStage', 'upscale': 2},
        'stage_p': {'type': 'LinearStage'},
    }
    options['train'] = {
        'total_iter': WITHOUT + WITH,
        'pixel_opt': {'type': 'MSELoss'},
        'pixel_p_opt': {'type': 'MSEOfChanged', **change},
        'optim_o': {'type': 'SGD', 'lr': 0.5},
        'optim_p': {'type': 'SGD', 'lr': 0.5},
        'scheduler': {'type': 'MultiStepLR', 'milestones': [WITHOUT + WITH]},
        'lfcsr': {'constraint': 'none'},
    }
    model, logs, batches = built(options, root), [], smooth_batches(changing)
    play(model, batches * (WITHOUT // len(batches)), logs=logs)
    model.lfcsr = LFCSROptions(constraint=constraint, rho=0.1, regularizer_weight=0.05, regularizer_norm='l2')
    play(model, batches * (WITH // len(batches)), first=WITHOUT + 1, logs=logs)
    residual = [log['residual'] for log in logs]
    return sum(residual[-WITHOUT:]) / WITHOUT / (sum(residual[WITHOUT - 20 : WITHOUT]) / 20)


@pytest.mark.parametrize('change', [{'brighter': 0.1}, {'contrast': 1.5}])
def test_on_one_batch_the_residual_falls_under_admm_and_not_without(tmp_path, change):
    assert what_stays(tmp_path, 'none', False, **change) > 0.95
    assert what_stays(tmp_path, 'regularizer', False, **change) > 0.7
    assert what_stays(tmp_path, 'admm', False, **change) < 0.1


def test_on_changing_batches_what_all_pictures_share_is_balanced_and_the_rest_is_not(tmp_path):
    """s goes on from batch to batch: a difference in brightness is in all of them, one in contrast looks like the picture."""
    assert what_stays(tmp_path, 'none', True, brighter=0.1) > 0.95
    assert what_stays(tmp_path, 'admm', True, brighter=0.1) < 0.15
    assert what_stays(tmp_path, 'admm', True, contrast=1.5) > 0.25
