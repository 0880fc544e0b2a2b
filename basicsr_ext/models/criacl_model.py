"""Criteria comparative learning (Cria-CL, arXiv 2207.12767)."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from basicsr.archs import ARCH_REGISTRY
from basicsr.losses import build_loss
from basicsr.utils.registry import MODEL_REGISTRY

from basicsr_ext.archs.criaclnet_arch import Views
from basicsr_ext.errors import UserError
from basicsr_ext.losses.cria_loss import CriaLoss
from basicsr_ext.models.adversarial import AdversarialModel


@MODEL_REGISTRY.register()
class CriaCLModel(AdversarialModel):
    """Trains a network of two views (:class:`~basicsr_ext.archs.criaclnet_arch.CriaCLNet`), then its discriminator.

    Eq. 11: ``pixel_opt``, ``perceptual_opt`` and ``gan_opt`` on the result, ``cria_opt``
    (:class:`~basicsr_ext.losses.cria_loss.CriaLoss`) on the views. What is left out is not computed: the rows of Table V.

    Options: those of :class:`~basicsr_ext.models.adversarial.AdversarialModel`, and ``train.cria_opt``.
    """

    loss_keys = (*AdversarialModel.loss_keys, 'cria_opt')

    @classmethod
    def check_together(cls, opt: Mapping[str, Any]) -> None:
        super().check_together(opt)
        network = ARCH_REGISTRY.get(opt['network_g']['type'])
        if not getattr(network, 'has_views', False):
            raise UserError(
                f'network_g.type: CriaCLModel needs a network of two views: expected CriaCLNet, found {network.__name__}.'
            )
        if cria := opt['train'].get('cria_opt'):
            _check_adversarial_criterion(cria, opt['train'].get('gan_opt'))

    def build_criteria(self) -> None:
        super().build_criteria()
        if self.opt['train'].get('cria_opt'):
            self.criteria['cria'] = build_loss(self.opt['train']['cria_opt']).to(self.device)

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
            mask = output.mask if getattr(self.net_g, 'projector', None) is not None else None
            compared, means = self.criteria['cria'](output.align, output.unif, gt, mask, self.judge)
            losses.update(compared)
            for name, value in means.items():
                self.log(name, value)
        return losses


def _check_adversarial_criterion(cria: Mapping[str, Any], gan: Mapping[str, Any] | None) -> None:
    """Refuses a comparison with ``adv`` without the loss that it is.

    Raises:
        UserError: There is no ``gan_opt``, or it is another one.
    """
    defaults = {name: parameter.default for name, parameter in signature(CriaLoss).parameters.items()}
    chosen = {**defaults, **cria}
    positives = chosen['positives'] if chosen['align_weight'] else ()
    negatives = chosen['negatives'] if chosen['unif_weight'] and chosen['unif_scale'] else ()
    if not (positives or negatives) or 'adv' not in (chosen['anchor'], *positives, *negatives):
        return
    if not gan:
        raise UserError('train.gan_opt: expected a block, since train.cria_opt compares the criterion adv.')
    if gan.get('gan_type') != 'vanilla':
        raise UserError(
            'train.gan_opt.gan_type: expected vanilla, which is what the criterion adv of train.cria_opt measures, found '
            f'{gan.get("gan_type")}. Change it, or leave adv out of the anchor, positives and negatives.'
        )
