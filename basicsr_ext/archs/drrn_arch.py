"""DRRN."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.archs.building import He, check_at_least, enlarge, he_initialisation
from basicsr_ext.archs.registry import ARCH_REGISTRY


class RecursiveBlock(nn.Module):
    """A convolution, then residual units that share two convolutions and start from its output again and again.

    Unit u makes ``x[u] = x[0] + conv2(relu(conv1(relu(x[u - 1]))))``, where ``x[0] = conv_first(relu(x))`` (Eq. 5).

    Args:
        in_channels: Channels of the input.
        num_feat: Features of the output.
        num_unit: How often the residual unit is applied.
        bias: Whether the convolutions have biases.
        rectify_start: Whether x[0] is rectified before the units start from it and add it.
    """

    def __init__(self, in_channels: int, num_feat: int, num_unit: int, bias: bool, rectify_start: bool = False):
        super().__init__()
        self.num_unit = num_unit
        self.rectify_start = rectify_start
        self.conv_first = nn.Conv2d(in_channels, num_feat, 3, padding=1, bias=bias)
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, num_feat, H, W)."""
        start = self.conv_first(functional.relu(x))
        start = features = functional.relu(start) if self.rectify_start else start
        for _ in range(self.num_unit):
            hidden = functional.relu(self.conv1(functional.relu(features)), inplace=True)
            features = start + self.conv2(hidden)
        return features


@ARCH_REGISTRY.register()
class DRRN(nn.Module):
    """Deep recursive residual network that adds a residual to the bicubic enlargement.

    The published B1U25 with 128 features has 297K weights and 52 convolutional layers; with 25 features, 12K, it is a
    student of adaptive importance learning (AIL). As in these counts, there is neither batch normalisation, which the
    published Caffe model has before each ReLU, nor a bias.

    Args:
        in_channels: Channels of input and output: 1 (luminance, as published) or 3.
        num_feat: Features of each hidden layer.
        num_block: Recursive blocks (B).
        num_unit: Residual units of each block, which share their weights (U).
        upscale: Enlarges the input by this factor (exact bicubic); 1 where the data are enlarged already.
        bias: Whether the convolutions have biases.
        init: First weights: ``fan_in`` or ``fan_out`` of He et al.; ``default``: PyTorch's own, as in PSPL's code.
        rectify_start: Rectifies what all units of a block start from and add, as a rectifier in place does in PSPL's code;
            not in the paper.

    Raises:
        UserError: An argument is out of its range.

    Source: Tai et al., "Image Super-Resolution via Deep Recursive Residual Network", 2017.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_feat: int = 128,
        num_block: int = 1,
        num_unit: int = 25,
        upscale: int = 4,
        bias: bool = False,
        init: He = 'fan_in',
        rectify_start: bool = False,
    ):
        super().__init__()
        check_at_least(
            self,
            1,
            in_channels=in_channels,
            num_feat=num_feat,
            num_block=num_block,
            num_unit=num_unit,
            upscale=upscale,
        )
        self.in_channels = in_channels
        self.upscale = upscale
        self.blocks = nn.Sequential(
            *(
                RecursiveBlock(num_feat if k else in_channels, num_feat, num_unit, bias, rectify_start)
                for k in range(num_block)
            )
        )
        self.conv_last = nn.Conv2d(num_feat, in_channels, 3, padding=1, bias=bias)
        he_initialisation((module for module in self.modules() if isinstance(module, nn.Conv2d)), init=init)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolves images (N, in_channels, H, W) in [0, 1] to (N, in_channels, H * upscale, W * upscale)."""
        image = enlarge(x, self.upscale)
        return image + self.conv_last(functional.relu(self.blocks(image)))
