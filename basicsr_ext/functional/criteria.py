"""Criteria as maps, and what compares them with one another (Cria-CL).

Source: "Criteria Comparative Learning for Real-scene Image Super-Resolution", arXiv 2207.12767. The paper gives the
comparison; that criteria are maps at HR size, averaged over channels, is this package's decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from basicsr_ext.functional.ssim_map import SSIMSettings, gaussian_window


def pixel_map(image: Tensor, target: Tensor, norm: str = 'l2') -> Tensor:
    """The pixel criterion: the Euclidean distance of colours, ``sqrt(mean over channels of (I - HR)^2 + 1e-12)``.

    Args:
        image: (N, C, H, W).
        target: Of the same shape.
        norm: ``l2``, or ``l1``: the mean absolute difference.

    Returns:
        (N, 1, H, W), at least 0.
    """
    difference = image - target
    if norm == 'l1':
        return difference.abs().mean(1, keepdim=True)
    return (difference.square().mean(1, keepdim=True) + 1e-12).sqrt()


def dissimilarity_map(image: Tensor, target: Tensor, settings: SSIMSettings | None = None) -> Tensor:
    """The structural criterion: 1 - SSIM, with zero padding; gradients flow through it.

    Args:
        image: (N, C, H, W), [0, 1].
        target: Of the same shape.
        settings: Constants and window.

    Returns:
        (N, 1, H, W), in [0, 2] up to rounding; the mean over channels.
    """
    settings = settings or SSIMSettings()
    channels, reach = image.shape[1], settings.window_size // 2
    window = gaussian_window(settings.window_size, settings.sigma).to(image)
    rows, columns = (window.view(shape).expand(5 * channels, 1, -1, -1) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))
    with torch.autocast(image.device.type, enabled=False):
        stacked = torch.cat([image, target, image * image, target * target, image * target], 1)
        blurred = functional.conv2d(stacked, rows, padding=(reach, 0), groups=5 * channels)
        blurred = functional.conv2d(blurred, columns, padding=(0, reach), groups=5 * channels)
    mean_x, mean_y, square_x, square_y, product = blurred.chunk(5, 1)
    luminance = (2 * mean_x * mean_y + settings.c1) / (mean_x.square() + mean_y.square() + settings.c1)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    structure = (2 * covariance + settings.c2) / (variances + settings.c2)
    return 1 - (luminance * structure).mean(1, keepdim=True)


def feature_map(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    layers: Sequence[str],
    size: Sequence[int],
    norm: str = 'l1',
) -> Tensor:
    """A perceptual criterion: the mean distance of features, enlarged bilinearly and averaged over layers.

    Args:
        found: Features of the image by layer, (N, C, H / s, W / s).
        wanted: Of the target.
        layers: Which of them.
        size: Height and width of the map.
        norm: ``l1`` or ``l2``, as of :func:`pixel_map`.

    Returns:
        (N, 1, H, W), at least 0.
    """
    maps = [pixel_map(found[layer], wanted[layer], norm) for layer in layers]
    size = list(size)
    return torch.cat(
        [functional.interpolate(m, size=size, mode='bilinear', align_corners=False) for m in maps], 1
    ).mean(1, keepdim=True)


def adversarial_map(logits: Tensor, size: Sequence[int]) -> Tensor:
    """The adversarial criterion: the generator's loss under a discriminator (vanilla GAN), ``softplus(-logits)``.

    Args:
        logits: (N, 1, h, w), or (N, 1) of a discriminator with one output, whose loss is spread over the map.
        size: Height and width of the map.

    Returns:
        (N, 1, H, W), at least 0.
    """
    loss = functional.softplus(-logits)
    if loss.ndim == 2:
        return loss[:, :, None, None].expand(-1, -1, *size)
    if loss.shape[-2:] == tuple(size):
        return loss
    return functional.interpolate(loss, size=size, mode='bilinear', align_corners=False)


def align_loss(anchor: Tensor, positives: Sequence[Tensor], eta: float = 2.0) -> Tensor:
    """Returns ``sum_i |C_anchor - C_i|^eta`` (Eq. 8): criteria that shall agree are pulled together.

    All positives count; the listing of Fig. 4 returns after the first one.

    Args:
        anchor: Map (N, 1, H, W).
        positives: Maps of the same shape; none gives 0.
        eta: Power.

    Returns:
        A map of the same shape, at least 0.
    """
    return sum(((anchor - positive).abs() ** eta for positive in positives), torch.zeros_like(anchor))


def uniformity_loss(anchor: Tensor, negatives: Sequence[Tensor], t: float = 2.0) -> Tensor:
    """Returns ``-log sum_k exp(-t (C_anchor + C_k)^2)`` (Eq. 9), by logsumexp, so that large criteria keep finite gradients.

    Args:
        anchor: Map (N, 1, H, W).
        negatives: Maps of the same shape; none gives 0.
        t: Temperature; the power is always 2 (the listing of Fig. 4 uses t for both).

    Returns:
        A map of the same shape, at least ``-log(number of negatives)``.
    """
    if not negatives:
        return torch.zeros_like(anchor)
    return -torch.logsumexp(torch.stack([-t * (anchor + negative).square() for negative in negatives]), 0)


def spatial_mean(loss: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the mean of a map weighted by a mask (Eq. 11): ``mean(S L)``.

    Args:
        loss: (N, 1, H, W).
        mask: Of the same shape, [0, 1]; ``None`` counts as 1 everywhere.

    Returns:
        A scalar.
    """
    return loss.mean() if mask is None else (mask * loss).mean()
