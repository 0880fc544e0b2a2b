"""Geometric self-ensemble: the mean over the eight flips and transpositions of the input."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch


def transform(image: torch.Tensor, horizontal: bool, vertical: bool, transpose: bool) -> torch.Tensor:
    """Flips the last axis, then the last but one, then swaps both.

    Args:
        image: Of shape (..., height, width).
        horizontal: Mirror left and right.
        vertical: Mirror top and bottom.
        transpose: Swap height and width, after the flips.
    """
    flips = [axis for axis, wanted in ((-1, horizontal), (-2, vertical)) if wanted]
    image = image.flip(flips) if flips else image
    return image.transpose(-1, -2) if transpose else image


def inverse_transform(image: torch.Tensor, horizontal: bool, vertical: bool, transpose: bool) -> torch.Tensor:
    """Undoes :func:`transform` with the same arguments."""
    image = image.transpose(-1, -2) if transpose else image
    return transform(image, horizontal, vertical, False)


def self_ensemble(forward: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    """Averages what a network makes of the eight orientations of an image, each turned back.

    Source: EDSR (arXiv 1707.02921), Sec. 3.4, "geometric self-ensemble" ("+" in tables).

    Args:
        forward: The network, or anything that runs it; its output may have another height and width.
        image: Of shape (..., height, width).

    Returns:
        The mean, in the dtype that ``forward`` gives, summed up in float32 or better.
    """
    total: torch.Tensor | None = None
    dtype = image.dtype
    for orientation in itertools.product((False, True), repeat=3):
        output = forward(transform(image, *orientation).contiguous())
        dtype = output.dtype
        output = inverse_transform(output.to(torch.promote_types(dtype, torch.float32)), *orientation)
        total = output if total is None else total + output
    assert total is not None
    return (total / 8).to(dtype)
