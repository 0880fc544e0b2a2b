"""Criteria comparative learning: losses compared with one another (Cria-CL, arXiv 2207.12767)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from basicsr.utils.registry import LOSS_REGISTRY
from torch import Tensor, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.criteria import align_loss, spatial_mean, uniformity_loss
from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.functional.ssim_map import SSIMSettings
from basicsr_ext.losses.cria_maps import CRITERIA, CriteriaMaps, Judge, MapSettings, check_names, check_numbers
from basicsr_ext.losses.vgg_features import VGGFeatures

PERCEPTUAL = ('perc_b', 'perc_t')


@LOSS_REGISTRY.register()
class CriaLoss(nn.Module):
    """Pulls the positives towards the anchor in the align view, and the negatives away from it in the unif view.

    Criteria: ``pix`` (distance of colours), ``ssim`` (1 - SSIM), ``perc_b`` and ``perc_t`` (features of VGG-19's lower layers
    and of its top), ``adv`` (the generator's loss under the discriminator). Every row of Tables V and VI is an option:
    ``align_weight: 0`` or ``unif_weight: 0`` leaves that term out; ``anchor: adv, positives: [perc_t], negatives: [pix, ssim,
    perc_b]`` changes the anchor.

    Args:
        align_weight: Weight lambda_a of Eq. 8's term; 0.01 in the paper (after Eq. 11).
        unif_weight: Weight lambda_u of Eq. 9's term; 0.01 in the paper, too.
        unif_scale: A further factor of Eq. 9's term, ``lam`` of Fig. 4's listing. Eq. 11 does not have it: 1 leaves it out.
        anchor: The criterion that the others are compared with.
        positives: Criteria that shall agree with it.
        negatives: Criteria that shall differ from it.
        eta: Power of Eq. 8; 2 in Fig. 4.
        t: Temperature of Eq. 9; 2 in Fig. 4.
        scales: Criterion -> factor, since criteria are compared as numbers; default 1.
        mask_grad: Whether the projector learns from the criteria, too; it could lower the loss by moving the masks.
        logged: Criteria whose means are logged besides those that a view compares; they cost time only in iterations that
            are printed. Default: all, but perceptual ones only where one of them is compared; VGG-19 then reaches up to the
            top layers. An empty list: none.
        pixel_norm: ``l2`` (Euclidean) or ``l1``: what ``pix`` measures.
        feature_norm: ``l1`` or ``l2``: what ``perc_b`` and ``perc_t`` measure.
        channels: What channels' differences become: their ``mean``, or their ``max``.
        enlargement: ``bilinear`` or ``nearest``: how features' and the discriminator's maps get the size of the image.
        maps: False: a criterion is one number an image, the mean of its map.
        bottom_layers: VGG-19's layers of ``perc_b``, of which the mean is taken.
        top_layers: Of ``perc_t``.
        layer_weights: Layer -> its weight in that mean; default 1.
        ssim_window: Side of the Gaussian window of ``ssim`` in pixels, odd.
        ssim_sigma: Its standard deviation in pixels.
        ssim_k1: Constant of SSIM.
        ssim_k2: Constant of SSIM.
        ssim_range: Largest minus smallest value of the images, which the constants are relative to.
        gan_type: What ``adv`` measures, ``vanilla``, ``wgan_softplus`` or ``lsgan``: that of ``train.gan_opt``.
        vgg_weights: As ``weights`` of :class:`~basicsr_ext.losses.vgg_features.VGGFeatures`.

    Raises:
        UserError: A criterion is unknown, the anchor is compared with itself, a value is out of its range, or VGG-19's
            weights cannot be found.
    """

    only_as = 'cria_opt'  # the option that takes it, since it is called with two views
    extractor = VGGFeatures  # (layers, weights) -> network; a subclass may take another one

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
        scales: Mapping[str, float] | None = None,
        mask_grad: bool = False,
        logged: Sequence[str] | None = None,
        pixel_norm: Literal['l2', 'l1'] = 'l2',
        feature_norm: Literal['l1', 'l2'] = 'l1',
        channels: Literal['mean', 'max'] = 'mean',
        enlargement: Literal['bilinear', 'nearest'] = 'bilinear',
        maps: bool = True,
        bottom_layers: Sequence[str] = ('relu1_2', 'relu2_2'),
        top_layers: Sequence[str] = ('relu5_4',),
        layer_weights: Mapping[str, float] | None = None,
        ssim_window: int = 11,
        ssim_sigma: float = 1.5,
        ssim_k1: float = 0.01,
        ssim_k2: float = 0.03,
        ssim_range: float = 1.0,
        gan_type: Literal['vanilla', 'wgan_softplus', 'lsgan'] = 'vanilla',
        vgg_weights: str | None = None,
    ):
        super().__init__()
        check_names('anchor', [anchor])
        for argument, names in (('positives', positives), ('negatives', negatives), ('logged', logged or ())):
            check_names(argument, names)
            if argument != 'logged' and anchor in names:
                raise UserError(f'{argument} of CriaLoss: {anchor} is the anchor, and cannot be compared with itself.')
        check_numbers(1, eta=eta)  # below 1 the gradient of equal criteria is infinite
        check_numbers(0, t=t, above=True)
        check_numbers(0, align_weight=align_weight, unif_weight=unif_weight, unif_scale=unif_scale)
        try:
            ssim = SSIMSettings(ssim_range, ssim_k1, ssim_k2, ssim_window, ssim_sigma)
        except (ValueError, TypeError) as error:
            raise UserError(f'ssim_window, ssim_sigma, ssim_k1, ssim_k2 and ssim_range of CriaLoss: {error}') from None
        self.align_weight = align_weight
        self.unif_weight = unif_weight * unif_scale
        self.positives = tuple(positives) if self.align_weight else ()
        self.negatives = tuple(negatives) if self.unif_weight else ()
        self.anchor = anchor
        self.eta = eta
        self.t = t
        self.mask_grad = mask_grad
        has_features = any(name in PERCEPTUAL for name in (*self.used, *(logged or ())))
        free = [name for name in CRITERIA if has_features or name not in PERCEPTUAL]
        self.logged = tuple(free if logged is None else logged)
        layers = {
            name: {layer: (layer_weights or {}).get(layer, 1.0) for layer in chosen}
            for name, chosen in zip(PERCEPTUAL, (bottom_layers, top_layers), strict=True)
        }
        _check_weighted(layer_weights or {}, layers)
        settings = MapSettings(
            pixel_norm, feature_norm, channels, enlargement, maps, gan_type, ssim, layers, dict(scales or {})
        )
        measured = [layer for name in PERCEPTUAL if name in (*self.used, *self.logged) for layer in layers[name]]
        self.criteria = CriteriaMaps(settings, self.extractor(measured, vgg_weights) if measured else None)

    @property
    def used(self) -> tuple[str, ...]:
        """Criteria that are compared."""
        if not self.positives and not self.negatives:
            return ()
        return tuple(name for name in CRITERIA if name in (self.anchor, *self.positives, *self.negatives))

    @property
    def compared(self) -> dict[str, tuple[str, ...]]:
        """View -> criteria that are compared in it."""
        others = {'align': self.positives, 'unif': self.negatives}
        return {view: (self.anchor, *names) if names else () for view, names in others.items()}

    def forward(
        self, align: Tensor, unif: Tensor, target: Tensor, mask: Tensor | None = None, judge: Judge | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compares the criteria of both views.

        Args:
            align: (N, 3, H, W) in [0, 1].
            unif: Of the same shape.
            target: HR images of the same shape.
            mask: S, (N, 1, H, W) in [0, 1]; ``None`` (no projector) counts both regions as everything.
            judge: Gives the discriminator's logits of images; needed by ``adv``.

        Returns:
            Weighted losses ``l_align`` and ``l_unif``, those that are asked for; and the means of compared criteria, such as
            ``c_pix_align``.

        Raises:
            UserError: ``adv`` is compared without a discriminator.
        """
        if mask is not None and not self.mask_grad:
            mask = mask.detach()
        wanted = self.criteria.wanted(target, self.used)
        losses, means = {}, {}
        if self.positives:
            maps = self.criteria(align, target, wanted, self.compared['align'], judge)
            means.update(_means(maps, 'align'))
            loss = align_loss(maps[self.anchor], [maps[name] for name in self.positives], self.eta)
            losses['l_align'] = self.align_weight * spatial_mean(loss, mask)
        if self.negatives:
            maps = self.criteria(unif, target, wanted, self.compared['unif'], judge)
            means.update(_means(maps, 'unif'))
            loss = uniformity_loss(maps[self.anchor], [maps[name] for name in self.negatives], self.t)
            inverse = None if mask is None else 1 - mask
            losses['l_unif'] = self.unif_weight / 2 * spatial_mean(loss, inverse)
        return losses, means

    @torch.no_grad()
    def measure(self, align: Tensor, unif: Tensor, target: Tensor, judge: Judge | None = None) -> dict[str, Tensor]:
        """Returns the means of ``logged`` criteria that the views do not compare; arguments as of :meth:`forward`.

        Args:
            align: The align view.
            unif: The unif view.
            target: HR images.
            judge: Without it ``adv`` is left out. Nothing of the discriminator should move when it is asked.
        """
        names = [name for name in self.logged if name != 'adv' or judge is not None]
        further = {view: [name for name in names if name not in used] for view, used in self.compared.items()}
        means: dict[str, Tensor] = {}
        with exact_float32(target.device):
            wanted = self.criteria.wanted(target, sorted({*further['align'], *further['unif']}))
            for view, image in (('align', align), ('unif', unif)):
                means.update(_means(self.criteria(image, target, wanted, further[view], judge), view))
        return means


def _means(maps: Mapping[str, Tensor], view: str) -> dict[str, Tensor]:
    return {f'c_{name}_{view}': value.detach().mean() for name, value in maps.items()}


def _check_weighted(weights: Mapping[str, float], layers: Mapping[str, Mapping[str, float]]) -> None:
    known = [layer for chosen in layers.values() for layer in chosen]
    if unknown := [layer for layer in weights if layer not in known]:
        raise UserError(
            f'layer_weights of CriaLoss: expected layers among those of bottom_layers and top_layers ({", ".join(known)}), '
            f'found {unknown[0]!r}.'
        )
