"""The network of Cria-CL: two views of an image, and a projector that says where each rules."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Literal, NamedTuple, overload

import torch
from basicsr.archs.rrdbnet_arch import RRDB
from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.archs.building import check_at_least
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError
from basicsr_ext.networks.tensor_names import rename_keys

SLOPE = 0.2  # of leaky ReLU


class Views(NamedTuple):
    """What the network sees.

    Attributes:
        sr: The result, (N, C, H, W).
        align: The view in which criteria shall agree, of the same shape.
        unif: The view in which they shall differ, of the same shape.
        mask: S, (N, 1, H, W) in [0, 1]: how far the align view rules; S~ is 1 - S. Without a projector: 0.5.
    """

    sr: Tensor
    align: Tensor
    unif: Tensor
    mask: Tensor


class ResidualBlock(nn.Module):
    """Two convolutions, each followed by leaky ReLU, plus a 1x1 convolution of the input: RB(in, out) of Fig. 3."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
        )
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H, W)."""
        return self.block(x) + self.conv(x)


def _blocks(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(*pair) for pair in pairwise(widths)))


@ARCH_REGISTRY.register()
class CriaCLNet(nn.Module):
    """RRDB trunk with two branches, whose images are mixed by masks (Eq. 10: ``I_SR = I_align S + I_unif (1 - S)``).

    The paper leaves open what the branches and the masks are made of; ``num_branch_block``, ``tail_kernel`` and ``num_mask``
    are this package's decision. 20 trunk blocks of 64 features: 15,127,856 parameters (the paper reports 14.8 million).

    Args:
        num_in_ch: Channels of the input.
        num_out_ch: Channels of the output.
        num_feat: Features.
        num_grow_ch: Growth of the dense blocks.
        num_block: RRDBs of the trunk.
        upscale: 1, 2 or 4.
        variant: ``paper``, or ``release``: the published test code's network, whose projector sees the trunk's image, and
            whose masks, one a feature, multiply the branches' features.
        num_branch_block: Residual blocks of each branch, in the paper's form.
        tail_kernel: Side of the convolution that makes a branch's image, odd; 3 in the published network.
        num_mask: Channels from which the mask is made, in the paper's form: 2, by softmax, or 1, by a sigmoid.
        projector: Without it the result is the mean of both views (Table V); the paper's form only.
        release_mask: S in the release's training, which was not published: the ``mean`` of its masks over features, or their
            ``max``. They come from a softmax over features, so that the mean is 1 / num_feat everywhere.
        release_views: The views in the release's training: the tails of the ``unmasked`` branches, or of the ``masked`` ones,
            whose sum is the result.

    Raises:
        UserError: An argument is out of range.

    Source: "Criteria Comparative Learning for Real-scene Image Super-Resolution", arXiv 2207.12767, Fig. 3.
    """

    has_views = True

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_grow_ch: int = 32,
        num_block: int = 20,
        upscale: int = 4,
        variant: Literal['paper', 'release'] = 'paper',
        num_branch_block: int = 3,
        tail_kernel: int = 3,
        num_mask: int = 2,
        projector: bool = True,
        release_mask: Literal['mean', 'max'] = 'mean',
        release_views: Literal['unmasked', 'masked'] = 'unmasked',
    ):
        super().__init__()
        check_at_least(self, 1, num_in_ch=num_in_ch, num_out_ch=num_out_ch, num_feat=num_feat, num_grow_ch=num_grow_ch)
        check_at_least(self, 1, num_block=num_block, num_branch_block=num_branch_block, tail_kernel=tail_kernel)
        for name, value, known in (
            ('upscale', upscale, (1, 2, 4)),
            ('variant', variant, ('paper', 'release')),
            ('num_mask', num_mask, (1, 2)),
            ('release_mask', release_mask, ('mean', 'max')),
            ('release_views', release_views, ('unmasked', 'masked')),
        ):
            if value not in known:
                raise UserError(f'{name} of CriaCLNet: expected one of {", ".join(map(str, known))}, found {value!r}.')
        if tail_kernel % 2 == 0:
            raise UserError(f'tail_kernel of CriaCLNet: expected an odd number, found {tail_kernel}.')
        if variant == 'release' and not projector:
            raise UserError('projector of CriaCLNet: variant release has no form without it; use variant: paper.')
        self.upscale = upscale
        self.variant = variant
        self.release_mask = release_mask
        self.release_views = release_views
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, padding=1)
        self.trunk = nn.Sequential(*(RRDB(num_feat, num_grow_ch) for _ in range(num_block)))
        self.conv_trunk = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_up1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_up2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        if variant == 'release':
            self.conv_image = nn.Conv2d(num_feat, num_out_ch, 3, padding=1)
            branch = [num_out_ch, num_feat, num_feat, num_feat]
            self.projector = _blocks(*branch)
        else:
            branch = [num_feat] * (num_branch_block + 1)
            self.projector = _blocks(num_in_ch, num_feat, num_feat, num_mask) if projector else None
        self.branch_align, self.branch_unif = _blocks(*branch), _blocks(*branch)
        self.tail_align = nn.Conv2d(num_feat, num_out_ch, tail_kernel, padding=tail_kernel // 2)
        self.tail_unif = nn.Conv2d(num_feat, num_out_ch, tail_kernel, padding=tail_kernel // 2)

    @overload
    def forward(self, x: Tensor, return_views: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_views: Literal[True]) -> Views: ...

    def forward(self, x: Tensor, return_views: bool = False) -> Tensor | Views:
        """Super-resolves images.

        Args:
            x: (N, num_in_ch, H, W) in [0, 1].
            return_views: Asks for views and mask besides the result.

        Returns:
            (N, num_out_ch, H upscale, W upscale), or :class:`Views`.
        """
        features = self._features(x)
        views = self._released(features, return_views) if self.variant == 'release' else self._of_paper(x, features)
        return views if return_views else views.sr

    def _features(self, x: Tensor) -> Tensor:
        """Features at HR size, (N, num_feat, H upscale, W upscale)."""
        first = self.conv_first(x)
        features = first + self.conv_trunk(self.trunk(first))
        for factor, conv in ((2, self.conv_up1), (4, self.conv_up2)):
            if self.upscale >= factor:
                features = functional.interpolate(features, scale_factor=2, mode='nearest')
            features = functional.leaky_relu(conv(features), SLOPE)
        return functional.leaky_relu(self.conv_hr(features), SLOPE)

    def _of_paper(self, x: Tensor, features: Tensor) -> Views:
        align = self.tail_align(self.branch_align(features))
        unif = self.tail_unif(self.branch_unif(features))
        if self.projector is None:
            return Views((align + unif) / 2, align, unif, torch.full_like(align[:, :1], 0.5))
        scores = self.projector(x)
        scores = functional.interpolate(scores, size=align.shape[-2:], mode='bilinear', align_corners=False)
        mask = torch.softmax(scores, 1)[:, :1] if scores.shape[1] == 2 else torch.sigmoid(scores)
        return Views(align * mask + unif * (1 - mask), align, unif, mask)

    def _released(self, features: Tensor, with_views: bool) -> Views:
        image = self.conv_image(features)
        masks = torch.softmax(self.projector(image), 1)
        align, unif = self.branch_align(image), self.branch_unif(image)
        masked = self.tail_align(align * masks), self.tail_unif(unif * (1 - masks))
        sr = masked[0] + masked[1]
        if not with_views:
            return Views(sr, sr, sr, masks[:, :1])
        views = masked if self.release_views == 'masked' else (self.tail_align(align), self.tail_unif(unif))
        mask = masks.mean(1, keepdim=True) if self.release_mask == 'mean' else masks.amax(1, keepdim=True)
        return Views(sr, *views, mask)

    @staticmethod
    def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives the published weights (of ``variant: release``) this class's names."""
        rules = {
            r'RRDB_trunk\.(\d+)\.RDB': r'trunk.\1.rdb',
            r'trunk_conv\.': 'conv_trunk.',
            r'upconv([12])\.': r'conv_up\1.',
            r'HRconv\.': 'conv_hr.',
            r'conv_last\.': 'conv_image.',
            r'branch1\.': 'branch_align.',
            r'branch2\.': 'branch_unif.',
            r'sm\.': 'projector.',
            r'tail_conv1\.': 'tail_align.',
            r'tail_conv2\.': 'tail_unif.',
        }
        return rename_keys(state, rules)
