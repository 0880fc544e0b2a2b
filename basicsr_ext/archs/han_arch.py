"""HAN, the objective stage of LFC-SR's paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from basicsr.archs.arch_util import Upsample
from basicsr.archs.rcan_arch import ResidualGroup
from torch import Tensor, nn

from basicsr_ext.archs.building import check_at_least
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.functional.precision import without_autocast
from basicsr_ext.networks.tensor_names import rename_keys, without_mean_shift

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class LayerAttention(nn.Module):
    """Attention among layers: each layer's features are mended by those of layers unlike it (Eqs. 5-6)."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps features (N, layers, C, H, W) to (N, layers * C, H, W)."""
        flat = maps.flatten(2)
        with without_autocast(maps.device):  # sums over whole maps: half precision would not hold them
            products = flat.float() if flat.dtype in (torch.float16, torch.bfloat16) else flat
            energy = products @ products.transpose(1, 2)
            attention = torch.softmax(energy.amax(-1, keepdim=True) - energy, -1).to(flat.dtype)
        return (self.gamma * (attention @ flat) + flat).view_as(maps).flatten(1, 2)


class ChannelSpatialAttention(nn.Module):
    """Attention from a 3x3x3 convolution over channel, height and width (Eqs. 7-8)."""

    def __init__(self):
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1))
        self.conv = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (N, C, H, W) to the same shape."""
        attention = torch.sigmoid(self.conv(features[:, None]))[:, 0]
        return features * (self.gamma * attention) + features


@ARCH_REGISTRY.register()
class HAN(nn.Module):
    """Holistic attention network: RCAN with attention among its groups' outputs.

    Published: 10 groups of 20 blocks, 64 features, x4: 16,071,769 values, 24 of which are fixed mean shifts that are
    constants here.

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        num_feat: Features.
        num_group: Residual groups.
        num_block: Blocks of a group.
        squeeze_factor: Of channel attention.
        upscale: 2, 3, 4 or 8.
        res_scale: Factor of each block's residual.
        img_range: Range of values inside; images are in [0, 1].
        rgb_mean: Mean colour, in [0, 1], that is subtracted before and added after.

    Raises:
        UserError: A count is no positive integer.

    Source: Niu et al., "Single Image Super-Resolution via a Holistic Attention Network", ECCV 2020.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_group: int = 10,
        num_block: int = 20,
        squeeze_factor: int = 16,
        upscale: int = 4,
        res_scale: float = 1.0,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = DIV2K_MEAN,
    ):
        super().__init__()
        check_at_least(self, 1, num_in_ch=num_in_ch, num_out_ch=num_out_ch, num_feat=num_feat)
        check_at_least(self, 1, num_group=num_group, num_block=num_block)
        self.img_range = img_range
        self.register_buffer('mean', torch.tensor(rgb_mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.groups = nn.ModuleList(
            ResidualGroup(num_feat, num_block, squeeze_factor, res_scale) for _ in range(num_group)
        )
        self.conv_after_body = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.layer_attention = LayerAttention()
        self.conv_layers = nn.Conv2d(num_feat * (num_group + 1), num_feat, 3, padding=1)
        self.channel_spatial_attention = ChannelSpatialAttention()
        self.conv_fusion = nn.Conv2d(2 * num_feat, num_feat, 3, padding=1)
        self.upsample = Upsample(upscale, num_feat)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Super-resolves images.

        Args:
            x: (N, num_in_ch, H, W) in [0, 1].

        Returns:
            (N, num_out_ch, H * upscale, W * upscale).
        """
        first = self.conv_first((x - self.mean) * self.img_range)
        features, outputs = first, []
        for group in self.groups:
            features = group(features)
            outputs.append(features)
        features = self.conv_after_body(features)
        maps = torch.stack([features, *reversed(outputs)], 1)
        layers = self.conv_layers(self.layer_attention(maps))
        fused = self.conv_fusion(torch.cat([self.channel_spatial_attention(features), layers], 1))
        return self.conv_last(self.upsample(fused + first)) / self.img_range + self.mean

    def published_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives the published weights this class's names; their mean shifts are constants here, and left out."""
        blocks = [int(key.split('.')[3]) for key in state if key.startswith('body.0.body.')]
        rules = {
            r'head\.0\.': 'conv_first.',
            r'body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0\.': r'groups.\1.residual_group.\2.rcab.3.attention.1.',
            r'body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2\.': r'groups.\1.residual_group.\2.rcab.3.attention.3.',
            r'body\.(\d+)\.body\.(\d+)\.body\.': r'groups.\1.residual_group.\2.rcab.',
            rf'body\.(\d+)\.body\.{max(blocks, default=0)}\.': r'groups.\1.conv.',
            r'body\.\d+\.(?=weight|bias)': 'conv_after_body.',
            r'la\.': 'layer_attention.',
            r'last_conv\.': 'conv_layers.',
            r'csa\.': 'channel_spatial_attention.',
            r'last\.': 'conv_fusion.',
            r'tail\.0\.': 'upsample.',
            r'tail\.1\.': 'conv_last.',
        }
        return rename_keys(without_mean_shift(self, state), rules)
