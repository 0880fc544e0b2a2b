"""Criteria comparative learning (Cria-CL, arXiv 2207.12767)."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from basicsr.archs import ARCH_REGISTRY
from basicsr.losses import build_loss
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY

from basicsr_ext.archs.criaclnet_arch import Views
from basicsr_ext.errors import UserError
from basicsr_ext.losses.cria_loss import CriaLoss
from basicsr_ext.models.adversarial import AdversarialModel
from basicsr_ext.models.shared_weights import share_fixed_weights


@MODEL_REGISTRY.register()
class CriaCLModel(AdversarialModel):
    """Trains a network of two views (:class:`~basicsr_ext.archs.criaclnet_arch.CriaCLNet`), then its discriminator.

    Eq. 11: ``pixel_opt``, ``perceptual_opt`` and ``gan_opt`` on the result, ``cria_opt``
    (:class:`~basicsr_ext.losses.cria_loss.CriaLoss`) on the views. What is left out is not computed: the rows of Table V.

    Options: those of :class:`~basicsr_ext.models.adversarial.AdversarialModel`, and ``train.cria_opt``.
    """

    loss_keys = (*AdversarialModel.loss_keys, 'cria_opt')

    @classmethod
    def check_combination(cls, opt: Mapping[str, Any]) -> None:
        super().check_combination(opt)
        _check_blocks(opt)

    def build_criteria(self) -> None:
        super().build_criteria()
        if self.opt['train'].get('cria_opt'):
            self.criteria['cria'] = build_loss(self.opt['train']['cria_opt']).to(self.device)
        share_fixed_weights(self.criteria)

    def training_step(self, batch: dict[str, Any], iteration: int) -> None:
        """Updates the network with every loss, then the discriminator on its result."""
        lq, gt = self.prepare_batch(batch, iteration)
        player = self.players['g']
        self.update(player, self._losses_of_parts(player, lq, gt, return_views=True))
        if 'gan' in self.criteria:
            self.update_discriminator(gt, self.output)

    def generator_losses(self, output: Views, gt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the named, weighted losses of Eq. 11.

        Args:
            output: What the network gave; from here on ``self.output`` is the result alone.
            gt: (N, 3, H, W) in [0, 1].
        """
        self.output = output.sr
        losses = super().generator_losses(output.sr, gt)
        if 'gan' in self.criteria:
            losses['l_g_gan'] = self.adversarial_loss(output.sr)
        self.log('mask', output.mask.mean())
        if 'cria' in self.criteria:
            losses.update(self._compare(output, gt))
        return losses

    def _compare(self, views: Views, gt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the losses of the views, and logs the criteria."""
        cria, has_judge = self.criteria['cria'], 'd' in self.players
        mask = views.mask if getattr(self.net_g, 'projector', None) is not None else None
        losses, means = cria(views.align, views.unif, gt, mask, self.discriminate if has_judge else None)
        if self.iteration % self.opt['logger']['print_freq'] == 0:
            means.update(cria.measure(views.align, views.unif, gt, self.discriminate_no_grad if has_judge else None))
        for name, value in means.items():
            self.log(name, value)
        return losses


def _check_blocks(opt: Mapping[str, Any]) -> None:
    """Refuses a network without views, and a comparison with ``adv`` without the loss that it is.

    Raises:
        UserError: Begins with the key path of the option to change.
    """
    network = ARCH_REGISTRY.get(opt['network_g']['type'])
    if not getattr(network, 'has_views', False):
        raise UserError(
            f'network_g.type: CriaCLModel needs a network of two views: expected CriaCLNet, found {network.__name__}.'
        )
    if cria := opt['train'].get('cria_opt'):
        loss = LOSS_REGISTRY.get(cria['type'])
        if not issubclass(loss, CriaLoss):
            raise UserError(f'train.cria_opt.type: expected CriaLoss, which compares criteria, found {loss.__name__}.')
        _check_adversarial_criterion({**_defaults(loss), **cria}, opt['train'].get('gan_opt'))


def _defaults(loss: type) -> dict[str, Any]:
    return {name: parameter.default for name, parameter in signature(loss).parameters.items()}


def _check_adversarial_criterion(cria: Mapping[str, Any], gan: Mapping[str, Any] | None) -> None:
    positives = cria['positives'] if cria['align_weight'] else ()
    negatives = cria['negatives'] if cria['unif_weight'] and cria['unif_scale'] else ()
    compared = (cria['anchor'], *positives, *negatives) if positives or negatives else ()
    if 'adv' not in (*compared, *(cria['logged'] or ())):
        return
    if not gan:
        raise UserError(
            'train.gan_opt: expected a block, since train.cria_opt measures the criterion adv. Add it, or leave adv out of '
            'the anchor, positives, negatives and logged.'
        )
    if gan.get('gan_type') != cria['gan_type']:
        raise UserError(
            f'train.cria_opt.gan_type: expected that of train.gan_opt, since the criterion adv is its loss: found '
            f'{cria["gan_type"]} and {gan.get("gan_type")}. Change one of them, or leave adv out of the anchor, positives, '
            'negatives and logged.'
        )
