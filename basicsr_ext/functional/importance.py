"""Adaptive importance learning (AIL): how much each training pixel counts, and in which round of training.

Source: "Adaptive Importance Learning for Improving Lightweight Image Super-resolution Network", IJCV 2020.
"""

from __future__ import annotations

import math

import torch


def round_of(iteration: int, length: int, rounds: int) -> int:
    """Returns the round of an iteration; the last round goes on to the end of training.

    Args:
        iteration: Counted from 1.
        length: Iterations of a round.
        rounds: Updates of the importance after round 0.
    """
    return min((iteration - 1) // length, rounds) if rounds else 0


def initial_importance(error: torch.Tensor, midpoint: float = 0.01, steepness: float = 100.0) -> torch.Tensor:
    """Returns the importance of round 0: ``g(e) = z / (1 + exp((e - mu0) alpha0))`` with ``g(0) = 1`` (Eqs. 8-9).

    Args:
        error: Absolute error of the teacher, any shape, images in [0, 1].
        midpoint: mu0, an error. (Section 5.3 of the paper swaps the two numbers; its Fig. 2 and the code have them right.)
        steepness: alpha0.

    Returns:
        In (0, 1], of the same shape.
    """
    return (1 + math.exp(-midpoint * steepness)) * torch.sigmoid((midpoint - error) * steepness)


def raised_importance(importance: torch.Tensor, loss: torch.Tensor, step: float = 0.15) -> torch.Tensor:
    """Returns ``min(1, w + lambda exp(-d))``, the importance of the next round (Theorem 1, Eq. 7).

    It is the closed form of the convex problem (Eq. 6) of raising w by as much as the loss allows:
    ``argmin over w' in [w, 1] of d (w' - w) + (w' - w) (log((w' - w) / lambda) - 1)``.

    Args:
        importance: w, in [0, 1].
        loss: d, the student's loss at the pixel, of the same shape, at least 0.
        step: lambda.
    """
    return (importance + step * torch.exp(-loss)).clamp(max=1)


def direct_importance(
    initial: torch.Tensor, loss: torch.Tensor | None, round_number: int, step: float = 0.15
) -> torch.Tensor:
    """Returns ``clip(w0 + t lambda exp(-d), 0, 1)``: the form of the published code, which needs no stored maps.

    Args:
        initial: w0, the importance of round 0.
        loss: d of the student as it was at the end of the round before; ``None`` in round 0.
        round_number: t, counted from 0.
        step: lambda.
    """
    return initial if loss is None else (initial + round_number * step * torch.exp(-loss)).clamp(0, 1)


def random_importance(image: int, top: int, left: int, height: int, width: int, seed: int) -> torch.Tensor:
    """Returns the window of a map of uniform random numbers that belongs to an image, without making the whole map.

    Args:
        image: Number of the image.
        top: First row of the window.
        left: First column of the window.
        height: Of the window.
        width: Of the window.
        seed: Of the run.

    Returns:
        float32 of shape (height, width), in [0, 1); each a hash of seed, image, row and column (splitmix64's finaliser).
    """
    rows = torch.arange(top, top + height, dtype=torch.int64)[:, None]
    columns = torch.arange(left, left + width, dtype=torch.int64)[None]
    state = (rows << 32) + columns
    for number in (seed, image):
        state = _scrambled(state + _signed((number + 1) * 0x9E3779B97F4A7C15))
    return (state >> 40 & 0xFFFFFF).float() / 2**24


def _scrambled(state: torch.Tensor) -> torch.Tensor:
    """splitmix64's finaliser on 64-bit integers; torch shifts them as signed numbers, hence the masks."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        state = (state ^ (state >> shift & (1 << 64 - shift) - 1)) * _signed(factor)
    return state ^ (state >> 31 & (1 << 33) - 1)


def _signed(number: int) -> int:
    """Wraps a number to 64 bits with a sign."""
    return (number + 2**63) % 2**64 - 2**63
