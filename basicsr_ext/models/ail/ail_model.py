"""Adaptive importance learning (AIL, IJCV 2020)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from basicsr_ext.data.sample_id import iterations_per_epoch
from basicsr_ext.distributed import Ranks
from basicsr_ext.errors import UserError
from basicsr_ext.functional.importance import round_of
from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.models.ail.importance import DirectImportance, Importance, RecursiveImportance
from basicsr_ext.models.ail.map_files import ImportanceMaps
from basicsr_ext.models.ail.options import AILOptions
from basicsr_ext.models.ail.rounds import in_words, write_picture, write_record
from basicsr_ext.models.ail.whole_images import WholeImages
from basicsr_ext.models.teacher import check_alike
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.requirements import requirements_of


@MODEL_REGISTRY.register()
class AILModel(TrainingModel):
    """Trains in rounds, easy pixels first: every pixel of output and target is multiplied by its importance.

    Round 0 takes the importance from a stronger network's errors (Eqs. 8-9); each further round raises it where the student
    of the round before is good (Theorem 1, Eq. 7). A round begins with that update, and with the first learning rate again.

    Losses: ``pixel_opt``, computed on weighted images; ``MSELoss`` with ``reduction: sum`` is the paper's.

    Options: those of :class:`~basicsr_ext.models.training_model.TrainingModel`, and ``train.ail``
    (:class:`~basicsr_ext.models.ail.options.AILOptions`). The recursive form needs ``datasets.train.geometry: true``. Maps,
    ``rounds.json`` (a record a round) and pictures lie in ``experiments/<name>/importance``.

    Logs: ``importance`` and ``importance_at_1`` of the batch; ``round``, and of the round ``round_mean``,
    ``round_share_at_one`` and, from round 1 on, ``round_psnr`` of the student that it began with: in the recursive form of all
    training images, in the direct form of the round's batches so far.

    Attributes:
        ranks: Of the run, which the trainer sets before :meth:`bind`.
    """

    loss_keys = ('pixel_opt',)
    train_blocks = {'ail': AILOptions}  # noqa: RUF012

    # ---- building ------------------------------------------------------------------------------------------------

    def init_training_settings(self) -> None:
        self.ail = AILOptions.parse(self.opt['train'].get('ail'), 'train.ail')
        networks = [self.opt['network_g'], *([self.ail.teacher.network] if self.ail.teacher else [])]
        self._window = math.lcm(*(requirements_of(network).window for network in networks))
        self.teacher = self.ail.teacher.build(self.device) if self.ail.teacher and self.ail.needs_teacher else None
        if self.teacher is not None:
            check_alike(self.teacher, self.net_g, self.opt['scale'], math.lcm(16, self._window), 'train.ail.teacher')
        self.ranks = Ranks()
        self.round: int | None = None
        self.round_length: int | None = None
        self._round_saved = 0
        super().init_training_settings()
        self._first_rates = [
            ([group['lr'] for group in optimizer.param_groups], deepcopy(scheduler.state_dict()))
            for optimizer, scheduler in zip(self.optimizers, self.schedulers, strict=True)
        ]

    @classmethod
    def check_combination(cls, opt: Mapping[str, Any]) -> None:
        super().check_combination(opt)
        ail = AILOptions.parse(opt['train'].get('ail'), 'train.ail')
        ail.check()
        if ail.round_iterations is not None:
            ail.check_length(ail.round_iterations, int(opt['train']['total_iter']))
        block = opt['datasets']['train']
        if not ail.needs_geometry:
            return
        dataset = DATASET_REGISTRY.get(block['type'])
        if not _reads_whole_images(dataset):
            raise UserError(
                'datasets.train.type: importance that belongs to whole images needs a dataset that reads them: expected '
                f'PairedStoreDataset, found {dataset.__name__}.'
            )
        if not block.get('geometry'):
            raise UserError(
                f'datasets.train.geometry: expected true, since form: {ail.form} with initialization: '
                f'{ail.initialization} must know where a crop lies in its image.'
            )

    def bind(self, train_set: Any) -> None:
        """Meets the training set: whole images come from it, and the length of an epoch.

        Raises:
            UserError: A picture's key is not among its images, or training ends before the last round.
        """
        block, world_size = self.opt['datasets']['train'], self.opt['world_size']
        batch = block['batch_size_per_gpu'] * world_size
        self.round_length = self.ail.length_of_round(
            iterations_per_epoch(len(train_set), block.get('dataset_enlarge_ratio') or 1, batch)
        )
        self.ail.check_length(self.round_length, int(self.opt['train']['total_iter']))
        self.folder = Path(self.opt['path']['experiments_root'], 'importance')
        scale = self.opt['scale']
        self.images = WholeImages(train_set, scale, self.device) if _reads_whole_images(type(train_set)) else None
        self.pictures = self._chosen_pictures()
        settings = (self.ail, self.net_g, self.teacher, self.opt['manual_seed'], scale, self._window)
        self.importance: Importance | None = None
        if self.ail.form == 'direct':
            self.importance = DirectImportance(*settings)
        elif self.ail.form == 'recursive':
            sizes, channels = self.images.sizes, self.images.channels
            maps = ImportanceMaps(self.folder, sizes, channels, self.ail.map_dtype)
            self.importance = RecursiveImportance(maps, self.images, self.ranks, *settings)

    def _chosen_pictures(self) -> dict[str, int]:
        """Keys and numbers of the images whose importance is drawn."""
        keys = self.images.keys if self.images else []
        chosen = keys[:3] if self.ail.pictures is None else self.ail.pictures
        unknown = [key for key in chosen if key not in keys]
        if unknown:
            known = f'such as "{keys[0]}"' if keys else 'which only a PairedStoreDataset can read'
            raise UserError(f'train.ail.pictures: expected keys of training images, {known}, found "{unknown[0]}".')
        return {key: keys.index(key) for key in chosen}

    # ---- rounds --------------------------------------------------------------------------------------------------

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Moves the schedulers, which start again with each round; a warm-up does, too."""
        number = self._round_at(current_iter)
        within = current_iter - number * self.round_length
        if within == 1 and number > 0:
            for optimizer, scheduler, first in zip(self.optimizers, self.schedulers, self._first_rates, strict=True):
                rates, state = first
                scheduler.load_state_dict(deepcopy(state))
                for group, rate in zip(optimizer.param_groups, rates, strict=True):
                    group['lr'] = rate
        super().update_learning_rate(within, warmup_iter)

    def optimize_parameters(self, current_iter: int) -> None:
        """Runs one iteration; the first of a round updates the importance before."""
        number = self._round_at(current_iter)
        if number != self.round:
            self._begin_round(number, current_iter)
        super().optimize_parameters(current_iter)
        self.log('round', float(number))
        if self.importance is None:
            return
        for name, value in self.importance.so_far().items():
            self.log(f'round_{name}', value)
        if current_iter == int(self.opt['train']['total_iter']) or self._round_at(current_iter + 1) > number:
            self._note_round(number, current_iter, self.importance.end(self.ranks))

    def _round_at(self, iteration: int) -> int:
        if self.round_length is None:
            raise UserError('model_type: AILModel must meet its training images: train with "basicsr train".')
        return round_of(iteration, self.round_length, self.ail.rounds)

    def _begin_round(self, number: int, iteration: int) -> None:
        if self.importance is not None:
            record = self.importance.begin(number, iteration - 1)
            self.ranks.on_first(lambda: self._draw_pictures(number))
            self._note_round(number, iteration - 1, record)
        self.round = number

    def _draw_pictures(self, number: int) -> None:
        for key, image in self.pictures.items():
            weights = self.importance.of(self.images.batch(image), self.ail.update_tile)[0]
            path = self.folder / 'pictures' / f'{key.replace("/", "_")}_round{number:02d}.png'
            write_picture(path, weights)

    def _note_round(self, number: int, iteration: int, record: Mapping[str, float]) -> None:
        """Says what is known of a round, and writes it into ``rounds.json``."""
        if record:
            record = {'round': number, 'iteration': iteration, **record}
            get_root_logger().info(in_words(record))
            self.ranks.on_first(lambda: write_record(self.folder / 'rounds.json', record))

    # ---- an iteration --------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], iteration: int) -> None:
        """Composes one update; none where no pixel counts yet, since weight decay alone would wear the weights away."""
        if self.round == 0 and self.ail.initialization == 'zeros' and self.ail.form != 'distillation':
            self.log('importance', 0.0)
            return
        super().training_step(batch, iteration)

    def prepare_batch(self, batch: dict[str, Any], iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns input and target; behind the target's channels come its importance, or the teacher's output."""
        lq, gt = batch['lq'], batch['gt']
        if self.ail.form == 'distillation':
            with torch.no_grad(), exact_float32(self.device):
                taught = self.teacher(lq)
            return lq, torch.cat([gt, taught], 1)
        weights = self.importance.of_training(batch)
        self.log('importance', weights.mean())
        self.log('importance_at_1', (weights == 1).float().mean())
        return lq, torch.cat([gt, weights], 1)

    def generator_losses(self, output: torch.Tensor, gt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the loss of weighted images, or of both targets (Eq. 10).

        Args:
            output: (N, C, H, W), [0, 1].
            gt: What :meth:`prepare_batch` made: (N, 2 C, H, W).
        """
        pixel = self.criteria['pixel']
        target, other = gt.chunk(2, 1)
        if self.ail.form == 'distillation':
            return {'l_pix': pixel(output, target), 'l_distill': self.ail.distillation_weight * pixel(output, other)}
        return {'l_pix': pixel(output * other, target * other)}

    # ---- state ---------------------------------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        state = super().extra_state()
        state['ail'] = {'round': self.round, 'round_length': self.round_length}
        state['ail'].update(self.importance.extra_state() if self.importance else {})
        return state

    def load_extra_state(self, state: dict[str, Any]) -> None:
        super().load_extra_state(state)
        before = state['ail']['round_length']
        if before != self.round_length:
            raise UserError(
                f'train.ail.round_epochs: the checkpoint was saved with rounds of {before} iterations, and here they have '
                f'{self.round_length}, since epochs have another length with this number of ranks. Go on with the number of '
                'ranks it was saved by.'
            )
        self.round = state['ail']['round']  # None: kept before the first maps were made
        self._round_saved = self.round or 0
        if self.importance is not None and self.round is not None:
            self.importance.load_extra_state(self.round, state['ail'])

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves; then maps go that neither this checkpoint nor the one before needs."""
        super().save(epoch, current_iter)
        if isinstance(self.importance, RecursiveImportance) and self.opt['rank'] == 0:
            self.importance.maps.remove_before(self._round_saved)
        self._round_saved = self.round or 0


def _reads_whole_images(dataset: type) -> bool:
    return hasattr(dataset, 'read') and hasattr(dataset, 'open_sources')
