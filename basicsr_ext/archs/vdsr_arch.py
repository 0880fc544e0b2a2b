"""VDSR."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.archs.building import He, Normalization, check_at_least, enlarge, he_initialisation
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.networks.tensor_names import rename_keys


@ARCH_REGISTRY.register()
class VDSR(nn.Module):
    """Very deep network that adds a residual to the bicubic enlargement.

    Convolutions of 3x3, all but the last followed by ReLU. The published network has 665K weights: 20 layers, 64
    features, no biases. Narrower ones (13, 16, 22 and 32 features: 28K, 42K, 79K, 166K) are the students of adaptive
    importance learning (AIL).

    Args:
        in_channels: Channels of input and output: 1 (luminance, as published) or 3.
        num_feat: Features of each hidden layer.
        num_conv: Convolutions, at least 2.
        upscale: Enlarges the input by this factor (exact bicubic); 1 where the data are enlarged already.
        bias: Whether the convolutions have biases.
        init: First weights: ``fan_out``, as in the code published for PyTorch and by AIL (He et al. with n = 9 times the
            output channels); ``fan_in``; ``default``, PyTorch's own, as in PSPL's code.
        img_range: The network works on images times this: 255 where training was published on [0, 255], which matters to
            biases; 1 leaves them.
        rgb_mean: Subtracted from the channels first, and added to the result's.

    Raises:
        UserError: An argument is out of its range.

    Source: Kim et al., "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", 2016.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_feat: int = 64,
        num_conv: int = 20,
        upscale: int = 4,
        bias: bool = False,
        init: He = 'fan_out',
        img_range: float = 1.0,
        rgb_mean: Sequence[float] | None = None,
    ):
        super().__init__()
        check_at_least(self, 1, in_channels=in_channels, num_feat=num_feat, upscale=upscale)
        check_at_least(self, 2, num_conv=num_conv)
        self.in_channels = in_channels
        self.upscale = upscale
        self.normalization = Normalization(img_range, rgb_mean, in_channels)
        self.conv_first = nn.Conv2d(in_channels, num_feat, 3, padding=1, bias=bias)
        self.body = nn.ModuleList(nn.Conv2d(num_feat, num_feat, 3, padding=1, bias=bias) for _ in range(num_conv - 2))
        self.conv_last = nn.Conv2d(num_feat, in_channels, 3, padding=1, bias=bias)
        he_initialisation([self.conv_first, *self.body, self.conv_last], init=init)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolves images (N, in_channels, H, W) in [0, 1] to (N, in_channels, H * upscale, W * upscale)."""
        image = self.normalization(enlarge(x, self.upscale))
        features = functional.relu(self.conv_first(image), inplace=True)
        for convolution in self.body:
            features = functional.relu(convolution(features), inplace=True)
        return self.normalization.undo(image + self.conv_last(features))

    @staticmethod
    def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives weights that were published for PyTorch (VDSR's, and AIL's teacher and students) this class's names."""
        return rename_keys(
            state,
            {
                r'input\.': 'conv_first.',
                r'residual_layer\.(\d+)\.conv\.': r'body.\1.',
                r'output\.': 'conv_last.',
            },
        )
