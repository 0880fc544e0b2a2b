"""Where AIL's importance comes from: kept in maps and raised (the paper), or made from the batch (the published code)."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

import torch

from basicsr_ext.data.crop_geometry import Geometry, augment
from basicsr_ext.errors import UserError
from basicsr_ext.functional import importance
from basicsr_ext.functional.precision import autocast
from basicsr_ext.functional.tiling import tiled_forward
from basicsr_ext.models.ail_options import AILOptions
from basicsr_ext.models.importance_maps import ImportanceMaps, key_of


class WholeImages:
    """The training images as a whole, read through the training set.

    Args:
        train_set: A :class:`~basicsr_ext.data.paired_store_dataset.PairedStoreDataset`, or a subclass.
        scale: HR pixels per LQ pixel.
        device: Where they go.
    """

    def __init__(self, train_set: Any, scale: int, device: torch.device):
        self.keys = [lq for _, lq in train_set.pairs]
        self.sizes = [(height * scale, width * scale) for height, width in train_set.sizes]
        self.channels = train_set.sources['gt'].store.channels
        self._train_set = train_set
        self._device = device

    def geometry(self, image: int) -> Geometry:
        """The window that is all of an image."""
        return Geometry(image, 0, 0, *self.sizes[image])

    def batch(self, image: int) -> dict[str, torch.Tensor]:
        """An image as a batch of one: ``lq``, ``gt`` (1, C, H, W), in [0, 1], and ``geometry``."""
        geometry = self.geometry(image)
        sources = {name: self._train_set.sources[name] for name in ('lq', 'gt')}
        batch: dict[str, torch.Tensor] = {'geometry': torch.tensor([geometry], dtype=torch.int64)}
        for name, pixels in self._train_set.read(geometry, sources).items():
            batch[name] = pixels[None].to(self._device)
            if not pixels.is_floating_point():
                batch[name] = batch[name].float() / torch.iinfo(pixels.dtype).max
        return batch


class Importance:
    """Base of both forms: importance of round 0, and the student's loss.

    Args:
        options: ``train.ail``.
        student: Network in training.
        teacher: Stronger network, or ``None`` where the options need none.
        seed: Of the run.
        scale: HR pixels per LQ pixel.
        precision: Of the networks' forwards.
        window: Both take images whose sides are multiples of it; others are padded by mirroring.
    """

    def __init__(
        self,
        options: AILOptions,
        student: torch.nn.Module,
        teacher: torch.nn.Module | None,
        seed: int,
        scale: int,
        precision: str = 'fp32',
        window: int = 1,
    ):
        self.options = options
        self.student = student
        self.teacher = teacher
        self.seed = seed
        self.scale = scale
        self.precision = precision
        self.window = window
        recursive = options.form == 'recursive'
        self._error = options.error or ('squared' if recursive else 'absolute')
        self._error_scale = (1.0 if recursive else 10.0) if options.error_scale is None else options.error_scale

    @torch.no_grad()
    def run(self, network: torch.nn.Module, lq: torch.Tensor, tile: int | None = None) -> torch.Tensor:
        """Runs a network in evaluation mode; its output is float32."""
        training = network.training
        network.eval()
        with autocast(lq.device, self.precision):
            overlap = self.options.update_overlap if tile else 0
            output = tiled_forward(network, lq, self.scale, tile, overlap, window=self.window)
        network.train(training)
        return output.float()

    def initial(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        """Importance of round 0, of the shape of ``gt``."""
        gt = batch['gt']
        match self.options.initialization:
            case 'teacher':
                error = (self.run(self.teacher, batch['lq'], tile) - gt).abs()
                return importance.initial_importance(error, self.options.midpoint, self.options.steepness)
            case 'random':
                return torch.stack([self._random(geometry) for geometry in geometries(batch)]).to(gt).expand_as(gt)
            case 'ones':
                return torch.ones_like(gt)
            case _:
                return torch.zeros_like(gt)

    def loss(self, output: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
        """d of Eq. 7, at every pixel."""
        error = (output - gt).abs()
        return (error.square() if self._error == 'squared' else error) * self._error_scale

    def _random(self, geometry: Geometry) -> torch.Tensor:
        window = importance.random_importance(*geometry[:5], self.seed)
        return torch.from_numpy(augment(window[..., None].numpy(), geometry).transpose(2, 0, 1).copy())


class DirectImportance(Importance):
    """Importance from the errors on the batch of the teacher and of the student as it was when the round began."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.round = 0
        self.student_before: torch.nn.Module | None = None

    def begin(self, number: int, iteration: int) -> dict[str, float]:
        """Keeps the student as it is now, for the whole round."""
        self.round = number
        if number > 0:
            self.student_before = deepcopy(self.student).eval().requires_grad_(False)
        return {}

    def of(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        """Importance of a batch's pixels, of the shape of ``gt``, in [0, 1]."""
        loss = None
        if self.student_before is not None:
            loss = self.loss(self.run(self.student_before, batch['lq'], tile), batch['gt'])
        return importance.direct_importance(self.initial(batch, tile), loss, self.round, self.options.step)

    def extra_state(self) -> dict[str, Any]:
        """Plain values and tensors from which :meth:`load_extra_state` goes on."""
        before = self.student_before
        return {'student_before': before and {name: value.cpu() for name, value in before.state_dict().items()}}

    def load_extra_state(self, number: int, state: dict[str, Any]) -> None:
        """Restores what :meth:`extra_state` gave in a round."""
        self.begin(number, 0)
        if self.student_before is not None:
            self.student_before.load_state_dict(state['student_before'])


class RecursiveImportance(Importance):
    """Importance from maps of whole images, raised where the student is good when a round begins.

    Args:
        maps: Storage of the maps.
        images: Whole training images.
        further: As of :class:`Importance`.
    """

    def __init__(self, maps: ImportanceMaps, images: WholeImages, *further: Any, **named: Any):
        super().__init__(*further, **named)
        self.maps = maps
        self.images = images

    def begin(self, number: int, iteration: int) -> dict[str, float]:
        """Makes the maps of a round, unless they are there from before an interruption; all ranks must call it.

        Returns:
            Mean importance, share of pixels at 1, and from round 1 on the student's mean PSNR (dB) on the training images.

        Raises:
            UserError: The maps of the round before are gone, or these cannot be written.
        """
        network = self.student if number > 0 else self.teacher
        settings = self.options.model_dump(include={'initialization', 'midpoint', 'steepness', 'step', 'map_dtype'})
        settings |= {'error': self._error, 'scale': self._error_scale, 'seed': self.seed, 'round': number}
        before = self.maps.record.get('key') if number > 0 else None
        key = key_of(network.state_dict().values() if network else (), settings, before)
        key = self.maps.key_of_first_rank(key)
        if not self.maps.open_on_all_ranks(number, key):
            if number > 0 and self.maps.round != number - 1:
                raise self._lost(number - 1)
            self.maps.make(number, key, self._raised if number > 0 else self._first, {'iteration': iteration})
        return {name: self.maps.record[name] for name in ('mean', 'share_at_one', 'psnr') if name in self.maps.record}

    def of(self, batch: dict[str, torch.Tensor], tile: int | None = None) -> torch.Tensor:
        """Importance of a batch's pixels, of the shape of ``gt``, in [0, 1]: the samples' windows of their maps."""
        return torch.stack([self.maps.read(geometry) for geometry in geometries(batch)]).to(batch['gt'].device)

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
        """Opens the maps that were in use.

        Raises:
            UserError: They are gone.
        """
        if not self.maps.open(number, state['key']):
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
    error = (output.clamp(0, 1) - gt).square().mean().item()
    return -10 * math.log10(error) if error > 0 else math.inf
