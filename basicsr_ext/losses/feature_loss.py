"""The perceptual loss over VGG-19, with weights from any file."""

from __future__ import annotations

import math
from collections.abc import Mapping

from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.errors import UserError
from basicsr_ext.losses.vgg_features import VGGFeatures

_CRITERIA = {'l1': functional.l1_loss, 'l2': functional.mse_loss}


@LOSS_REGISTRY.register()
class FeatureLoss(nn.Module):
    """Compares VGG-19's features of two images, as BasicSR's ``PerceptualLoss`` does.

    Args:
        layer_weights: Layer -> weight; ``{conv5_4: 1}`` is ESRGAN's, before the rectifier.
        loss_weight: Factor of the loss.
        criterion: ``l1`` or ``l2``.
        vgg_weights: As ``weights`` of :class:`~basicsr_ext.losses.vgg_features.VGGFeatures`.

    Raises:
        UserError: An argument is out of range, or the weights cannot be found.
    """

    extractor = VGGFeatures  # (layers, weights) -> network; a subclass may take another one

    def __init__(
        self,
        layer_weights: Mapping[str, float],
        loss_weight: float = 1.0,
        criterion: str = 'l1',
        vgg_weights: str | None = None,
    ):
        super().__init__()
        if criterion not in _CRITERIA:
            raise UserError(f'criterion of FeatureLoss: expected one of {", ".join(_CRITERIA)}, found {criterion!r}.')
        numbers = {'loss_weight': loss_weight, **{f'layer_weights.{k}': weight for k, weight in layer_weights.items()}}
        for name, value in numbers.items():
            if not math.isfinite(value) or value < 0:
                raise UserError(f'{name} of FeatureLoss: expected a number from 0 on, found {value!r}.')
        self.layer_weights = dict(layer_weights)
        self.loss_weight = loss_weight
        self.criterion = criterion
        self.features = self.extractor(list(layer_weights), vgg_weights)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of images (N, 3, H, W) in [0, 1], a scalar."""
        found, wanted = self.features(pred), self.features(target.detach())
        compare = _CRITERIA[self.criterion]
        return self.loss_weight * sum(
            weight * compare(found[layer], wanted[layer]) for layer, weight in self.layer_weights.items()
        )
