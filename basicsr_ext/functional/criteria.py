"""Criteria as maps, and what compares them with one another (Cria-CL).

Source: "Criteria Comparative Learning for Real-scene Image Super-Resolution", arXiv 2207.12767. The paper gives the
comparison; that criteria are maps at HR size, averaged over channels, is this package's decision.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.functional.ssim_map import SSIMSettings, window_on

# The generator's loss of logits, each at least 0, since what is compared is squared.
ADVERSARIAL = {
    'vanilla': lambda logits: functional.softplus(-logits),
    'wgan_softplus': lambda logits: functional.softplus(-logits),
    'lsgan': lambda logits: (logits - 1).square(),
}


def pixel_map(image: Tensor, target: Tensor, norm: str = 'l2', channels: str = 'mean') -> Tensor:
    """The pixel criterion: the Euclidean distance of colours, ``sqrt(mean over channels of (I - HR)^2 + 1e-12)``.

    Args:
        image: (N, C, H, W), float32 or float64: in half precision the small number vanishes, and with it the gradient's bound.
        target: Of the same shape.
        norm: ``l2``, or ``l1``: the mean absolute difference.
        channels: ``mean``, or ``max``: the channel that differs most counts alone.

    Returns:
        (N, 1, H, W), at least 0.
    """
    difference = image - target
    if norm == 'l1':
        return _of_channels(difference.abs(), channels)
    return (_of_channels(difference.square(), channels) + 1e-12).sqrt()


def dissimilarity_map(
    image: Tensor, target: Tensor, settings: SSIMSettings | None = None, channels: str = 'mean'
) -> Tensor:
    """The structural criterion: 1 - SSIM, with zero padding; gradients flow through it.

    Args:
        image: (N, C, H, W), [0, 1].
        target: Of the same shape.
        settings: Constants and window.
        channels: As of :func:`pixel_map`.

    Returns:
        (N, 1, H, W), in [0, 2] up to rounding.
    """
    settings = settings or SSIMSettings()
    count, reach = image.shape[1], settings.window_size // 2
    window = window_on(image.device, image.dtype, settings.window_size, settings.sigma)
    rows, columns = (window.view(shape).expand(5 * count, 1, -1, -1) for shape in ((1, 1, -1, 1), (1, 1, 1, -1)))
    with exact_float32(image.device):
        stacked = torch.cat([image, target, image * image, target * target, image * target], 1)
        blurred = functional.conv2d(stacked, rows, padding=(reach, 0), groups=5 * count)
        blurred = functional.conv2d(blurred, columns, padding=(0, reach), groups=5 * count)
    mean_x, mean_y, square_x, square_y, product = blurred.chunk(5, 1)
    luminance = (2 * mean_x * mean_y + settings.c1) / (mean_x.square() + mean_y.square() + settings.c1)
    covariance = product - mean_x * mean_y
    variances = square_x - mean_x.square() + square_y - mean_y.square()
    structure = (2 * covariance + settings.c2) / (variances + settings.c2)
    return _of_channels(1 - luminance * structure, channels)


def feature_map(
    found: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    layers: Mapping[str, float],
    size: Sequence[int],
    norm: str = 'l1',
    channels: str = 'mean',
    enlargement: str = 'bilinear',
) -> Tensor:
    """A perceptual criterion: the distance of features, enlarged, and the weighted mean over layers of it.

    Args:
        found: Features of the image by layer, (N, C, H / s, W / s).
        wanted: Of the target.
        layers: Layer -> weight, positive.
        size: Height and width of the map.
        norm: ``l1`` or ``l2``, as of :func:`pixel_map`.
        channels: As of :func:`pixel_map`.
        enlargement: As of :func:`enlarged`.

    Returns:
        (N, 1, H, W), at least 0.
    """
    total = sum(layers.values())
    maps = [
        weight / total * enlarged(pixel_map(found[layer], wanted[layer], norm, channels), size, enlargement)
        for layer, weight in layers.items()
    ]
    return torch.stack(maps).sum(0)


def adversarial_map(
    logits: Tensor, size: Sequence[int], gan_type: str = 'vanilla', enlargement: str = 'bilinear'
) -> Tensor:
    """The adversarial criterion: the generator's loss under a discriminator.

    Args:
        logits: (N, 1, h, w), or (N, 1) of a discriminator with one output, whose loss is spread over the map.
        size: Height and width of the map.
        gan_type: One of :data:`ADVERSARIAL`; ``vanilla`` is ``softplus(-logits)``.
        enlargement: As of :func:`enlarged`.

    Returns:
        (N, 1, H, W), at least 0.
    """
    loss = ADVERSARIAL[gan_type](logits)
    if loss.ndim == 2:
        return loss[:, :, None, None].expand(-1, -1, *size)
    return enlarged(loss, size, enlargement)


def enlarged(values: Tensor, size: Sequence[int], mode: str = 'bilinear') -> Tensor:
    """Brings a map to a size.

    Args:
        values: (N, 1, h, w).
        size: Height and width wanted.
        mode: ``bilinear`` or ``nearest``.
    """
    if values.shape[-2:] == tuple(size):
        return values
    corners = {'align_corners': False} if mode == 'bilinear' else {}
    return functional.interpolate(values, size=list(size), mode=mode, **corners)


def _of_channels(values: Tensor, how: str) -> Tensor:
    return values.mean(1, keepdim=True) if how == 'mean' else values.amax(1, keepdim=True)


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
        loss: (N, 1, H, W), or (N, 1, 1, 1).
        mask: (N, 1, H, W), [0, 1]; ``None`` counts as 1 everywhere.

    Returns:
        A scalar.
    """
    return loss.mean() if mask is None else (mask * loss).mean()
