"""SRCNN."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.archs.building import Normalization, check_at_least, enlarge
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError


@ARCH_REGISTRY.register()
class SRCNN(nn.Module):
    """Three convolutions on the bicubic enlargement: patch extraction, non-linear mapping, reconstruction.

    The published 9-5-5 network has 57,184 weights, the 9-1-5 one 8,032; the papers do not count the biases. Padding by
    zeros keeps the image's size; the paper trains without padding.

    Args:
        in_channels: Channels of input and output: 1 (luminance, as published) or 3.
        num_feat: Features of the first layer.
        num_mapping_feat: Features of the second layer.
        kernel_sizes: Sides of the three kernels, odd.
        upscale: Enlarges the input by this factor (exact bicubic); 1 where the data are enlarged already.
        bias: Whether the convolutions have biases.
        init: First weights: ``gaussian`` of a standard deviation of 0.001 and biases of 0, as the paper has them (section
            3.3); ``default``: PyTorch's own, as in PSPL's code.
        img_range: The network works on images times this: 255 where training was published on [0, 255], which matters to
            biases; 1 leaves them.
        rgb_mean: Subtracted from the channels first, and added to the result's.

    Raises:
        UserError: An argument is out of its range.

    Source: Dong et al., "Image Super-Resolution Using Deep Convolutional Networks", 2016.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_feat: int = 64,
        num_mapping_feat: int = 32,
        kernel_sizes: Sequence[int] = (9, 5, 5),
        upscale: int = 4,
        bias: bool = True,
        init: Literal['gaussian', 'default'] = 'gaussian',
        img_range: float = 1.0,
        rgb_mean: Sequence[float] | None = None,
    ):
        super().__init__()
        check_at_least(
            self, 1, in_channels=in_channels, num_feat=num_feat, num_mapping_feat=num_mapping_feat, upscale=upscale
        )
        if len(kernel_sizes) != 3 or not all(isinstance(size, int) and size > 0 and size % 2 for size in kernel_sizes):
            raise UserError(f'kernel_sizes of SRCNN: expected three odd integers, found {kernel_sizes!r}.')
        self.in_channels = in_channels
        if init not in ('gaussian', 'default'):
            raise UserError(f'init of SRCNN: expected gaussian or default, found {init!r}.')
        self.upscale = upscale
        self.normalization = Normalization(img_range, rgb_mean, in_channels)
        widths = (in_channels, num_feat, num_mapping_feat, in_channels)
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(widths[k], widths[k + 1], size, padding=size // 2, bias=bias)
            for k, size in enumerate(kernel_sizes)
        )
        for convolution in (self.conv1, self.conv2, self.conv3) if init == 'gaussian' else ():
            nn.init.normal_(convolution.weight, std=0.001)  # section 3.3 of the paper
            if convolution.bias is not None:
                nn.init.zeros_(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolves images (N, in_channels, H, W) in [0, 1] to (N, in_channels, H * upscale, W * upscale)."""
        image = self.normalization(enlarge(x, self.upscale))
        features = functional.relu(self.conv1(image), inplace=True)
        return self.normalization.undo(self.conv3(functional.relu(self.conv2(features), inplace=True)))
