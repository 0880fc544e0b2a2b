"""The contextual loss between two sets of features.

Source: "The Contextual Loss for Image Transformation with Non-Aligned Data", arXiv 1803.02077, in the form of LFC-SR's
published code.
"""

from __future__ import annotations

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from basicsr_ext.functional.precision import exact_float32


def contextual_loss(
    features: torch.Tensor,
    target: torch.Tensor,
    bandwidth: float = 0.1,
    max_pairs: int = 2**22,
    centre: torch.Tensor | None = None,
) -> torch.Tensor:
    """Returns ``-log(mean over j of max over i of CX_ij)``, averaged over images.

    With the cosine distance d_ij of features centred on the target's mean, ``d~_ij = d_ij / (min_j d_ij + 1e-5)``,
    ``w_ij = exp((1 - d~_ij) / h)`` and ``CX_ij = w_ij / sum_j w_ij``. (The published code has ``exp(1 - d~ / h)``, which
    differs by a factor that the division removes.)

    Args:
        features: (N, C, H, W), of the result; position i. Computed in float32, or float64 where they are.
        target: (N, C, H, W), of the ground truth; position j.
        bandwidth: h.
        max_pairs: How many pairs of positions of an image may be in memory at once; beyond, the rows are computed in
            parts, and again for the gradient.
        centre: (1, C, 1, 1), what features are centred on, such as the mean over the batches of all ranks; default: the
            target's mean over batch and positions.

    Returns:
        A scalar, at least 0.
    """
    with exact_float32(features.device):
        if features.dtype not in (torch.float32, torch.float64):
            features, target = features.float(), target.float()
        centre = target.mean((0, 2, 3), keepdim=True) if centre is None else centre
        x, y = (functional.normalize((f - centre).flatten(2), dim=1) for f in (features, target))
        rows = max(1, max_pairs // y.shape[-1])
        return torch.stack([_of_image(a, b, bandwidth, rows) for a, b in zip(x, y, strict=True)]).mean()


def _of_image(x: torch.Tensor, y: torch.Tensor, bandwidth: float, rows: int) -> torch.Tensor:
    """Loss of one image from unit features (C, positions)."""
    if x.shape[1] <= rows:
        best = _best_matches(x, y, bandwidth)
    else:
        parts = [checkpoint(_best_matches, part, y, bandwidth, use_reentrant=False) for part in x.split(rows, 1)]
        best = torch.stack(parts).amax(0)
    return -torch.log(best.mean() + 1e-5).clamp(max=0)  # the small number would lift equal images above 1


def _best_matches(x: torch.Tensor, y: torch.Tensor, bandwidth: float) -> torch.Tensor:
    """For every position of ``y``, the largest contextual similarity among those of ``x``."""
    with exact_float32(x.device):  # here too, since parts are computed again for the gradient
        distance = 1 - (x.T @ y).clamp(0, 1)
    relative = distance / (distance.amin(1, keepdim=True) + 1e-5)
    return torch.softmax((1 - relative) / bandwidth, 1).amax(0)
