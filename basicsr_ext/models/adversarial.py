"""The base of models with a discriminator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from basicsr.losses import build_loss

from basicsr_ext.errors import UserError
from basicsr_ext.models.training_model import Losses, TrainingModel


class AdversarialModel(TrainingModel):
    """Adds a discriminator ``net_d``, the player ``d``, where ``train.gan_opt`` asks for one.

    Options: those of :class:`~basicsr_ext.models.training_model.TrainingModel`, ``network_d``, ``train.optim_d`` and
        ``train.gan_opt``.
    """

    optional_network_names = ('d',)
    optional_player_names = ('d',)
    loss_keys = (*TrainingModel.loss_keys, 'gan_opt')

    @classmethod
    def check_combination(cls, opt: Mapping[str, Any]) -> None:
        super().check_combination(opt)
        if opt['train'].get('gan_opt'):
            for place, key in ((opt, 'network_d'), (opt['train'], 'optim_d')):
                if not place.get(key):
                    raise UserError(
                        f'{"train." if key == "optim_d" else ""}{key}: expected a block, since train.gan_opt needs a '
                        'discriminator. Add it, or remove train.gan_opt.'
                    )

    def build_criteria(self) -> None:
        super().build_criteria()
        if self.opt['train'].get('gan_opt'):
            self.criteria['gan'] = build_loss(self.opt['train']['gan_opt']).to(self.device)

    def setup_players(self) -> None:
        super().setup_players()
        self.add_discriminator()

    def add_discriminator(self) -> None:
        """Makes ``net_d`` and its player, where there is an adversarial loss."""
        if 'gan' in self.criteria:
            self.net_d = self.saved_networks['net_d'] = self.build_network('d')
            self.net_d.train()
            self.add_player('d', self.net_d)

    def discriminate(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the discriminator's logits of images, with gradients for the images and none for its weights."""
        player = self.players['d']
        with player.frozen():
            # Not through the view of several ranks, which has nothing to exchange here: it copies buffers before each forward,
            # and batch normalisation cannot go back through an earlier one then.
            return self.forward(replace(player, network=self.net_d) if self.opt['dist'] else player, images)

    @torch.no_grad()
    def discriminate_no_grad(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the discriminator's logits of images, to look at, in float32: nothing of it moves, statistics or norms."""
        mode = self.net_d.training
        self.net_d.eval()
        try:
            return self.forward(replace(self.players['d'], network=self.net_d), images, exact=True)
        finally:
            self.net_d.train(mode)

    def adversarial_loss(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the generator's loss of images (N, C, H, W) that shall pass as real."""
        return self.criteria['gan'](self.discriminate(images), True, is_disc=False)

    def update_discriminator(self, real: torch.Tensor, fake: torch.Tensor) -> None:
        """Takes one step of the discriminator: real images are real, made ones are not.

        Args:
            real: (N, C, H, W).
            fake: Of the same shape; no gradient flows into what made them.
        """
        self.update(self.players['d'], self._discriminator_losses(real, fake.detach()))

    def _discriminator_losses(self, real: torch.Tensor, fake: torch.Tensor) -> Iterator[Losses]:
        for name, images in (('real', real), ('fake', fake)):
            logits = self.forward(self.players['d'], images)
            self.log(f'out_d_{name}', logits.mean())
            yield {f'l_d_{name}': self.criteria['gan'](logits, name == 'real', is_disc=True)}
