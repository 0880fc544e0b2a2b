"""The discriminator of SRGAN, for patches of any size."""

from __future__ import annotations

from torch import Tensor, nn

from basicsr_ext.archs.building import check_at_least
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError


@ARCH_REGISTRY.register()
class SRGANDiscriminator(nn.Module):
    """Tells real patches from made ones: convolutions in pairs, the second of each halves the sides, then a dense layer.

    SRGAN has 8 convolutions, of 64 to 512 features, and normalises all but the first one. LFC-SR's published code has 6, up to
    256, all normalised: 86,083,009 weights for patches of 144.

    Args:
        input_size: Height and width of the patches: ``gt_size`` of the training data.
        num_in_ch: Channels of the patches.
        num_feat: Features of the first pair; each further pair has twice as many.
        num_conv: Convolutions, an even number.
        num_dense: Features of the dense layer.
        norm_first: Whether the first convolution too has no bias, and batch normalisation behind it; default: as published, so
            with 6 convolutions, and not with SRGAN's 8.

    Raises:
        UserError: A number is out of range.

    Source: Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", 2017.
    """

    def __init__(
        self,
        input_size: int,
        num_in_ch: int = 3,
        num_feat: int = 64,
        num_conv: int = 8,
        num_dense: int = 1024,
        norm_first: bool | None = None,
    ):
        super().__init__()
        check_at_least(self, 1, input_size=input_size, num_in_ch=num_in_ch, num_feat=num_feat, num_dense=num_dense)
        check_at_least(self, 2, num_conv=num_conv)
        if num_conv % 2:
            raise UserError(f'num_conv of SRGANDiscriminator: expected an even number, found {num_conv}.')
        norm_first = num_conv == 6 if norm_first is None else norm_first
        self.input_size = side = input_size
        layers: list[nn.Module] = []
        channels = num_in_ch
        for number in range(num_conv):
            features, stride = num_feat * 2 ** (number // 2), 1 + number % 2
            normalised = norm_first or number > 0
            layers.append(nn.Conv2d(channels, features, 3, stride, 1, bias=not normalised))
            if normalised:
                layers.append(nn.BatchNorm2d(features))
            layers.append(nn.LeakyReLU(0.2))
            channels, side = features, -(-side // stride)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(channels * side**2, num_dense), nn.LeakyReLU(0.2), nn.Linear(num_dense, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits (N, 1) of patches (N, num_in_ch, input_size, input_size): large for real ones.

        Raises:
            UserError: The patches have another size.
        """
        if x.shape[-2:] != (self.input_size, self.input_size):
            raise UserError(
                f'input_size is {self.input_size}, and patches (datasets.train.gt_size) are {x.shape[-2]}x{x.shape[-1]}'
            )
        return self.classifier(self.features(x))
