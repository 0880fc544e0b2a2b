"""Empirical centroid-oriented optimization (ECO, arXiv 2312.17526)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from basicsr.utils.registry import DATASET_REGISTRY, MODEL_REGISTRY

from basicsr_ext.data.provenance import check_centroids
from basicsr_ext.errors import UserError
from basicsr_ext.functional.centroid import mix
from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.functional.resize import downsample
from basicsr_ext.models.eco_options import ECOOptions
from basicsr_ext.models.teacher import check_alike
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.requirements import requirements_of
from basicsr_ext.networks.weights import digest_tensors, sha256


@MODEL_REGISTRY.register()
class ECOModel(TrainingModel):
    """Trains towards empirical centroids first, and moves smoothly to the real images.

    The batch brings ``lq`` and ``gt``, and, unless the objective is ``vanilla``, alpha is 1, or a teacher runs online,
    ``centroid`` and ``centroid_lq`` (:class:`~basicsr_ext.data.paired_centroid_dataset.PairedCentroidDataset`). They are
    mixed on the device, with alpha of the exact iteration.

    Options: those of :class:`~basicsr_ext.models.training_model.TrainingModel`, and ``train.eco``
    (:class:`~basicsr_ext.models.eco_options.ECOOptions`).
    """

    train_blocks = {'eco': ECOOptions}  # noqa: RUF012

    def init_training_settings(self) -> None:
        self.eco = ECOOptions.parse(self.opt['train'].get('eco'), 'train.eco')
        self.total_iterations = int(self.opt['train']['total_iter'])
        self.teacher = self._build_teacher() if self.eco.teacher and self.eco.objective != 'vanilla' else None
        super().init_training_settings()

    def _build_teacher(self) -> torch.nn.Module:
        options = self.eco.teacher
        record = {
            'weights': options.weights,
            'weights_sha256': sha256(options.weights),
            'weights_tensors_sha256': digest_tensors(options.weights),
        }
        self._refuse_own_weights(record)
        teacher = options.build(self.device)
        side = math.lcm(16, *(requirements_of(network).window for network in (self.opt['network_g'], options.network)))
        check_alike(teacher, self.net_g, self.opt['scale'], side, 'train.eco.teacher')
        return teacher

    def _refuse_own_weights(self, record: Mapping[str, Any]) -> None:
        """The network that makes the centroids must be independent of the one in training: the authors saw it collapse.

        Args:
            record: ``weights``, ``weights_sha256`` and ``weights_tensors_sha256`` of that network; stores that were made
                before there was the last one lack it.
        """
        path = self.opt['path'].get('pretrain_network_g')
        if path is None:
            return
        tensors = set(record.get('weights_tensors_sha256', ()))
        if sha256(path) == record.get('weights_sha256') or not tensors.isdisjoint(digest_tensors(path)):
            name = record.get('weights', 'unknown')
            raise UserError(
                f'path.pretrain_network_g: {path} holds the very weights that made the centroids ({name}). Start from '
                'others, or from none: ECO needs a teacher that is independent of the network in training.'
            )

    @classmethod
    def check_combination(cls, opt: Mapping[str, Any]) -> None:
        super().check_combination(opt)
        eco = ECOOptions.parse(opt['train'].get('eco'), 'train.eco')
        if eco.teacher is None and eco.objective != 'vanilla':
            cls._needs_centroids(eco, DATASET_REGISTRY.get(opt['datasets']['train']['type']))

    @staticmethod
    def _needs_centroids(eco: ECOOptions, dataset: type) -> None:
        if not hasattr(dataset, 'centroids_until'):
            raise UserError(
                f'datasets.train.type: objective {eco.objective} needs centroids: expected PairedCentroidDataset, found '
                f'{dataset.__name__}. Or name a network in train.eco.teacher to make them in the training step.'
            )

    def bind(self, train_set: Any) -> None:
        """Checks that the centroids belong to the training set, and tells it from when on they need not be read.

        Raises:
            UserError: The training set has no centroids, or those of other images, another scale or the network itself.
        """
        if self.teacher is not None or self.eco.objective == 'vanilla':
            if hasattr(train_set, 'centroids_until'):
                train_set.centroids_until(0)
            return
        self._needs_centroids(self.eco, type(train_set))
        self._refuse_own_weights(check_centroids(train_set, self.opt['scale']))
        if self.eco.objective == 'eco':
            train_set.centroids_until(self.eco.schedule.last_mixed_iteration(self.total_iterations))

    def prepare_batch(self, batch: dict[str, Any], iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns input and target of the objective; noise, if asked for, is added to the input last.

        Args:
            batch: ``lq`` (N, C, h, w), ``gt`` (N, C, h scale, w scale) and the centroids of the same shapes, [0, 1].
            iteration: Counted from 1.
        """
        lq, gt = batch['lq'], batch['gt']
        alpha = self._alpha(iteration)
        self.log('alpha', alpha)
        if alpha < 1:
            centroid, centroid_lq = self._centroids(batch)
            if self.eco.objective == 'kd':
                gt = centroid
            else:
                lq, gt = mix(centroid_lq, lq, alpha), mix(centroid, gt, alpha)
        return self._add_noise(lq, iteration), gt

    def _alpha(self, iteration: int) -> float:
        """Alpha of Eq. 14; the other objectives stay at one end of it."""
        match self.eco.objective:
            case 'eco':
                return self.eco.schedule.alpha(iteration, self.total_iterations)
            case 'vanilla':
                return 1.0
            case _:
                return 0.0

    @torch.no_grad()
    def _centroids(self, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        if self.teacher is None:
            return batch['centroid'], batch['centroid_lq']
        with exact_float32(self.device):  # as stored centroids are made
            centroid = self.teacher(batch['lq']).clamp(0, 1)
            return centroid, downsample(centroid, self.opt['scale'])

    def _add_noise(self, lq: torch.Tensor, iteration: int) -> torch.Tensor:
        """Adds zero-mean colour Gaussian noise, clipped to [0, 1] as stored images are.

        The noise of a sample is keyed by seed, iteration and the sample's place in the batch of all ranks together, so that
        two ranks add what one with twice the batch adds. The paper leaves open where noise meets mu (Tab. 2d): here mu comes
        from the clean x, and the mixed input is noised.
        """
        if self.eco.noise_sigma == 0:
            return lq
        noise = torch.empty_like(lq)
        generator = torch.Generator(self.device)
        for place, sample in enumerate(noise):
            # the sampler deals the samples of an iteration out to the ranks in turn
            place_of_all = place * self.opt['world_size'] + self.opt['rank']
            generator.manual_seed(_seed_of(self.opt['manual_seed'], iteration, place_of_all))
            sample.normal_(generator=generator)
        return (lq + self.eco.noise_sigma * noise).clamp(0, 1)


def _seed_of(*key: int) -> int:
    """Mixes numbers into one seed, of which torch's generator on the CPU uses 32 bits."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
