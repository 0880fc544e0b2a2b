"""Where AIL's importance comes from: kept in maps and raised (the paper), or made from the batch (the published code)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from copy import deepcopy
from typing import Any

import torch

from basicsr_ext.data.crop_geometry import Geometry, augment
from basicsr_ext.distributed import Ranks
from basicsr_ext.errors import UserError
from basicsr_ext.functional import importance
from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.functional.psnr import psnr
from basicsr_ext.models.ail.map_files import ImportanceMaps, key_of
from basicsr_ext.models.ail.maps import make_maps
from basicsr_ext.models.ail.options import AILOptions
from basicsr_ext.models.ail.rounds import RoundMeans
from basicsr_ext.models.ail.whole_images import WholeImages
from basicsr_ext.networks.devices import to_device
from basicsr_ext.networks.tiling import tiled_forward


class Importance(ABC):
    """Base of both forms: importance of round 0, and the student's loss.

    Args:
        options: ``train.ail``.
        student: Network in training.
        teacher: Stronger network, or ``None`` where the options need none.
        seed: Of the run.
        scale: HR pixels per LQ pixel.
        window: Both take images whose sides are multiples of it; others are padded by mirroring.
    """

    def __init__(
        self,
        options: AILOptions,
        student: torch.nn.Module,
        teacher: torch.nn.Module | None,
        seed: int,
        scale: int,
        window: int = 1,
    ):
        self.options = options
        self.student = student
        self.teacher = teacher
        self.seed = seed
        self.scale = scale
        self.window = window
        recursive = options.form == 'recursive'
        self._error = options.error or ('squared' if recursive else 'absolute')
        self._error_scale = (1.0 if recursive else 10.0) if options.error_scale is None else options.error_scale

    @torch.no_grad()
    def run(self, network: torch.nn.Module, lq: torch.Tensor, tile: int | None = None) -> torch.Tensor:
        """Runs a network in evaluation mode, in float32 without TF32, whatever the training's precision is."""
        training = network.training
        network.eval()
        with exact_float32(lq.device):
            overlap = self.options.update_overlap if tile else 0
            output = tiled_forward(network, lq, self.scale, tile, overlap, window=self.window)
        network.train(training)
        return output

    def initial(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        """Importance of round 0, of the shape of ``gt``."""
        gt = batch['gt']
        match self.options.initialization:
            case 'teacher':
                error = (self.run(self.teacher, batch['lq'], tile) - gt).abs()
                return importance.initial_importance(error, self.options.midpoint, self.options.steepness)
            case 'random':
                windows = torch.stack([self._random(geometry) for geometry in geometries(batch)]).to(gt.dtype)
                return to_device(windows, gt.device).expand_as(gt)
            case 'ones':
                return torch.ones_like(gt)
            case _:
                return torch.zeros_like(gt)

    def loss(self, output: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        """d of Eq. 7, at every pixel."""
        error = (output - gt).abs()
        return (error.square() if self._error == 'squared' else error) * self._error_scale

    def of_training(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Importance of a batch that is trained with."""
        return self.of(batch)

    @abstractmethod
    def of(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        """Importance of a batch's pixels, of the shape of ``gt``, in [0, 1]."""

    @abstractmethod
    def so_far(self) -> dict[str, torch.Tensor | float]:
        """What is known of the round, of this rank: mean importance, share at 1, and from round 1 on the student's PSNR."""

    def end(self, ranks: Ranks) -> dict[str, float]:
        """Ends a round; returns what is known only then, of all ranks, which must call it."""
        return {}

    def _random(self, geometry: Geometry) -> torch.Tensor:
        window = importance.random_importance(*geometry[:5], self.seed)
        return torch.from_numpy(augment(window[..., None].numpy(), geometry).transpose(2, 0, 1).copy())


class DirectImportance(Importance):
    """Importance from the errors on the batch of the teacher and of the student as it was when the round began.

    What a round's importance is like is measured on the round's batches, and so known when it ends.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.round = 0
        self.student_before: torch.nn.Module | None = None
        self.means = RoundMeans()

    def begin(self, number: int, iteration: int) -> dict[str, float]:
        """Keeps the student as it is now, for the whole round."""
        self.round = number
        self.means = RoundMeans()
        if number > 0:
            self.student_before = deepcopy(self.student).eval().requires_grad_(False)
        return {}

    def of(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        return self._of(batch, tile)[0]

    def of_training(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        weights, output = self._of(batch)
        self.means.add(weights, output, batch['gt'])
        return weights

    def _of(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Importance, and the output of the student before, if there is one."""
        output, loss = None, None
        if self.student_before is not None:
            output = self.run(self.student_before, batch['lq'], tile)
            loss = self.loss(output, batch['gt'])
        initial = self.initial(batch, tile)
        return importance.direct_importance(initial, loss, self.round, self.options.step), output

    def so_far(self) -> dict[str, torch.Tensor | float]:
        known = self.means.so_far()
        return {name: value for name, value in known.items() if name != 'psnr' or self.student_before is not None}

    def end(self, ranks: Ranks) -> dict[str, float]:
        """Mean importance, share at 1 and PSNR on the batches of all ranks, which must call it."""
        return self.means.of_all(ranks)

    def extra_state(self) -> dict[str, Any]:
        """Plain values and tensors from which :meth:`load_extra_state` goes on."""
        before = self.student_before
        weights = before and {name: value.cpu() for name, value in before.state_dict().items()}
        return {'student_before': weights, 'means': None if self.means.sums is None else self.means.sums.cpu()}

    def load_extra_state(self, number: int, state: dict[str, Any]) -> None:
        """Restores what :meth:`extra_state` gave in a round."""
        self.begin(number, 0)
        self.means.sums = state.get('means')
        if self.student_before is not None:
            self.student_before.load_state_dict(state['student_before'])


class RecursiveImportance(Importance):
    """Importance from maps of whole images, raised where the student is good when a round begins.

    Args:
        maps: Storage of the maps.
        images: Whole training images.
        ranks: Of the run; they share the images.
        further: As of :class:`Importance`.
    """

    def __init__(self, maps: ImportanceMaps, images: WholeImages, ranks: Ranks, *further: Any, **named: Any):
        super().__init__(*further, **named)
        self.maps = maps
        self.images = images
        self.ranks = ranks

    def begin(self, number: int, iteration: int) -> dict[str, float]:
        """Makes the maps of a round, unless they are there from before an interruption; all ranks must call it.

        Returns:
            Mean importance, share of pixels at 1, and from round 1 on the student's mean PSNR (dB) on the training images.

        Raises:
            UserError: The maps of the round before are gone, or these cannot be made.
        """
        network = self.student if number > 0 else self.teacher
        settings = self.options.model_dump(include={'initialization', 'midpoint', 'steepness', 'step', 'map_dtype'})
        settings |= {'error': self._error, 'scale': self._error_scale, 'seed': self.seed, 'round': number}
        before = self.maps.record.get('key') if number > 0 else None
        key = key_of(network.state_dict().values() if network else (), settings, before)
        key = self.ranks.gather(key)[0]  # networks with running statistics are not alike on all ranks to the last bit
        if not all(self.ranks.gather(self.maps.open(number, key))):
            there = number == 0 or self.maps.round == number - 1 or self.maps.open(number - 1, before)
            if not all(self.ranks.gather(there)):
                raise self._lost(number - 1)
            of_image = self._raised if number > 0 else self._first
            make_maps(self.maps, self.ranks, number, key, of_image, {'iteration': iteration})
        return self.so_far()

    def of(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        maps = torch.stack([self.maps.read(geometry) for geometry in geometries(batch)])
        return to_device(maps, batch['gt'].device)

    def so_far(self) -> dict[str, torch.Tensor | float]:
        return {name: self.maps.record[name] for name in ('mean', 'share_at_one', 'psnr') if name in self.maps.record}

    def _first(self, image: int) -> tuple[torch.Tensor, float]:
        batch = self.images.batch(image)
        return self.initial(batch, self.options.update_tile)[0], math.nan

    def _raised(self, image: int) -> tuple[torch.Tensor, float]:
        batch = self.images.batch(image)
        output = self.run(self.student, batch['lq'], self.options.update_tile)
        before = self.maps.read(self.images.geometry(image)).to(output.device)
        loss = self.loss(output, batch['gt'])[0]
        return importance.raised_importance(before, loss, self.options.step), _psnr(output, batch['gt'])

    def extra_state(self) -> dict[str, Any]:
        """Plain values from which :meth:`load_extra_state` goes on; the maps stay in their files."""
        return {'key': self.maps.record.get('key')}

    def load_extra_state(self, number: int, state: dict[str, Any]) -> None:
        """Opens the maps that were in use; all ranks must call it.

        Raises:
            UserError: They are gone.
        """
        if not all(self.ranks.gather(self.maps.open(number, state['key']))):
            raise self._lost(number)

    def _lost(self, number: int) -> UserError:
        return UserError(
            f'{self.maps.folder}: the importance maps of round {number} are missing or belong to another run. This run cannot '
            'go on without them: start it anew, under another name.'
        )


def geometries(batch: dict[str, torch.Tensor]) -> list[Geometry]:
    """Where a batch's samples come from."""
    return [Geometry(*numbers) for numbers in batch['geometry'].tolist()]


def _psnr(output: torch.Tensor, gt: torch.Tensor) -> float:
    return psnr(output.clamp(0, 1).cpu().numpy(), gt.cpu().numpy(), peak=1.0)
