"""The criteria of Cria-CL: losses as maps of an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.criteria import ADVERSARIAL, adversarial_map, dissimilarity_map, feature_map, pixel_map
from basicsr_ext.functional.ssim_map import SSIMSettings

CRITERIA = ('pix', 'ssim', 'perc_b', 'perc_t', 'adv')
Judge = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class MapSettings:
    """How criteria are measured: what the paper leaves open.

    Attributes:
        pixel_norm: ``l2`` (Euclidean) or ``l1``, of ``pix``.
        feature_norm: The same of ``perc_b`` and ``perc_t``.
        channels: ``mean``, or ``max``: of the channels' differences.
        enlargement: ``bilinear`` or ``nearest``: how maps that are smaller than the image get its size.
        maps: False: a criterion is one number an image, the mean of its map.
        gan_type: What ``adv`` measures: one of :data:`~basicsr_ext.functional.criteria.ADVERSARIAL`.
        ssim: Constants and window of ``ssim``.
        layers: Perceptual criterion -> its layers -> their weights in its mean.
        scales: Criterion -> factor; default 1.

    Raises:
        UserError: A value is unknown, or out of its range.
    """

    pixel_norm: str = 'l2'
    feature_norm: str = 'l1'
    channels: str = 'mean'
    enlargement: str = 'bilinear'
    maps: bool = True
    gan_type: str = 'vanilla'
    ssim: SSIMSettings = field(default_factory=SSIMSettings)
    layers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scales: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (
            ('pixel_norm', ('l1', 'l2')),
            ('feature_norm', ('l1', 'l2')),
            ('channels', ('mean', 'max')),
            ('enlargement', ('bilinear', 'nearest')),
            ('gan_type', tuple(ADVERSARIAL)),
        ):
            if (value := getattr(self, name)) not in known:
                raise UserError(f'{name} of CriaLoss: expected one of {", ".join(known)}, found {value!r}.')
        check_names('scales', self.scales)
        check_numbers(0, **{f'scales.{name}': scale for name, scale in self.scales.items()})
        for layers in self.layers.values():
            check_numbers(0, **{f'layer_weights.{layer}': weight for layer, weight in layers.items()}, above=True)


class CriteriaMaps(nn.Module):
    """Measures criteria of images.

    Args:
        settings: How.
        features: Gives the layers that ``settings.layers`` names; ``None`` where no perceptual criterion is measured.
    """

    def __init__(self, settings: MapSettings, features: nn.Module | None = None):
        super().__init__()
        self.settings = settings
        self.features = features

    @torch.no_grad()
    def wanted(self, target: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Returns the features of HR images with which perceptual criteria among ``names`` compare."""
        return self._features(target, names)

    def forward(
        self, view: Tensor, target: Tensor, wanted: Mapping[str, Tensor], names: Sequence[str], judge: Judge | None
    ) -> dict[str, Tensor]:
        """Returns criteria of an image by name, each multiplied by its factor.

        Args:
            view: (N, 3, H, W) in [0, 1].
            target: HR images of the same shape.
            wanted: What :meth:`wanted` gave, at least for ``names``.
            names: Which criteria.
            judge: Gives the discriminator's logits of images; needed by ``adv``.

        Returns:
            Maps (N, 1, H, W), or (N, 1, 1, 1) with ``maps: false``.

        Raises:
            UserError: ``adv`` is asked for without a discriminator.
        """
        settings, size = self.settings, view.shape[-2:]
        found = self._features(view, names)
        maps = {}
        for name in names:
            match name:
                case 'pix':
                    value = pixel_map(view, target, settings.pixel_norm, settings.channels)
                case 'ssim':
                    value = dissimilarity_map(view, target, settings.ssim, settings.channels)
                case 'adv':
                    value = adversarial_map(_asked(judge)(view), size, settings.gan_type, settings.enlargement)
                case _:
                    norm, how = settings.feature_norm, (settings.channels, settings.enlargement)
                    value = feature_map(found, wanted, settings.layers[name], size, norm, *how)
            maps[name] = settings.scales.get(name, 1.0) * (value if settings.maps else value.mean((2, 3), True))
        return maps

    def _features(self, images: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        layers = {layer for name in names for layer in self.settings.layers.get(name, ())}
        return self.features(images, layers) if layers else {}


def check_names(argument: str, names: Sequence[str] | Mapping[str, float]) -> None:
    """Refuses what is no criterion, and what is named twice.

    Raises:
        UserError: Names the first such one.
    """
    for number, name in enumerate(names):
        if name not in CRITERIA:
            raise UserError(f'{argument} of CriaLoss: expected names among {", ".join(CRITERIA)}, found {name!r}.')
        if name in list(names)[:number]:
            raise UserError(f'{argument} of CriaLoss: expected each criterion once, found {name} twice.')


def check_numbers(least: float, /, above: bool = False, **values: float) -> None:
    """Refuses what is no finite number, or too small.

    Args:
        least: The smallest number allowed.
        above: Refuses this number, too.
        **values: Argument -> value.

    Raises:
        UserError: Names the first wrong argument.
    """
    for name, value in values.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or value < least or (above and value == least):
            raise UserError(
                f'{name} of CriaLoss: expected a number {"above" if above else "from"} {least}{"" if above else " on"}, '
                f'found {value!r}.'
            )


def _asked(judge: Judge | None) -> Judge:
    if judge is None:
        raise UserError(
            'CriaLoss: the criterion adv needs a discriminator: add train.gan_opt, network_d and train.optim_d, or leave adv '
            'out of the anchor, positives and negatives of train.cria_opt.'
        )
    return judge
