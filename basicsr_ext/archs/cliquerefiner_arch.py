"""The perceptual stage of LFC-SR: a refiner among wavelet bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from basicsr_ext.archs.building import check_at_least
from basicsr_ext.archs.han_arch import DIV2K_MEAN
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError
from basicsr_ext.functional.wavelet import haar_dwt, haar_idwt
from basicsr_ext.networks.tensor_names import rename_keys

BANDS = ('ll', 'lh', 'hl', 'hh')
# What each band is made from, in order: the first stage goes from LL to HH, the second one back. "ll1" is LL after stage 1.
STAGES = (
    {'ll1': ('ll',), 'lh1': ('ll1', 'lh'), 'hl1': ('ll1', 'hl'), 'hh1': ('ll1', 'lh1', 'hl1', 'hh')},
    {'hh2': ('hh1',), 'hl2': ('hl1', 'hh2'), 'lh2': ('lh1', 'hh2'), 'll2': ('ll1', 'lh2', 'hl2', 'hh2')},
)


class ResCliqueBlock(nn.Module):
    """Mends four bands of features from one another, and adds them to its input.

    Args:
        num_feat: Features of each band.
        num_stage: 1 or 2 stages.
    """

    def __init__(self, num_feat: int, num_stage: int):
        super().__init__()
        self.steps = {band: sources for stage in STAGES[:num_stage] for band, sources in stage.items()}
        self.last = [f'{band}{num_stage}' for band in BANDS]
        self.convs = nn.ModuleDict(
            {
                band: nn.Sequential(nn.Conv2d(len(sources) * num_feat, num_feat, 3, padding=1), nn.PReLU(num_feat))
                for band, sources in self.steps.items()
            }
        )

    def forward(self, features: Tensor) -> Tensor:
        """Maps features (N, 4 num_feat, H, W), bands in the order LL, LH, HL, HH, to the same shape."""
        bands = dict(zip(BANDS, features.chunk(4, 1), strict=True))
        for band, sources in self.steps.items():
            bands[band] = self.convs[band](torch.cat([bands[source] for source in sources], 1))
        return torch.cat([bands[band] for band in self.last], 1) + features


@ARCH_REGISTRY.register()
class CliqueRefiner(nn.Module):
    """Refines images of HR size in the Haar domain; sides of any length.

    Published: 15 blocks of 32 features, two stages: 2,601,444 values, 24 of which are fixed mean shifts that are constants
    here.

    Args:
        num_in_ch: Channels of input and output.
        num_feat: n, features of each band.
        num_block: Res-Clique blocks.
        num_stage: Stages of a block, 1 or 2.
        img_range: Range of values inside; images are in [0, 1].
        rgb_mean: Mean colour, in [0, 1], that is subtracted before and added after.

    Raises:
        UserError: A count is out of range.

    Source: "Perception-Distortion Balanced ADMM Optimization for Single-Image Super-Resolution", arXiv 2208.03324.
    """

    size_multiple = 2  # of the input's sides, so that tiles have the whole image's wavelets

    def __init__(
        self,
        num_in_ch: int = 3,
        num_feat: int = 32,
        num_block: int = 15,
        num_stage: int = 2,
        img_range: float = 255.0,
        rgb_mean: Sequence[float] = DIV2K_MEAN,
    ):
        super().__init__()
        check_at_least(self, 1, num_in_ch=num_in_ch, num_feat=num_feat, num_block=num_block)
        if num_stage not in (1, 2):
            raise UserError(f'num_stage of CliqueRefiner: expected 1 or 2, found {num_stage!r}.')
        self.img_range = img_range
        self.register_buffer('mean', torch.tensor(rgb_mean).view(1, -1, 1, 1), persistent=False)
        self.conv_first = nn.Conv2d(4 * num_in_ch, num_feat, 3, padding=1)
        self.conv_bands = nn.Conv2d(num_feat, 4 * num_feat, 3, padding=1)
        self.blocks = nn.ModuleList(ResCliqueBlock(num_feat, num_stage) for _ in range(num_block))
        self.fusion = nn.Sequential(nn.Conv2d(4 * num_feat * num_block, num_feat, 1), nn.LeakyReLU(0.01))
        self.conv_last = nn.Conv2d(num_feat, 4 * num_in_ch, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images (N, num_in_ch, H, W) in [0, 1] to refined ones of the same shape."""
        first = self.conv_first(haar_dwt((x - self.mean) * self.img_range))
        features, outputs = self.conv_bands(first), []
        for block in self.blocks:
            features = block(features)
            outputs.append(features)
        bands = self.conv_last(self.fusion(torch.cat(outputs, 1)) + first)
        return haar_idwt(bands, x.shape[-2:]) / self.img_range + self.mean

    @staticmethod
    def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives the published weights this class's names; their mean shifts are constants here, and left out."""
        rules = {
            r'preConv0\.': 'conv_first.',
            r'preConv1\.': 'conv_bands.',
            r'CliqueBlock\.(\d+)\.F(\w\w[12])\.': r'blocks.\1.convs.\2.',
            r'funsion\.body\.0\.': 'fusion.0.',
            r'tail\.body\.0\.': 'conv_last.',
        }
        kept = {key: tensor for key, tensor in state.items() if not key.startswith(('sub_mean.', 'add_mean.'))}
        return rename_keys(kept, rules)
