"""The block ``train.lfcsr``."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field

from basicsr_ext.errors import UserError
from basicsr_ext.options.config import OptionBlock


class LFCSROptions(OptionBlock):
    """``train.lfcsr``: phases of the training, and the constraint between the stages.

    Attributes:
        admm_start_iter: Iterations of pretraining, before the stages are trained in turn; from ``total_iter`` on there is
            pretraining only, and with 0 none.
        constraint: ``admm`` (Eqs. 11-13), ``regularizer`` (Eq. 7, without a dual variable, its gradient to the perceptual
            stage alone), or ``none``.
        low_frequency: What shall be equal: the LL band of a Haar transform, or the image under a Gaussian blur of 21x21
            pixels, sigma 3. With ``order: po`` of the network it is the Haar bands HL, LH and HH.
        rho: Weight of the penalty; published: 1e-4 for images in [0, 255], which is this default for [0, 1].
        regularizer_weight: lambda_r of the regularizer, for images in [0, 1].
        regularizer_norm: What it is of: ``l1``, the mean absolute difference, as in Eq. 7; or ``l2``, the mean square, as the
            penalty of ``admm`` is.
        forwards: ``shared`` runs a stage again only where its weights have changed, and records a graph only where one is
            needed; ``lean`` runs the first stage once more, so that never more than one stage's graph is in memory;
            ``full`` runs both before each step and after the last. The updates are the same to the bit.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    admm_start_iter: int = Field(0, ge=0)
    constraint: Literal['none', 'regularizer', 'admm'] = 'admm'
    low_frequency: Literal['haar', 'gaussian'] = 'haar'
    rho: float = Field(6.5025, gt=0)
    regularizer_weight: float | None = Field(None, gt=0)
    regularizer_norm: Literal['l1', 'l2'] = 'l1'
    forwards: Literal['shared', 'lean', 'full'] = 'shared'

    def check(self, order: str) -> None:
        """Refuses options that do not go together.

        Args:
            order: Of the stages, ``op`` or ``po``.

        Raises:
            UserError: Names the option to change.
        """
        if self.constraint == 'regularizer' and self.regularizer_weight is None:
            raise UserError(
                'train.lfcsr.regularizer_weight: expected a positive number, since constraint: regularizer weighs with it.'
            )
        if self.low_frequency == 'gaussian' and order == 'po':
            raise UserError(
                'train.lfcsr.low_frequency: expected haar, since the order po of network_g constrains the bands HL, LH and HH.'
            )

    def players(self, total_iter: int) -> tuple[str, ...]:
        """Names of the players that move in a run of so many iterations, apart from the discriminator."""
        pretraining = ('g',) if self.admm_start_iter > 0 else ()
        return pretraining + (('o', 'p') if self.admm_start_iter < total_iter else ())

    def constrains(self, stage: str) -> bool:
        """Whether a stage, ``o`` or ``p``, is drawn towards the other one."""
        return self.constraint == 'admm' or (self.constraint == 'regularizer' and stage == 'p')
