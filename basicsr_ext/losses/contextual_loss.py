"""The contextual loss as a loss of BasicSR's registry."""

from __future__ import annotations

import math
from collections.abc import Sequence

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, distributed, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.contextual import contextual_loss
from basicsr_ext.losses.vgg_features import VGGFeatures


@LOSS_REGISTRY.register()
class ContextualLoss(nn.Module):
    """Compares the features of an image with those of its target wherever they lie (LFC-SR's ``CX``).

    Features are centred on the mean of the targets' over the batches of all ranks together.

    Args:
        loss_weight: Factor of the loss.
        layers: Layers of VGG-19 (:data:`~basicsr_ext.losses.vgg_features.LAYERS`); their losses are added.
        bandwidth: h, positive.
        max_pairs: As of :func:`~basicsr_ext.functional.contextual.contextual_loss`: bounds the memory for large patches.
        vgg_weights: As ``weights`` of :class:`~basicsr_ext.losses.vgg_features.VGGFeatures`.
        input_range: As of :class:`~basicsr_ext.losses.vgg_features.VGGFeatures`; 255 is what LFC-SR's published code does.

    Raises:
        UserError: An argument is out of range, or the weights cannot be found.
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        layers: Sequence[str] = ('relu3_4',),
        bandwidth: float = 0.1,
        max_pairs: int = 2**22,
        vgg_weights: str | None = None,
        input_range: float = 1.0,
    ):
        super().__init__()
        if not 0 < bandwidth < math.inf:
            raise UserError(f'bandwidth of ContextualLoss: expected a positive, finite number, found {bandwidth!r}.')
        if max_pairs < 1:
            raise UserError(f'max_pairs of ContextualLoss: expected at least 1, found {max_pairs!r}.')
        self.loss_weight = loss_weight
        self.bandwidth = bandwidth
        self.max_pairs = max_pairs
        self.vgg = VGGFeatures(layers, vgg_weights, input_range)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of images (N, 3, H, W) in [0, 1], a scalar; where there are several ranks, all must call it."""
        found, wanted = self.vgg(pred), self.vgg(target.detach())
        losses = [
            contextual_loss(found[name], wanted[name], self.bandwidth, self.max_pairs, _centre(wanted[name]))
            for name in found
        ]
        return self.loss_weight * sum(losses)


def _centre(features: Tensor) -> Tensor:
    """The mean of features over positions and the batches, of equal size, of all ranks: (1, C, 1, 1)."""
    centre = features.float().mean((0, 2, 3), keepdim=True)
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(centre)
        centre /= distributed.get_world_size()
    return centre
