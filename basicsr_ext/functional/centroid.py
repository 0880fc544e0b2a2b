"""Empirical centroid-oriented optimization: the schedule of alpha, and the mixed pair.

Source: "Noise-free Optimization in Early Training Steps for Image Super-Resolution" (ECO), arXiv 2312.17526.
"""

from __future__ import annotations

import math

import torch


def progress(iteration: int, end: int) -> float:
    """Returns the share of a schedule that lies behind at the start of an iteration.

    Args:
        iteration: Counted from 1.
        end: Length of the schedule in iterations.

    Returns:
        ``(iteration - 1) / end``, at most 1.
    """
    return min(1.0, (iteration - 1) / end)


def linear_alpha(p: float) -> float:
    """Returns ``p``: the schedule that the paper recommends."""
    return p


def sigmoid_alpha(p: float, shift: float = 0.0) -> float:
    """Returns the sigmoid schedule of the published code, with the shift of the paper's Fig. 5.

    Args:
        p: Progress in [0, 1].
        shift: Positive values keep alpha low for longer.
    """
    centred = math.tanh((10 * (p - 0.5) - shift) / 2) / 2  # the sigmoid less 0.5, for any shift
    return min(0.5, max(-0.5, 1.2 * centred)) + 0.5


def cosine_alpha(p: float) -> float:
    """Returns half a cosine wave, from 0 at ``p = 0`` to 1 at ``p = 1``."""
    return (1 - math.cos(math.pi * p)) / 2


def step_alpha(p: float, at: float = 0.5) -> float:
    """Returns 0 before progress ``at``, then 1."""
    return float(p >= at)


def mix(centroid: torch.Tensor, image: torch.Tensor, alpha: float) -> torch.Tensor:
    """Returns ``centroid + alpha (image - centroid)`` (Eq. 14).

    With alpha 0 it is the centroid and with alpha 1 the image, exactly. ``down`` being linear, mixing LR images so equals
    downsampling the mixed HR image, up to the rounding of stored images.

    Args:
        centroid: Empirical centroid mu, or ``down(mu)``; any shape, [0, 1].
        image: Real image y*, or x; of the same shape.
        alpha: In [0, 1].
    """
    return torch.lerp(centroid, image, alpha)
