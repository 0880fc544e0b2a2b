"""SSIM as its formula reads, and images on which float32 is hard put to compute it."""

from __future__ import annotations

import torch
from torch.nn import functional

from basicsr_ext.functional.ssim_map import SSIMSettings, gaussian_window


def textbook_map(x: torch.Tensor, y: torch.Tensor, settings: SSIMSettings | None = None) -> torch.Tensor:
    """SSIM of images (N, C, H, W) by five convolutions, in their own type."""
    settings = settings or SSIMSettings()
    window = gaussian_window(settings.window_size, settings.sigma)
    channels = x.shape[1]
    kernel = torch.outer(window, window).to(x.dtype).expand(channels, 1, -1, -1)

    def blur(image):
        return functional.conv2d(image, kernel, padding=settings.window_size // 2, groups=channels)

    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + settings.c1) / (mean_x**2 + mean_y**2 + settings.c1)
    return luminance * (2 * cov + settings.c2) / (var_x + var_y + settings.c2)


def pair(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """Two images in [0, 1] that resemble each other, with flat parts and edges."""
    generator = torch.manual_seed(seed)
    y = torch.rand(shape, generator=generator, dtype=torch.float64).round(decimals=1)
    y[..., : shape[-1] // 2] = 0.75
    x = (0.9 * y + 0.1 * torch.rand(shape, generator=generator, dtype=torch.float64)).clamp(0, 1)
    return x.to(dtype), y.to(dtype)


def with_edges(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The images of :func:`pair`: noise of few levels, and a flat half."""
    return pair(2, 3, 96, 96, seed=seed, dtype=torch.float32)


def patches(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat patches of 8-bit values, from black to white, almost alike in both images."""
    generator = torch.manual_seed(seed)
    levels = torch.randint(0, 256, (2, 3, 3, 3), generator=generator) / 255
    levels[0, 0, 0, :2] = torch.tensor([0, 1])
    y = functional.interpolate(levels, size=(96, 96))
    x = functional.avg_pool2d(y, 3, 1, 1) + 5e-5 * torch.randn(y.shape, generator=generator)
    return x.clamp(0, 1), y


def bright_in_dark(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A flat bright square in the dark: far from the mean, which says little of it."""
    y = torch.full((1, 3, 96, 96), 0.05)
    y[..., 30:60, 30:60] = 0.97
    return (y + 5e-5 * torch.randn(y.shape, generator=torch.manual_seed(seed))).clamp(0, 1), y


HARD_IMAGES = [with_edges, patches, bright_in_dark]
