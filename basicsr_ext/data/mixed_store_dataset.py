"""GT and LQ images from several sources, each with its share of the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from basicsr_ext.data.batching import Batch
from basicsr_ext.data.crop_geometry import area_shares
from basicsr_ext.data.mixed_store_options import MixedSourceOptions, MixedStoreOptions
from basicsr_ext.data.noise import NoiseWindows
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.pairing import Source
from basicsr_ext.data.registry import DATASET_REGISTRY
from basicsr_ext.data.sample_id import SampleId, random_numbers
from basicsr_ext.errors import UserError
from basicsr_ext.storage.joined import JoinedStore


@DATASET_REGISTRY.register()
class MixedStoreDataset(PairedStoreDataset):
    """Training pairs of several sources, such as real pairs and clean images with synthetic LR.

    A sample is one of a :class:`PairedStoreDataset` of all images together: which source it comes from is drawn with the
    image, by the weights, and hangs on the sample's id alone. Keys begin with the name of the source. Sources may add noise
    of another set to their LQ crops.

    Attributes:
        parts: Name of a source -> its pairs as a dataset of its own.
        pairs: GT key and LQ key of each image, source by source.

    Raises:
        UserError: An option is wrong, or the stores do not fit together.
    """

    options_type = MixedStoreOptions
    options: MixedStoreOptions

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        weights = [source.weight for source in self.options.sources.values()]
        if None not in weights:
            self._shares = weighted_shares(self._sizes, self._lengths, weights)
        crop = self.options.gt_size // self.options.scale
        self._noise = {
            name: NoiseWindows(source.noise, crop, self.lq_store, f'{self.options.where}.sources.{name}.noise')
            for name, source in self.options.sources.items()
            if source.noise
        }

    def open_sources(self) -> dict[str, Source]:
        """Opens every source, and joins them."""
        options = self.options
        self.parts = {name: self._open_part(name, source) for name, source in options.sources.items()}
        pairs = {name: _pairs_of(part, options.sources[name]) for name, part in self.parts.items()}
        self.pairs = [(f'{name}/{gt}', f'{name}/{lq}') for name, found in pairs.items() for gt, lq in found]
        self._lengths = [len(found) for found in pairs.values()]
        self.lq_store = self._join('lq')
        self.gt_store = self._join('gt')
        lq = self.source('sources', self.lq_store, [lq for _, lq in self.pairs], scale=1)
        gt = self.source(
            'sources', self.gt_store, [gt for gt, _ in self.pairs], options.scale, surplus=options.scale - 1
        )
        return {'lq': lq, 'gt': gt}

    def __getitem__(self, index: SampleId | int) -> dict[str, Any]:
        sample = super().__getitem__(index)
        self._add_noise([index], sample['lq'][None], [sample['lq_path']])
        return sample

    def __getitems__(self, indices: Sequence[SampleId | int]) -> list[Any]:
        """Reads a batch; loaders call this."""
        items = super().__getitems__(indices)
        if len(items) == 1 and isinstance(items[0], Batch):
            self._add_noise(indices, items[0]['lq'], items[0]['lq_path'])
        return items

    def _open_part(self, name: str, source: MixedSourceOptions) -> PairedStoreDataset:
        options = self.options
        block = {
            'name': name,
            'phase': 'val',  # whole images: crops are drawn from all sources together
            'block': f'{options.block or options.phase}.sources.{name}',
            **{key: getattr(options, key) for key in ('scale', 'channels', 'color', 'output')},
            **{key: getattr(source, key) for key in ('dataroot_gt', 'dataroot_lq', 'filename_tmpl')},
        }
        part = PairedStoreDataset(block)
        if not _pairs_of(part, source):
            raise UserError(
                f'{part.options.where}.folder: expected a folder of {part.gt_store.path}, found "{source.folder}", in which '
                f'there is no image; keys are such as "{part.pairs[0][0]}".'
            )
        return part

    def _join(self, kind: str) -> JoinedStore:
        try:
            return JoinedStore({name: getattr(part, f'{kind}_store') for name, part in self.parts.items()})
        except UserError as error:
            raise UserError(
                f'{self.options.where}.sources, dataroot_{kind}: {error} Set channels: 3 to read grey images as RGB.'
            ) from None

    def _add_noise(self, indices: Sequence[SampleId | int], lq: torch.Tensor, keys: Sequence[str]) -> None:
        """Adds noise to LQ crops (N, channels, height, width), in place, where their sources ask for it."""
        if self._noise:
            for numbers, crop, key in zip(random_numbers(indices), lq, keys, strict=True):
                noise = self._noise.get(key.partition('/')[0])
                if noise is not None:
                    noise.add_to(crop, numbers[6:8])


def weighted_shares(sizes: np.ndarray, lengths: Sequence[int], weights: Sequence[float]) -> np.ndarray:
    """Adds up images' shares of the samples: by weight between sources, by area within one.

    Args:
        sizes: Height and width of each image, source by source, as integers of shape (images, 2).
        lengths: Images of each source.
        weights: Of each source, positive.

    Returns:
        For each image the share of all images up to and including it; ascending, the last is 1.
    """
    ends = np.cumsum(lengths)
    before = np.concatenate([[0], np.cumsum(weights)]) / np.sum(weights)
    parts = [
        low + (high - low) * area_shares(sizes[end - length : end])
        for low, high, end, length in zip(before, before[1:], ends, lengths, strict=False)
    ]
    return np.concatenate(parts)


def _pairs_of(part: PairedStoreDataset, source: MixedSourceOptions) -> list[tuple[str, str]]:
    """GT and LQ keys of a source, of its folder where it names one."""
    if source.folder is None:
        return part.pairs
    folder = source.folder.strip('/') + '/'
    return [pair for pair in part.pairs if pair[0].startswith(folder)]
