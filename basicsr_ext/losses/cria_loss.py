"""Criteria comparative learning: losses compared with one another (Cria-CL, arXiv 2207.12767)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.criteria import (
    adversarial_map,
    align_loss,
    dissimilarity_map,
    feature_map,
    pixel_map,
    spatial_mean,
    uniformity_loss,
)
from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.losses.vgg_features import VGGFeatures

CRITERIA = ('pix', 'ssim', 'perc_b', 'perc_t', 'adv')


@LOSS_REGISTRY.register()
class CriaLoss(nn.Module):
    """Pulls the positives towards the anchor in the align view, and the negatives away from it in the unif view.

    Criteria: ``pix`` (distance of colours), ``ssim`` (1 - SSIM), ``perc_b`` and ``perc_t`` (features of VGG-19's lower layers
    and of its top), ``adv`` (the generator's loss under the discriminator). Every row of Tables V and VI is an option:
    ``align_weight: 0`` or ``unif_weight: 0`` leaves that term out; ``anchor: adv, positives: [perc_t], negatives: [pix, ssim,
    perc_b]`` changes the anchor.

    Args:
        align_weight: Of Eq. 8's term (the paper gives none; 0.01 is this package's decision, as for the other one).
        unif_weight: Of Eq. 9's term.
        unif_scale: lambda of Eq. 11.
        anchor: The criterion that the others are compared with.
        positives: Criteria that shall agree with it.
        negatives: Criteria that shall differ from it.
        eta: Power of Eq. 8.
        t: Temperature of Eq. 9.
        pixel_norm: ``l2`` (Euclidean) or ``l1``: what ``pix`` measures.
        feature_norm: ``l1`` or ``l2``: what ``perc_b`` and ``perc_t`` measure.
        scales: Criterion -> factor, since criteria are compared as numbers; default 1.
        mask_grad: Whether the projector learns from the criteria, too; it could lower the loss by moving the masks.
        bottom_layers: VGG-19's layers of ``perc_b``.
        top_layers: Of ``perc_t``.
        ssim_window: Side of the Gaussian window of ``ssim`` in pixels, odd.
        ssim_sigma: Its standard deviation in pixels.
        vgg_weights: As ``weights`` of :class:`~basicsr_ext.losses.vgg_features.VGGFeatures`.

    Raises:
        UserError: A criterion is unknown, the anchor is compared with itself, a value is out of its range, or VGG-19's
            weights cannot be found.
    """

    def __init__(
        self,
        align_weight: float = 0.01,
        unif_weight: float = 0.01,
        unif_scale: float = 1.0,
        anchor: str = 'pix',
        positives: Sequence[str] = ('ssim', 'perc_b'),
        negatives: Sequence[str] = ('perc_t', 'adv'),
        eta: float = 2.0,
        t: float = 2.0,
        pixel_norm: str = 'l2',
        feature_norm: str = 'l1',
        scales: Mapping[str, float] | None = None,
        mask_grad: bool = False,
        bottom_layers: Sequence[str] = ('relu1_2', 'relu2_2'),
        top_layers: Sequence[str] = ('relu5_4',),
        ssim_window: int = 11,
        ssim_sigma: float = 1.5,
        vgg_weights: str | None = None,
    ):
        super().__init__()
        named = {'anchor': [anchor], 'positives': positives, 'negatives': negatives, 'scales': scales or ()}
        for argument, names in named.items():
            unknown = [name for name in names if name not in CRITERIA]
            if unknown:
                raise UserError(
                    f'{argument} of CriaLoss: expected names among {", ".join(CRITERIA)}, found {unknown[0]!r}.'
                )
            if argument in ('positives', 'negatives') and anchor in names:
                raise UserError(f'{argument} of CriaLoss: {anchor} is the anchor, and cannot be compared with itself.')
        for argument, norm in (('pixel_norm', pixel_norm), ('feature_norm', feature_norm)):
            if norm not in ('l1', 'l2'):
                raise UserError(f'{argument} of CriaLoss: expected l1 or l2, found {norm!r}.')
        _check_numbers(1, eta=eta)  # below 1 the gradient of equal criteria is infinite
        _check_numbers(0, t=t, align_weight=align_weight, unif_weight=unif_weight, unif_scale=unif_scale)
        _check_numbers(0, **{f'scales.{name}': scale for name, scale in (scales or {}).items()})
        try:
            self.ssim = SSIMSettings(window_size=ssim_window, sigma=ssim_sigma)
        except ValueError as error:
            raise UserError(f'ssim_window and ssim_sigma of CriaLoss: {error}') from None
        self.align_weight = align_weight
        self.unif_weight = unif_weight * unif_scale
        self.anchor = anchor
        self.positives = tuple(positives) if self.align_weight else ()
        self.negatives = tuple(negatives) if self.unif_weight else ()
        self.eta = eta
        self.t = t
        self.pixel_norm = pixel_norm
        self.feature_norm = feature_norm
        self.scales = dict(scales or {})
        self.mask_grad = mask_grad
        self.layers = {'perc_b': tuple(bottom_layers), 'perc_t': tuple(top_layers)}
        perceptual = [name for name in self.used if name in self.layers]
        self.vgg = (
            VGGFeatures([x for name in perceptual for x in self.layers[name]], vgg_weights) if perceptual else None
        )

    @property
    def used(self) -> tuple[str, ...]:
        """Criteria that are computed."""
        if not self.positives and not self.negatives:
            return ()
        return tuple(name for name in CRITERIA if name in (self.anchor, *self.positives, *self.negatives))

    def forward(
        self,
        align: Tensor,
        unif: Tensor,
        target: Tensor,
        mask: Tensor | None = None,
        judge: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compares the criteria of both views.

        Args:
            align: (N, 3, H, W) in [0, 1].
            unif: Of the same shape.
            target: HR images of the same shape.
            mask: S, (N, 1, H, W) in [0, 1]; ``None`` (no projector) counts both regions as everything.
            judge: Gives the discriminator's logits of images; needed by ``adv``.

        Returns:
            Weighted losses ``l_align`` and ``l_unif``, those that are asked for; and the mean of every criterion by name.
        """
        if mask is not None and not self.mask_grad:
            mask = mask.detach()
        wanted = self._features_of(target)
        losses, means = {}, {}
        if self.positives:
            maps = self._maps(align, target, wanted, (self.anchor, *self.positives), judge)
            means.update({f'c_{name}_align': value.detach().mean() for name, value in maps.items()})
            loss = align_loss(maps[self.anchor], [maps[name] for name in self.positives], self.eta)
            losses['l_align'] = self.align_weight * spatial_mean(loss, mask)
        if self.negatives:
            maps = self._maps(unif, target, wanted, (self.anchor, *self.negatives), judge)
            means.update({f'c_{name}_unif': value.detach().mean() for name, value in maps.items()})
            loss = uniformity_loss(maps[self.anchor], [maps[name] for name in self.negatives], self.t)
            inverse = None if mask is None else 1 - mask
            losses['l_unif'] = self.unif_weight / 2 * spatial_mean(loss, inverse)
        return losses, means

    @torch.no_grad()
    def _features_of(self, target: Tensor) -> dict[str, Tensor]:
        """What both views' features are compared with."""
        return self.vgg(target) if self.vgg is not None else {}

    def _maps(
        self,
        view: Tensor,
        target: Tensor,
        wanted: Mapping[str, Tensor],
        names: Sequence[str],
        judge: Callable[[Tensor], Tensor] | None,
    ) -> dict[str, Tensor]:
        """The criteria of a view by name, each multiplied by its factor."""
        size = view.shape[-2:]
        layers = {layer for name in names for layer in self.layers.get(name, ())}
        found = self.vgg(view, layers) if layers else {}
        maps = {}
        for name in names:
            match name:
                case 'pix':
                    value = pixel_map(view, target, self.pixel_norm)
                case 'ssim':
                    value = dissimilarity_map(view, target, self.ssim)
                case 'adv':
                    value = adversarial_map(judge(view), size)
                case _:
                    value = feature_map(found, wanted, self.layers[name], size, self.feature_norm)
            maps[name] = self.scales.get(name, 1.0) * value
        return maps


def _check_numbers(least: float, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= least):
            raise UserError(f'{name} of CriaLoss: expected a number from {least} on, found {value!r}.')
