"""The training images as a whole, as AIL's maps belong to them."""

from __future__ import annotations

from typing import Any

import torch

from basicsr_ext.data.crop_geometry import Geometry
from basicsr_ext.errors import UserError
from basicsr_ext.functional.pixels import to_unit_range


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
        """An image as a batch of one: ``lq``, ``gt`` (1, C, H, W), in [0, 1], and ``geometry``.

        Raises:
            UserError: It cannot be read.
        """
        geometry = self.geometry(image)
        sources = {name: self._train_set.sources[name] for name in ('lq', 'gt')}
        batch: dict[str, torch.Tensor] = {'geometry': torch.tensor([geometry], dtype=torch.int64)}
        try:
            images = self._train_set.read(geometry, sources)
        except OSError as error:
            raise UserError(f'datasets.train: the image "{self.keys[image]}" cannot be read ({error}).') from None
        for name, pixels in images.items():
            batch[name] = to_unit_range(pixels[None].to(self._device))
        return batch
