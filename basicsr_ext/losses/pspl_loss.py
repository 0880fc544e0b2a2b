"""Pixel-level self-paced learning (PSPL, arXiv 2003.03113)."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from basicsr.losses.loss_util import weight_reduce_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.self_paced import CRITERIA, attention, self_paced_loss, step_of, width
from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.options.config import FromTotal

_PUBLISHED_STEPS = 300  # of 1000 iterations in a training of 300,000
_SLOW = 0.2  # share of a training


@LOSS_REGISTRY.register()
class PSPLLoss(nn.Module):
    """A pixel loss of two images that are first multiplied by an attention map, which fades to ``gamma`` in training.

    In the first hundreds of iterations the loss is almost 0, and in the end it is ``gamma`` times the plain one (for
    ``l2`` and ``charbonnier`` about ``gamma`` squared times, and ``gamma`` times): that is the method.

    The iteration sets the pace. Who knows it tells the loss by :meth:`set_iteration`: our models do, and ``basicsr
    train`` does it for stock models; both log delta and the mean of the attention (``pspl_delta``, ``pspl_attention``).
    Under BasicSR's own command the loss counts its forward calls in training, to the same numbers where it is called once
    an iteration, and says so in the log: what BasicSR resumes there knows nothing of losses, and needs ``start_iteration``.

    Args:
        gamma: Height of the attention, positive (Eq. 6).
        mu: Similarity that gets the most attention (Eq. 6); -1 is SSIM's lower bound.
        alpha: Growth of the attention's width in a step (Eq. 8).
        beta: The width at step 0 (Eq. 8).
        step_iters: Iterations of one step, positive; 1000 as in the published code, for 300,000 iterations. ``auto`` is as
            much of ``train.total_iter``, a 300th, which our models and ``basicsr train`` fill in.
        k1: Constant of SSIM.
        k2: Constant of SSIM.
        data_range: Largest minus smallest value of the images. With images in [0, 1], 1 is the paper's formula, and 1/255
            = 0.00392156862745098 gives the constants of the published code.
        window_size: Side of SSIM's Gaussian window in pixels, odd.
        sigma: Its standard deviation in pixels.
        criterion: ``l1``, ``l2`` or ``charbonnier``.
        loss_weight: Factor of the loss.
        reduction: ``mean``, ``sum`` or ``none``.
        start_iteration: Iterations that lie behind, where the loss counts by itself; what it is told wins.

    Raises:
        UserError: A value is out of its range.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        mu: float = -1.0,
        alpha: float = 1.0,
        beta: float = 0.0,
        step_iters: Annotated[float | Literal['auto'], FromTotal(lambda total: total / _PUBLISHED_STEPS)] = 1000,
        k1: float = 0.01,
        k2: float = 0.03,
        data_range: float = 1.0,
        window_size: int = 11,
        sigma: float = 1.5,
        criterion: str = 'l1',
        loss_weight: float = 1.0,
        reduction: str = 'mean',
        start_iteration: int = 0,
    ):
        super().__init__()
        if step_iters == 'auto':
            raise UserError(
                'PSPLLoss, step_iters: auto is filled in by "basicsr train" and by our models; here give a number, '
                f'train.total_iter / {_PUBLISHED_STEPS}.'
            )
        for name, value in (('gamma', gamma), ('step_iters', step_iters)):
            if not (math.isfinite(value) and value > 0):
                raise UserError(f'PSPLLoss, {name}: expected a positive, finite number, found {value!r}.')
        for name, value in (('mu', mu), ('alpha', alpha), ('beta', beta), ('loss_weight', loss_weight)):
            if not math.isfinite(value):
                raise UserError(f'PSPLLoss, {name}: expected a finite number, found {value!r}.')
        for name, value, known in (
            ('criterion', criterion, CRITERIA),
            ('reduction', reduction, ('mean', 'sum', 'none')),
        ):
            if value not in known:
                raise UserError(f'PSPLLoss, {name}: expected one of {", ".join(known)}, found {value!r}.')
        if start_iteration < 0 or start_iteration != int(start_iteration):
            raise UserError(f'PSPLLoss, start_iteration: expected a whole number from 0 on, found {start_iteration!r}.')
        try:
            self.settings = SSIMSettings(data_range, k1, k2, window_size, sigma)
        except ValueError as error:
            raise UserError(f'PSPLLoss, {error}') from None
        self.gamma, self.mu, self.alpha, self.beta = gamma, mu, alpha, beta
        self.step_iters = step_iters
        self.criterion, self.loss_weight, self.reduction = criterion, loss_weight, reduction
        self.iteration = int(start_iteration)
        self._is_told = self._has_counted = False
        self._attention: Tensor | None = None  # mean of the last call

    def set_iteration(self, iteration: int) -> None:
        """Tells the loss the iteration, counted from 1; from then on it does not count by itself."""
        self.iteration = iteration
        self._is_told = True

    @property
    def delta(self) -> float:
        """Width of the attention at the present iteration."""
        return width(step_of(self.iteration, self.step_iters), self.alpha, self.beta)

    def warning_for(self, total: int) -> tuple[str, str] | None:
        """Says what is wrong with a training of so many iterations: the option to change, and what to.

        Args:
            total: Iterations.
        """
        samples = min(total, 1000)
        iterations = [1 + number * (total - 1) / samples for number in range(samples)]
        deltas = [width(step_of(iteration, self.step_iters), self.alpha, self.beta) for iteration in iterations]
        heights = [attention(torch.ones(()), delta, self.gamma, self.mu).item() for delta in deltas]
        share = sum(height < self.gamma / 2 for height in heights) / samples
        if share <= _SLOW:
            return None
        return (
            'step_iters',
            f'the attention to pixels that are right (SSIM 1) stays below half of its height for {share:.0%} of '
            f'{total:,} iterations, and until then almost nothing is trained: with step_iters: {self.step_iters:g}, alpha: '
            f'{self.alpha:g} and beta: {self.beta:g} it grows too slowly. Set step_iters: auto, which is '
            f'{total / _PUBLISHED_STEPS:g} here, as published for its length.',
        )

    def forward(self, pred: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """Returns the loss, float32 (float64 for float64 images).

        Args:
            pred: (N, C, H, W), of any floating-point type, also inside autocast.
            target: Of the same shape.
            weight: Of the pixels, (N, C, H, W) or (N, 1, H, W), as BasicSR's pixel losses take it.
        """
        if not self._is_told and self.training and torch.is_grad_enabled() and pred.requires_grad:
            self._count()
        attention_sum = torch.zeros((), device=pred.device)
        losses = self_paced_loss(
            pred,
            target,
            self.delta,
            gamma=self.gamma,
            mu=self.mu,
            criterion=self.criterion,
            settings=self.settings,
            attention_sum=attention_sum,
        )
        self._attention = attention_sum / losses.numel()
        return self.loss_weight * weight_reduce_loss(losses, weight, self.reduction)

    def values_to_log(self) -> dict[str, Tensor | float]:
        """Returns delta, and the mean of the attention in the last call, from 0 to ``gamma``; empty before the first."""
        if self._attention is None:
            return {}
        return {'pspl_delta': self.delta, 'pspl_attention': self._attention}

    def _count(self) -> None:
        """Takes a forward call for an iteration; warns once that this is not saved with checkpoints."""
        if not self._has_counted:
            self._has_counted = True
            get_root_logger().warning(
                f'PSPLLoss is not told the iteration, and counts its calls, from {self.iteration} on: a run that is resumed '
                'needs start_iteration in the options of this loss. "basicsr train" needs nothing.'
            )
        self.iteration += 1

    def extra_state(self) -> dict[str, int]:
        """Returns what a checkpoint keeps of the loss."""
        return {'iteration': self.iteration}

    def load_extra_state(self, state: dict[str, int]) -> None:
        """Restores what :meth:`extra_state` gave."""
        self.iteration = state['iteration']
