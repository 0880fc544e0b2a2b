"""GT and LQ images from any two image stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from basicsr_ext import storage
from basicsr_ext.data import pairing
from basicsr_ext.data.batching import Batch, read_windows, to_nchw
from basicsr_ext.data.crop_geometry import (
    Geometry,
    area_shares,
    count_crops,
    draw_crops,
    grid_crops,
    systematic_choice,
)
from basicsr_ext.data.pairing import Source
from basicsr_ext.data.registry import DATASET_REGISTRY
from basicsr_ext.data.sample_id import SampleId, random_numbers
from basicsr_ext.data.store_options import PairedStoreOptions
from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import ImageStore
from basicsr_ext.storage.luminance import LuminanceStore


@DATASET_REGISTRY.register()
class PairedStoreDataset(Dataset):
    """Pairs of GT and LQ images from image stores.

    In training a sample is a random crop. Images are chosen in proportion to their area (``sampling: area``), so that a
    large image gets as many crops as the sub-images it could be cut into, and only the crop's rows are read; with ``grid``
    it is one of the crops that lie side by side. In validation a sample is a whole image, with the GT image cropped to
    ``scale`` times the LQ image.

    A sample holds ``lq`` and ``gt``: RGB (or luminance) tensors of shape (channels, height, width), float32 in [0, 1]
    or the stored uint8 values; ``lq_path`` and ``gt_path``: the images' keys; and, where the option asks for it,
    ``geometry``: :class:`~basicsr_ext.data.crop_geometry.Geometry` as an int64 tensor.

    A dataset with more images per sample extends :meth:`open_sources` and names its option structure; crop, flips and
    checks follow.

    Attributes:
        takes_sample_id: Tells this package's sampler to hand out :class:`~basicsr_ext.data.sample_id.SampleId`.
        thread_safe: Tells this package's trainer that a thread may read ahead: samples with such an id draw from no shared
            random numbers.
        opt: The option block as it was given, for BasicSR.
        options: The same, checked.
        gt_store: Store of the GT images, or ``None``.
        lq_store: Store of the LQ images.
        pairs: GT key (or ``None``) and LQ key of each image.
        sources: The images of a sample by name.
        sizes: Height and width of each LQ image.

    Raises:
        UserError: An option is wrong, or the stores do not fit together. The message names the option and the first
            offending images.
    """

    takes_sample_id = True
    thread_safe = True
    options_type = PairedStoreOptions
    options: PairedStoreOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        self.opt = opt
        block = opt.get('block') or opt.get('phase')
        self.options = self.options_type.parse(opt, f'datasets.{block}' if block else 'datasets')
        self.is_train = self.options.phase == 'train'
        self.sources = self.open_sources()
        self.sizes = pairing.lq_sizes(self.sources['lq'])
        self._check()
        self._sizes = np.array(self.sizes)
        self._shares = area_shares(self._sizes if self.options.sampling == 'area' else np.ones_like(self._sizes))
        self._ends: np.ndarray | None = None  # of the crops of each image, where they lie on a grid
        if self.is_train and self.options.grid:
            self._ends = count_crops(self._sizes, self.options.gt_size // self.options.scale)

    def open_sources(self) -> dict[str, Source]:
        """Opens the stores: for each image of a sample its name, where it comes from, and its scale."""
        options = self.options
        self.lq_store = self.open_store('dataroot_lq')
        self.gt_store = self.open_store('dataroot_gt') if options.dataroot_gt else None
        self.pairs = self._pair()
        sources = {'lq': self.source('dataroot_lq', self.lq_store, [lq for _, lq in self.pairs], scale=1)}
        if self.gt_store is not None:
            # One store of whole HR images serves every scale: what is left over of the last LQ pixel is cut away.
            sources['gt'] = self.source(
                'dataroot_gt', self.gt_store, [gt for gt, _ in self.pairs], options.scale, surplus=options.scale - 1
            )
        return sources

    def open_store(self, option: str) -> ImageStore:
        """Opens the store that an option of the block gives."""
        path = getattr(self.options, option)
        try:
            store = storage.open_store(path, self.options.channels)
            store = LuminanceStore(store) if self.options.color == 'y' else store
        except UserError as error:
            raise UserError(f'{self.options.where}.{option}: {error}') from error
        if not store.keys():
            raise UserError(f'{self.options.where}.{option}: {path} holds no images.')
        return store

    def source(self, option: str, store: ImageStore, keys: list[str], scale: int, surplus: int = 0) -> Source:
        """Describes where one image of a sample comes from; see :class:`~basicsr_ext.data.pairing.Source`."""
        return Source(f'{self.options.where}.{option}', store, keys, scale, surplus)

    def sources_at(self, iteration: int) -> Mapping[str, Source]:
        """Gives the images that samples hold in a training iteration (0: not known); here always all of them."""
        return self.sources

    def read(self, geometry: Geometry, sources: Mapping[str, Source]) -> dict[str, torch.Tensor]:
        """Reads the same window of several images and flips them alike.

        Args:
            geometry: Window and flips; the window's sides are multiples of the scale.
            sources: The images to read.

        Returns:
            For each source a new contiguous tensor of shape (channels, height, width).
        """
        return {name: image.contiguous() for name, (image,) in self._read([geometry], sources).items()}

    def _read(self, geometries: Sequence[Sequence[int]], sources: Mapping[str, Source]) -> dict[str, torch.Tensor]:
        unit_range = self.options.output == 'float32'
        return {
            name: to_nchw(read_windows(source, geometries, self.options.scale), unit_range)
            for name, source in sources.items()
        }

    def __len__(self) -> int:
        return len(self.pairs) if self._ends is None else int(self._ends[-1])

    def __getitem__(self, index: SampleId | int) -> dict[str, Any]:
        geometry = Geometry(*self._geometries([index])[0])
        sample: dict[str, Any] = self.read(geometry, self.sources_at(getattr(index, 'iteration', 0)))
        gt_key, sample['lq_path'] = self.pairs[geometry.image]
        if gt_key is not None:
            sample['gt_path'] = gt_key
        if self.options.geometry:
            sample['geometry'] = torch.tensor(geometry, dtype=torch.int64)
        return sample

    def __getitems__(self, indices: Sequence[SampleId | int]) -> list[Any]:
        """Reads a batch; loaders call this. Values are those of single samples, in one array for each entry."""
        iterations = {getattr(index, 'iteration', 0) for index in indices}
        if not self.is_train or len(iterations) > 1:  # sizes or entries may differ
            return [self[index] for index in indices]
        geometries = self._geometries(indices)
        batch = Batch(self._read(geometries, self.sources_at(*iterations)))
        gt_keys, lq_keys = zip(*[self.pairs[where[0]] for where in geometries], strict=True)
        batch['lq_path'] = list(lq_keys)
        if self.gt_store is not None:
            batch['gt_path'] = list(gt_keys)
        if self.options.geometry:
            batch['geometry'] = torch.tensor(geometries, dtype=torch.int64)
        return [batch]

    def _geometries(self, indices: Sequence[SampleId | int]) -> list[Sequence[int]]:
        """Says what samples show: each as :class:`~basicsr_ext.data.crop_geometry.Geometry`."""
        numbers = [index.index if isinstance(index, SampleId) else int(index) for index in indices]
        count = len(self)
        if wrong := [number for number in numbers if not 0 <= number < count]:
            raise IndexError(f'index {wrong[0]} is out of range for {count} samples')
        if not self.is_train:
            return [self._whole(number) for number in numbers]
        options, drawn = self.options, random_numbers(indices)
        crop = options.gt_size // options.scale
        flips = options.use_hflip, options.use_rot
        if self._ends is not None:
            where = np.array(numbers), self._sizes, crop, options.scale
            return grid_crops(self._ends, *where, drawn[:, 1:6], *flips).tolist()
        images = systematic_choice(self._shares, np.array(numbers), drawn[:, 0])
        sizes = self._sizes[images]
        return draw_crops(images, sizes, crop, options.scale, drawn[:, 1:6], *flips).tolist()

    def _whole(self, index: int) -> Geometry:
        height, width = self.sizes[index]
        return Geometry(index, 0, 0, height * self.options.scale, width * self.options.scale)

    def _pair(self) -> list[tuple[str | None, str]]:
        options, lq_keys = self.options, self.lq_store.keys()
        if self.gt_store is None:
            return [(None, key) for key in lq_keys]
        try:
            return pairing.pair_keys(self.gt_store.keys(), lq_keys, options.filename_tmpl)
        except UserError as error:
            found = pairing.found_template(self.gt_store.keys(), lq_keys, options.filename_tmpl)
            hint = f'set filename_tmpl: "{found}", which fits them' if found else 'change filename_tmpl'
            raise UserError(
                f'{options.where}.dataroot_lq ({self.lq_store.path}) does not hold the images of dataroot_gt '
                f'({self.gt_store.path}) under filename_tmpl "{options.filename_tmpl}": {error} '
                f'Make the sets equal, or {hint}.'
            ) from error

    def _check(self) -> None:
        options, lq = self.options, self.sources['lq']
        pairing.check_channels(self.sources)
        if options.output == 'uint8':
            pairing.check_uint8(self.sources)
        for source in self.sources.values():
            pairing.check_sizes(source, self.sizes)
        if self.is_train:
            crop = options.gt_size // options.scale
            pairing.check_crop(lq, self.sizes, crop, options.scale, f'{options.where}.gt_size')
