"""Noise that was collected from noisy images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from basicsr_ext import storage
from basicsr_ext.data.crop_geometry import WHITE
from basicsr_ext.data.mixed_store_options import NoiseOptions
from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import ImageStore


class NoiseWindows:
    """Windows without structure, whose difference from their mean is noise.

    Args:
        options: Where they are.
        crop: Height and width of the crops that get the noise, in pixels.
        images: Store of the images that get the noise.
        where: Key path of the options, for messages.

    Raises:
        UserError: The store cannot be read, is empty, has windows that are too small, or holds another kind of images.

    Source: after Ji et al., "Real-World Super-Resolution via Kernel Estimation and Noise Injection", CVPR workshops 2020.
    """

    def __init__(self, options: NoiseOptions, crop: int, images: ImageStore, where: str) -> None:
        self.probability = options.probability
        self._crop = crop
        try:
            self._store = storage.open_store(options.dataroot, images.channels)
        except UserError as error:
            raise UserError(f'{where}.dataroot: {error}') from error
        self._keys = list(self._store.keys())
        if not self._keys:
            raise UserError(f'{where}.dataroot: {options.dataroot} holds no images.')
        if (self._store.channels, np.dtype(self._store.dtype)) != (images.channels, np.dtype(images.dtype)):
            raise UserError(
                f'{where}.dataroot: expected {np.dtype(images.dtype)} images of {images.channels} channels, as the LQ images, '
                f'found {np.dtype(self._store.dtype)} images of {self._store.channels}.'
            )
        smallest = min(min(self._store.spec(key)[:2]) for key in self._keys)
        if smallest < crop:
            raise UserError(
                f'{where}.dataroot: expected windows of at least {crop}x{crop} pixels, the size of an LQ crop, found one '
                f'whose shorter side is {smallest}. Make them with "basicsr prepare noise --size {crop}", or reduce gt_size.'
            )

    def add_to(self, crop: torch.Tensor, numbers: Sequence[float]) -> None:
        """Adds the noise of a window to an image, in place; values stay in their range.

        Args:
            crop: (channels, height, width), float32 in [0, 1] or stored integers.
            numbers: Two random numbers in [0, 1): whether and which window, and its place.
        """
        chance, place = numbers
        if chance >= self.probability:
            return
        key = self._keys[int(chance / self.probability * len(self._keys))]
        height, width = self._store.spec(key)[:2]
        top, left = divmod(int(place * (height - self._crop + 1) * (width - self._crop + 1)), width - self._crop + 1)
        window = self._store.read(key, top, left, self._crop, self._crop).astype(np.float32)
        noise = torch.from_numpy((window - window.mean((0, 1))).transpose(2, 0, 1))
        white = WHITE.get(np.dtype(self._store.dtype), np.float32(1)).item()
        if crop.is_floating_point():
            crop.copy_((crop + noise / white).clamp_(0, 1))
        else:
            crop.copy_((crop + noise).round_().clamp_(0, white))
