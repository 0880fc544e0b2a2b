"""Pixel-level self-paced learning: attention that looks at the pixels rendered worst, and fades.

Source: "Pixel-level Self-Paced Learning for Super-Resolution" (PSPL), arXiv 2003.03113.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from basicsr_ext.functional.ssim_map import SSIMSettings, computable, ssim_chunks

CRITERIA = ('l1', 'l2', 'charbonnier')
CHARBONNIER_EPS = 1e-12  # that of BasicSR's CharbonnierLoss
NARROWEST = 1e-18  # a narrower bell is 0 at all similarities but mu, and the inverse of its square overflows


def step_of(iteration: int, step_iters: float = 1000) -> float:
    """Returns the step of an iteration.

    The paper only says "step"; its published code counts epochs of 1000 iterations, as a fraction.

    Args:
        iteration: Counted from 1.
        step_iters: Iterations that make one step.
    """
    return iteration / step_iters


def width(step: float, alpha: float = 1.0, beta: float = 0.0) -> float:
    """Returns delta, the width of the attention's bell (Eq. 8).

    Args:
        step: As :func:`step_of` gives it.
        alpha: Growth of delta in a step.
        beta: Delta at step 0.
    """
    return alpha * step + beta


def attention(similarity: Tensor, delta: float, gamma: float = 2.0, mu: float = -1.0) -> Tensor:
    """Returns ``M_a = gamma exp(-((M_s - mu) / delta)^2)`` (Eqs. 6-7).

    Where delta is 0 it is the limit: gamma where the similarity is mu, else 0. With a large delta it is gamma everywhere.

    Args:
        similarity: SSIM map M_s, any shape, [-1, 1], float32 or float64.
        delta: Width of the bell; its sign has no meaning.
        gamma: Height of the bell.
        mu: Similarity that gets the most attention; -1 is SSIM's lower bound.

    Returns:
        The attention map, of the similarity's shape, in [0, gamma].
    """
    if abs(delta) < NARROWEST:
        return torch.where(similarity == mu, gamma, 0.0).to(similarity.dtype)
    distance = similarity - mu
    return distance.mul_(distance).mul_(-((1 / delta) ** 2)).exp_().mul_(gamma)


def self_paced_loss(
    pred: Tensor,
    target: Tensor,
    delta: float,
    *,
    gamma: float = 2.0,
    mu: float = -1.0,
    criterion: str = 'l1',
    settings: SSIMSettings | None = None,
    attention_sum: Tensor | None = None,
) -> Tensor:
    """Returns ``L(M_a pred, M_a target)`` of each pixel (Eq. 10); the attention M_a is a constant to the gradient.

    Similarity, attention, loss and its derivative are computed together, a few planes at a time, in forward: this is a
    multiple faster than one after another over whole batches. It can be differentiated once.

    Args:
        pred: Images (..., height, width), such as a network's output, of a floating-point type. Half precision is
            computed in float32, also inside autocast.
        target: Images of the same shape.
        delta: Width of the attention's bell (:func:`width`).
        gamma: Height of the bell, positive.
        mu: Similarity that gets the most attention.
        criterion: ``l1``, ``l2`` (squared error) or ``charbonnier``.
        settings: Constants and window of the SSIM map; ``data_range`` is that of the images.
        attention_sum: Scalar to which the sum of M_a is added, on the images' device; ``None``: it is not computed.

    Returns:
        Losses of the images' shape, float32 (float64 for float64 images).

    Raises:
        TypeError: An image is not of a floating-point type.
        ValueError: The shapes differ, the criterion is unknown, or a number is not finite.
    """
    if criterion not in CRITERIA:
        raise ValueError(f'criterion: expected one of {", ".join(CRITERIA)}, found {criterion!r}.')
    for name, value in (('delta', delta), ('gamma', gamma), ('mu', mu)):
        if not math.isfinite(value):
            raise ValueError(f'{name}: expected a finite number, found {value!r}.')
    pred, target = computable(pred, target)
    return _SelfPacedLoss.apply(pred, target, delta, gamma, mu, criterion, settings or SSIMSettings(), attention_sum)


class _SelfPacedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        pred: Tensor,
        target: Tensor,
        delta: float,
        gamma: float,
        mu: float,
        criterion: str,
        settings: SSIMSettings,
        attention_sum: Tensor | None,
    ) -> Tensor:
        planes_pred, planes_target = (image.reshape(-1, *image.shape[-2:]) for image in (pred, target))
        losses, slopes = torch.empty_like(planes_pred), torch.empty_like(planes_pred)
        for chunk, similarity in ssim_chunks(pred, target, settings):
            weights = attention(similarity, delta, gamma, mu)
            if attention_sum is not None:
                attention_sum += weights.sum()
            difference = planes_pred[chunk] - planes_target[chunk]
            _loss_and_slope(weights, difference, criterion, losses[chunk], slopes[chunk])
        ctx.save_for_backward(slopes.view(pred.shape))
        return losses.view(pred.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        of_pred = slopes * gradient
        return of_pred, -of_pred if ctx.needs_input_grad[1] else None, None, None, None, None, None, None


def _loss_and_slope(weights: Tensor, difference: Tensor, criterion: str, loss: Tensor, slope: Tensor) -> None:
    """Writes the loss of weighted differences, and its derivative with respect to the difference."""
    if criterion == 'l1':
        torch.sign(difference, out=slope).mul_(weights)
        torch.mul(slope, difference, out=loss)
        return
    weighted = difference.mul_(weights)
    if criterion == 'l2':
        torch.mul(weighted, weighted, out=loss)
        torch.mul(weighted, weights.mul_(2), out=slope)
    else:
        torch.addcmul(weighted.new_full((), CHARBONNIER_EPS), weighted, weighted, out=loss).sqrt_()
        torch.mul(weighted, weights.div_(loss), out=slope)
