"""FSRCNN."""

from __future__ import annotations

from torch import Tensor, nn

from basicsr_ext.archs.building import check_at_least, he_initialisation
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError

KERNEL_SIZE = 9  # of the transposed convolution
PRELU_START = 0.25  # slope, as in He et al. 2015


@ARCH_REGISTRY.register()
class FSRCNN(nn.Module):
    """Convolutions on the LR image, and a transposed convolution that enlarges.

    FSRCNN(d, s, m): a 5x5 convolution to d features, 1x1 to s, m of 3x3, 1x1 back to d, each followed by PReLU; then a
    9x9 transposed convolution with the upscale as its stride. The published FSRCNN(56, 12, 4) has 12,464 weights; the
    paper counts neither biases nor the slopes of PReLU.

    Args:
        in_channels: Channels of input and output: 1 (luminance, as published) or 3.
        num_feat: Features of the LR image (d).
        num_shrink_feat: Features of the mapping layers (s).
        num_mapping: Mapping layers (m).
        upscale: Enlarges the input by this factor, at most 9.
        bias: Whether the convolutions have biases.

    Raises:
        UserError: An argument is out of its range.

    Source: Dong et al., "Accelerating the Super-Resolution Convolutional Neural Network", 2016.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_feat: int = 56,
        num_shrink_feat: int = 12,
        num_mapping: int = 4,
        upscale: int = 4,
        bias: bool = True,
    ):
        super().__init__()
        check_at_least(
            self, 1, in_channels=in_channels, num_feat=num_feat, num_shrink_feat=num_shrink_feat, upscale=upscale
        )
        check_at_least(self, 0, num_mapping=num_mapping)
        if upscale > KERNEL_SIZE:
            raise UserError(f'upscale of FSRCNN: expected at most {KERNEL_SIZE}, found {upscale}.')
        self.in_channels = in_channels
        self.upscale = upscale
        self.feature_extraction = _layer(in_channels, num_feat, 5, bias)
        self.shrinking = _layer(num_feat, num_shrink_feat, 1, bias)
        self.mapping = nn.Sequential(*(_layer(num_shrink_feat, num_shrink_feat, 3, bias) for _ in range(num_mapping)))
        self.expanding = _layer(num_shrink_feat, num_feat, 1, bias)
        self.deconvolution = nn.ConvTranspose2d(
            num_feat, in_channels, KERNEL_SIZE, upscale, KERNEL_SIZE // 2, output_padding=upscale - 1, bias=bias
        )
        he_initialisation((m for m in self.modules() if isinstance(m, nn.Conv2d)), PRELU_START)
        nn.init.normal_(self.deconvolution.weight, std=0.001)  # section 3.2 of the paper
        if self.deconvolution.bias is not None:
            nn.init.zeros_(self.deconvolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolves images (N, in_channels, H, W) in [0, 1] to (N, in_channels, H * upscale, W * upscale)."""
        features = self.mapping(self.shrinking(self.feature_extraction(x)))
        return self.deconvolution(self.expanding(features))


def _layer(in_channels: int, out_channels: int, kernel_size: int, bias: bool) -> nn.Sequential:
    """A convolution that keeps the image's size, and a PReLU with a slope for each channel."""
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=bias)
    return nn.Sequential(convolution, nn.PReLU(out_channels, PRELU_START))
