"""The augmented Lagrangian of LFC-SR: two networks whose outputs shall have the same low frequencies.

Source: "Perception-Distortion Balanced ADMM Optimization for Single-Image Super-Resolution", arXiv 2208.03324, Eqs. 7, 11-13.
"""

from __future__ import annotations

from typing import Literal

import torch


def penalty(perceptual: torch.Tensor, objective: torch.Tensor, dual: torch.Tensor | float, rho: float) -> torch.Tensor:
    """Returns ``rho / 2 mean((LF_P - LF_O + s)^2)`` (Eqs. 13a, 13b; a mean, as in the published code).

    Args:
        perceptual: Constrained bands of the perceptual stage's output, any shape.
        objective: Of the objective stage's output.
        dual: The scaled dual variable s, of the same shape, or 0.
        rho: Weight, at least 0.

    Returns:
        A scalar.
    """
    return rho / 2 * (perceptual - objective + dual).square().mean()


def dual_update(perceptual: torch.Tensor, objective: torch.Tensor, dual: torch.Tensor | float) -> torch.Tensor:
    """Returns ``s + LF_P - LF_O`` (Eq. 12c); arguments as of :func:`penalty`, of both stages after their steps."""
    return dual + perceptual - objective


def regularizer(
    perceptual: torch.Tensor, objective: torch.Tensor, weight: float, norm: Literal['l1', 'l2'] = 'l1'
) -> torch.Tensor:
    """Returns ``lambda_r mean(|LF_P - LF_O|)`` (Eq. 7; a mean, as the penalty), the constraint without a dual variable.

    Args:
        perceptual: As of :func:`penalty`.
        objective: As of :func:`penalty`.
        weight: lambda_r.
        norm: ``l1``, the paper's, or ``l2``: the mean square, which is the penalty with s = 0.

    Returns:
        A scalar.
    """
    difference = perceptual - objective
    return weight * (difference.abs() if norm == 'l1' else difference.square()).mean()
