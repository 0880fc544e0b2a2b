"""LapSRN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.archs.building import He, check_at_least, he_initialisation
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError
from basicsr_ext.networks.tensor_names import rename_keys

SLOPE = 0.2  # of leaky ReLU
LEVELS = {2: 1, 4: 2, 8: 3}


class PyramidLevel(nn.Module):
    """Doubles features and image, and adds to the image a residual made from the features.

    Args:
        in_channels: Channels of the image.
        num_feat: Features.
        num_conv: Convolutions before the features are enlarged.
        up_kernel_size: Side of the kernel that enlarges the features, 3 or 4.
        bias: Whether the convolutions have biases; the one that enlarges the image never has.
    """

    def __init__(self, in_channels: int, num_feat: int, num_conv: int, up_kernel_size: int, bias: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(num_conv):
            layers += [nn.Conv2d(num_feat, num_feat, 3, padding=1, bias=bias), nn.LeakyReLU(SLOPE, inplace=True)]
        doubling = nn.ConvTranspose2d(
            num_feat, num_feat, up_kernel_size, 2, padding=1, output_padding=up_kernel_size % 2, bias=bias
        )
        self.features = nn.Sequential(*layers, doubling, nn.LeakyReLU(SLOPE, inplace=True))
        self.up_image = nn.ConvTranspose2d(in_channels, in_channels, 4, 2, padding=1, bias=False)
        self.conv_residual = nn.Conv2d(num_feat, in_channels, 3, padding=1, bias=bias)

    def forward(self, features: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Maps features (N, num_feat, H, W) and image (N, in_channels, H, W) to twice their height and width."""
        features = self.features(features)
        return features, self.up_image(image) + self.conv_residual(features)


@ARCH_REGISTRY.register()
class LapSRN(nn.Module):
    """Laplacian pyramid: each level doubles the image by a transposed convolution and adds a residual to it.

    The published x4 network, 10 convolutions a level, has 812K weights by the authors' count, where the kernels that
    enlarge features have 3x3 pixels as in their code (``up_kernel_size: 3``) and biases are left out; with kernels of
    4x4, as their text says and as in the weights published for PyTorch, it has 870K.

    Args:
        in_channels: Channels of input and output: 1 (luminance, as published) or 3.
        num_feat: Features of each hidden layer.
        num_conv: Convolutions of each level.
        upscale: 2, 4 or 8.
        bias: Whether the convolutions have biases; those that enlarge the image never have.
        up_kernel_size: Side of the kernels that enlarge features: 4 or 3.
        share_levels: Whether all levels have the same weights, as in the authors' later article (x4: 407K with
            kernels of 3x3).
        init: First weights: ``fan_in`` or ``fan_out`` of He et al. with bilinear enlargement; ``default``: PyTorch's own,
            enlargements included, as in PSPL's code.

    Raises:
        UserError: An argument is out of its range.

    Source: Lai et al., "Deep Laplacian Pyramid Networks for Fast and Accurate Super-Resolution", 2017; shared levels:
    "Fast and Accurate Image Super-Resolution with Deep Laplacian Pyramid Networks", 2018.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_feat: int = 64,
        num_conv: int = 10,
        upscale: int = 4,
        bias: bool = False,
        up_kernel_size: int = 4,
        share_levels: bool = False,
        init: He = 'fan_in',
    ):
        super().__init__()
        check_at_least(self, 1, in_channels=in_channels, num_feat=num_feat, num_conv=num_conv)
        if upscale not in LEVELS:
            raise UserError(f'upscale of LapSRN: expected 2, 4 or 8, found {upscale!r}.')
        if up_kernel_size not in (3, 4):
            raise UserError(f'up_kernel_size of LapSRN: expected 3 or 4, found {up_kernel_size!r}.')
        self.in_channels = in_channels
        self.upscale = upscale
        self.conv_first = nn.Conv2d(in_channels, num_feat, 3, padding=1, bias=bias)
        self.levels = nn.ModuleList(
            PyramidLevel(in_channels, num_feat, num_conv, up_kernel_size, bias)
            for _ in range(1 if share_levels else LEVELS[upscale])
        )
        he_initialisation((module for module in self.modules() if isinstance(module, nn.Conv2d)), init=init)
        for module in self.modules():
            if isinstance(module, nn.ConvTranspose2d) and init != 'default':
                _bilinear_initialisation(module)

    @overload
    def forward(self, x: Tensor, return_levels: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_levels: Literal[True]) -> list[Tensor]: ...

    def forward(self, x: Tensor, return_levels: bool = False) -> Tensor | list[Tensor]:
        """Super-resolves images.

        Args:
            x: (N, in_channels, H, W) in [0, 1].
            return_levels: Asks for the image of every level, each twice as high and wide as the one before.

        Returns:
            (N, in_channels, H * upscale, W * upscale), or a list that ends with it.
        """
        features = functional.leaky_relu(self.conv_first(x), SLOPE, inplace=True)
        images = [x]
        for k in range(LEVELS[self.upscale]):
            features, image = self.levels[k % len(self.levels)](features, images[-1])
            images.append(image)
        return images[1:] if return_levels else images[-1]

    @staticmethod
    def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives weights that were published for PyTorch this class's names."""
        rules = {r'conv_input\.': 'conv_first.'}
        for k in range(max(LEVELS.values())):
            rules |= {
                rf'convt_F{k + 1}\.0\.cov_block\.': f'levels.{k}.features.',
                rf'convt_I{k + 1}\.': f'levels.{k}.up_image.',
                rf'convt_R{k + 1}\.': f'levels.{k}.conv_residual.',
            }
        return rename_keys(state, rules)


def _bilinear_initialisation(convolution: nn.ConvTranspose2d) -> None:
    """Makes a doubling transposed convolution interpolate each channel bilinearly."""
    side = convolution.kernel_size[0]
    triangle = 1 - (torch.arange(side) - (side - 1) / 2).abs() / 2
    nn.init.zeros_(convolution.weight)
    with torch.no_grad():
        for channel in range(convolution.in_channels):
            convolution.weight[channel, channel] = triangle[:, None] * triangle
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
