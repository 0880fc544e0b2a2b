"""Low-frequency constrained super-resolution with PD-ADMM (LFC-SR, arXiv 2208.03324)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from basicsr.archs import ARCH_REGISTRY
from basicsr.losses import build_loss
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from torch import Tensor, nn

from basicsr_ext.archs.lfcsr_arch import Stages
from basicsr_ext.errors import UserError
from basicsr_ext.functional.admm import dual_update, penalty, regularizer
from basicsr_ext.functional.wavelet import haar_low
from basicsr_ext.models.adversarial import AdversarialModel
from basicsr_ext.models.lfcsr.options import LFCSROptions
from basicsr_ext.models.lfcsr.validation import BANDS, StageValidation, bands_of
from basicsr_ext.models.players import Player
from basicsr_ext.models.step_options import StepOptions

# Those of Eq. 6, and what may stand beside them or in their place.
PERCEPTUAL_LOSSES = ('contextual_opt', 'down_opt', 'gan_opt', 'perceptual_opt', 'pixel_p_opt')


@MODEL_REGISTRY.register()
class LFCSRModel(StageValidation, AdversarialModel):
    """Trains an :class:`~basicsr_ext.archs.lfcsr_arch.LFCSR`: both stages together, then in turn under a constraint.

    In pretraining the player ``g`` moves both stages, with ``pixel_opt`` on the image of each. From
    ``train.lfcsr.admm_start_iter`` on the players ``o`` and ``p`` move a stage each, and ``d`` the discriminator: stage O
    with ``pixel_opt``; stage P with what there is of ``contextual_opt``, ``down_opt`` (on images reduced to the size of the
    input), ``gan_opt``, ``perceptual_opt`` and ``pixel_p_opt`` (on the image itself). Each player has its
    ``train.optim_<player>``, and its schedule, which is counted from the beginning of its phase, as is a warm-up.

    Logged: every loss, ``residual`` (mean absolute difference of the constrained bands) and, under ADMM, ``dual`` (mean
    absolute value of the dual variable) and ``dual_skipped`` (how many of its elements stayed as they were since the last
    line, as the images were not finite there; a mean over the ranks).

    Options: those of :class:`~basicsr_ext.models.adversarial.AdversarialModel`, and ``train.lfcsr``
    (:class:`~basicsr_ext.models.lfcsr.options.LFCSROptions`).
    """

    player_names = ()
    optional_player_names = ('g', 'o', 'p', 'd')
    loss_keys = ('pixel_opt', *PERCEPTUAL_LOSSES)
    train_blocks = {'lfcsr': LFCSROptions | None}  # noqa: RUF012

    # ---- building ------------------------------------------------------------------------------------------------

    def init_training_settings(self) -> None:
        self.lfcsr = LFCSROptions.parse(self.opt['train'].get('lfcsr'), 'train.lfcsr')
        self.dual: Tensor | float = 0.0  # s of Eq. 12c, for the bands of this rank's batch
        self._dual_skipped: Tensor | float = 0.0  # elements of s that stayed since the last printed line
        super().init_training_settings()

    @classmethod
    def check_combination(cls, opt: Mapping[str, Any]) -> None:
        super().check_combination(opt)
        train = opt['train']
        network = ARCH_REGISTRY.get(opt['network_g']['type'])
        if not getattr(network, 'has_stages', False):
            raise UserError(
                f'network_g.type: LFCSRModel needs a network of two stages: expected LFCSR, found {network.__name__}.'
            )
        lfcsr = LFCSROptions.parse(train.get('lfcsr'), 'train.lfcsr')
        lfcsr.check(opt['network_g'].get('order', 'op'))
        players = lfcsr.players(train['total_iter'])
        start = f'admm_start_iter ({lfcsr.admm_start_iter}) of train.lfcsr'
        missing = [f'optim_{player}' for player in players if not train.get(f'optim_{player}')]
        missing += ['pixel_opt'] if not train.get('pixel_opt') else []
        if missing:
            raise UserError(
                f'train.{missing[0]}: expected a block, since with {start} and total_iter ({train["total_iter"]}) the players '
                f'{", ".join(players)} move. Missing: {", ".join(f"train.{key}" for key in missing)}.'
            )
        if 'p' in players and not any(train.get(key) for key in PERCEPTUAL_LOSSES):
            raise UserError(
                f'train.contextual_opt: expected a loss of the perceptual stage, which {start} trains by itself: one of '
                f'{", ".join(PERCEPTUAL_LOSSES)}.'
            )
        if train.get('down_opt') and not _is_power_of_two(opt['scale']):
            raise UserError(
                f'train.down_opt: wavelets reduce images by powers of two, and scale is {opt["scale"]}; remove it.'
            )
        step = StepOptions.parse({k: train[k] for k in StepOptions.model_fields if k in train}, 'train')
        step.check_accumulation(dict(opt), len(players))

    def build_criteria(self) -> None:
        super().build_criteria()
        for name in ('pixel_p', 'contextual', 'down'):
            if self.opt['train'].get(f'{name}_opt'):
                self.criteria[name] = build_loss(self.opt['train'][f'{name}_opt']).to(self.device)

    def setup_players(self) -> None:
        start, total = self.lfcsr.admm_start_iter, self.opt['train']['total_iter']
        players = self._players_made()
        get_root_logger().info(
            f'LFC-SR: both stages together for {min(start, total)} iterations, then in turn for {max(0, total - start)}.'
        )
        for name in players:
            self.add_player(name, self.trained_by(name, {'g': self.net_g}))
        if 'p' in players:
            self.add_discriminator()

    def _players_made(self) -> tuple[str, ...]:
        """Those that move, and where a run is pretraining alone, those that would move if it went on for longer.

        A checkpoint then has the same players whatever ``total_iter`` is.
        """
        train, start = self.opt['train'], self.lfcsr.admm_start_iter
        has_turns = self.step.accumulate == 1 and all(
            train.get(f'optim_{player}') and (train.get(f'scheduler_{player}') or train.get('scheduler'))
            for player in 'op'
        )
        return self.lfcsr.players(max(train['total_iter'], start + 1) if has_turns else train['total_iter'])

    @classmethod
    def trained_by(cls, player: str, networks: Mapping[str, nn.Module]) -> nn.Module | None:
        if player in ('o', 'p'):
            return getattr(networks.get('g'), f'stage_{player}', None)
        return super().trained_by(player, networks)

    # ---- phases --------------------------------------------------------------------------------------------------

    def moving_players(self, iteration: int) -> list[Player]:
        """Returns the players of an iteration's phase."""
        pretraining = iteration <= self.lfcsr.admm_start_iter
        return [player for name, player in self.players.items() if (name == 'g') == pretraining]

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Moves the schedulers of the phase's players, counted from its beginning; those of the other phase rest."""
        players, start = self.moving_players(current_iter), self.lfcsr.admm_start_iter
        everyone = self.schedulers, self.optimizers
        self.schedulers, self.optimizers = [p.scheduler for p in players], [p.optimizer for p in players]
        try:
            super().update_learning_rate(current_iter - (start if current_iter > start else 0), warmup_iter)
        finally:
            self.schedulers, self.optimizers = everyone

    def get_current_learning_rate(self) -> list[float]:
        """Returns the learning rates of the players that move."""
        return [g['lr'] for player in self.moving_players(self.iteration) for g in player.optimizer.param_groups]

    def training_step(self, batch: dict[str, Any], iteration: int) -> None:
        """Trains both stages together, or one after the other."""
        lq, gt = self.prepare_batch(batch, iteration)
        if iteration <= self.lfcsr.admm_start_iter:
            player = self.players['g']
            self.update(player, self._losses_of_parts(player, lq, gt, return_stages=True))
        else:
            self.take_turns(lq, gt)

    def generator_losses(self, output: Stages, gt: Tensor) -> dict[str, Tensor]:
        """Returns the losses of pretraining: L1(Y) + L1(Y').

        Args:
            output: Both images.
            gt: Target of their shape.
        """
        with torch.no_grad():
            self.log('residual', self._residual(*output))
        return {
            'l_o_pix': self.criteria['pixel'](output.objective, gt),
            'l_p_pix': self.criteria['pixel'](output.perceptual, gt),
        }

    # ---- the stages in turn (Eqs. 11-13) -------------------------------------------------------------------------

    def take_turns(self, lq: Tensor, gt: Tensor) -> None:
        """Takes a step of the stage that runs second, one of the first with the second's new weights, then one of s.

        Nothing flows from one stage's loss into the other's weights, so that the image that the first stage made for step 1
        is still valid, with its graph, in step 2. A backward pass counted as two forwards, that is 4 O + 5 P instead of the
        5 O + 5 P of three full forwards (in the order ``po`` 5 O + 4 P).

        Args:
            lq: Input, (N, C, H, W) in [0, 1].
            gt: Target.
        """
        first, second = (self.players[name] for name in self.net_g.order)
        plan = self.lfcsr.forwards

        with torch.no_grad() if plan == 'lean' else nullcontext():
            front = self.forward(first, lq)
        back = self.forward(second, front.detach())
        taken = self._step_of_stage(second, back, front, gt)

        if plan != 'shared':
            front = self.forward(first, lq)
        if plan == 'full' or self.lfcsr.constrains(first.name):
            with nullcontext() if plan == 'full' else torch.no_grad():
                back = self.forward(second, front.detach())
        taken &= self._step_of_stage(first, front, back, gt)

        if plan == 'full' or self.lfcsr.constraint == 'admm':
            # in float32: s adds these differences up
            with nullcontext() if plan == 'full' else torch.no_grad():
                front = self.forward(first, lq, exact=True)
                back = self.forward(second, front.detach(), exact=True)
        images = self.net_g.by_role(front.detach(), back.detach())
        self.log('residual', self._residual(*images))
        if self.lfcsr.constraint == 'admm':
            self._step_of_dual(images, taken)

    def _step_of_stage(self, player: Player, image: Tensor, other: Tensor, gt: Tensor) -> bool:
        """Takes a step of one stage, the other one held fixed.

        Args:
            player: ``o`` or ``p``.
            image: What it made, with the graph.
            other: What the other stage made.
            gt: Target.
        """
        losses = self._objective_losses(image, gt) if player.name == 'o' else self._perceptual_losses(image, gt)
        if self.lfcsr.constrains(player.name):
            objective, perceptual = (image, other.detach()) if player.name == 'o' else (other.detach(), image)
            losses[f'l_{player.name}_constraint'] = self._constraint(Stages(objective, perceptual))
        return self.update(player, losses)

    def _objective_losses(self, image: Tensor, gt: Tensor) -> dict[str, Tensor]:
        return {'l_o_pix': self.criteria['pixel'](image, gt)}

    def _perceptual_losses(self, image: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Losses of stage P (Eq. 6); the discriminator moves before it judges."""
        losses = {}
        if 'pixel_p' in self.criteria:
            losses['l_p_pix'] = self.criteria['pixel_p'](image, gt)
        if 'contextual' in self.criteria:
            losses['l_p_context'] = self.criteria['contextual'](image, gt)
        if 'down' in self.criteria:
            losses['l_p_down'] = self.criteria['down'](self._reduced(image), self._reduced(gt))
        if 'perceptual' in self.criteria:
            losses.update(self.perceptual_losses(image, gt))
        if 'gan' in self.criteria:
            self.update_discriminator(gt, image)
            losses['l_p_gan'] = self.adversarial_loss(image)
        return losses

    def _reduced(self, images: Tensor) -> Tensor:
        """``f_down`` of Eq. 6: the LL band, after as many levels as it takes to the size of the input, as an image."""
        return haar_low(images, int(math.log2(self.opt['scale']))) / self.opt['scale']

    def _bands(self, images: Tensor) -> Tensor:
        """What shall be equal in the images of both stages, (N, C, H, W) in [0, 1]."""
        return BANDS[bands_of(self.opt)](images)

    def _residual(self, objective: Tensor, perceptual: Tensor) -> Tensor:
        return (self._bands(perceptual) - self._bands(objective)).abs().mean()

    def _constraint(self, images: Stages) -> Tensor:
        bands = self._bands(images.perceptual), self._bands(images.objective)
        if self.lfcsr.constraint == 'regularizer':
            return regularizer(*bands, self.lfcsr.regularizer_weight, self.lfcsr.regularizer_norm)
        self._check_size(bands[0])
        return penalty(*bands, self.dual, self.lfcsr.rho)

    def _check_size(self, bands: Tensor) -> None:
        """Refuses batches of another size than the one that s belongs to."""
        if isinstance(self.dual, Tensor) and self.dual.shape != bands.shape:
            expected, found = ('x'.join(map(str, shape)) for shape in (self.dual.shape, bands.shape))
            raise UserError(
                'train.lfcsr.constraint: with admm the dual variable belongs to the bands of a batch: expected '
                f'{expected}, as before, found {found}. Keep datasets.train.gt_size and batch_size_per_gpu as they were, '
                'with whole batches only; or choose regularizer.'
            )

    def _step_of_dual(self, images: Stages, taken: bool) -> None:
        """Moves s (Eq. 12c), unless a step of one of the stages was skipped: by the guard, or since gradients overflowed.

        Elements where the images are not finite stay, and are counted.
        """
        if taken:
            moved = dual_update(self._bands(images.perceptual), self._bands(images.objective), self.dual)
            finite = moved.isfinite()
            self.dual = torch.where(finite, moved, self.dual)
            self._dual_skipped = self._dual_skipped + (~finite).sum()
        self.log('dual', self.dual.abs().mean() if isinstance(self.dual, Tensor) else 0.0)

    def get_current_log(self) -> OrderedDict[str, float]:
        """Returns what is logged; warns where elements of s were left as they are."""
        if 'dual' in self._logged:
            self.log('dual_skipped', self._dual_skipped)
            self._dual_skipped = 0.0
        log = super().get_current_log()
        if log.get('dual_skipped', 0) > 0:
            get_root_logger().warning(
                f'{log["dual_skipped"]:.0f} elements of the dual variable (a mean over the ranks) were left as they are since '
                'the last line: the images of the stages are not finite there. Lower the learning rate.'
            )
        return log

    # ---- state ---------------------------------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        state = super().extra_state()
        if isinstance(self.dual, Tensor):
            state.update(dual=self.dual.cpu(), dual_skipped=float(self._dual_skipped))
        return state

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        self.dual = state['dual'].to(self.device) if 'dual' in state else 0.0
        self._dual_skipped = state.get('dual_skipped', 0.0)

    def shared_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns the first rank's extra state without the dual variable, which belongs to a batch of its size."""
        if 'dual' in state:
            get_root_logger().warning('The dual variable, which each rank keeps for its batch, starts again at 0.')
        return {key: value for key, value in super().shared_state(state).items() if key != 'dual'}


def _is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0
