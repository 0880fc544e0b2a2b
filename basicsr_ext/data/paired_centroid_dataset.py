"""GT and LQ images with their centroids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr_ext.data import pairing
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.pairing import Source
from basicsr_ext.data.registry import DATASET_REGISTRY
from basicsr_ext.data.store_options import PairedCentroidOptions
from basicsr_ext.errors import UserError
from basicsr_ext.storage.base import ImageStore


@DATASET_REGISTRY.register()
class PairedCentroidDataset(PairedStoreDataset):
    """Pairs of GT and LQ images with the empirical centroid of each LQ image and the downsampled centroid.

    A sample holds what :class:`PairedStoreDataset` gives, and ``centroid`` (as large as ``gt``) and ``centroid_lq``
    (as large as ``lq``), with the same crop and flips. Centroids are made from the LQ images: their keys are the LQ
    keys, or the GT keys. (arXiv 2312.17526, Eq. 7 and 11.)

    Attributes:
        centroid_store: Store of the centroids; its ``meta`` says how they were made.
        centroid_lq_store: Store of the downsampled centroids.
    """

    options_type = PairedCentroidOptions
    options: PairedCentroidOptions
    centroid_store: ImageStore
    centroid_lq_store: ImageStore

    def __init__(self, opt: Mapping[str, Any]) -> None:
        super().__init__(opt)
        self._last_iteration: int | None = None
        self._sources_without_centroids = {name: self.sources[name] for name in ('lq', 'gt') if name in self.sources}

    def open_sources(self) -> dict[str, Source]:
        """Adds the centroids and the downsampled centroids to GT and LQ."""
        sources = super().open_sources()
        self.centroid_store = self.open_store('dataroot_centroid')
        self.centroid_lq_store = self.open_store('dataroot_centroid_lq')
        sources['centroid'] = self._centroid_source('dataroot_centroid', self.centroid_store, self.options.scale)
        sources['centroid_lq'] = self._centroid_source('dataroot_centroid_lq', self.centroid_lq_store, 1)
        return sources

    def centroids_until(self, iteration: int) -> None:
        """Stops reading centroids after a training iteration, for schedules that end at the GT images.

        From then on samples have no ``centroid`` and ``centroid_lq``. All samples of a batch belong to one iteration,
        so that they always have the same entries. Bare indices, which have no iteration, always get centroids. To be
        called before a loader starts its workers, which hold copies of the dataset.

        Args:
            iteration: Last iteration (counted from 1) whose samples hold centroids; 0 for none.
        """
        self._last_iteration = iteration

    def sources_at(self, iteration: int) -> Mapping[str, Source]:
        """Gives the images that samples hold in a training iteration (0: not known)."""
        if self._last_iteration is not None and iteration > self._last_iteration:
            return self._sources_without_centroids
        return self.sources

    def _centroid_source(self, option: str, store: ImageStore, scale: int) -> Source:
        candidates = [[lq for _, lq in self.pairs]]
        if self.gt_store is not None:
            candidates.append([gt for gt, _ in self.pairs])
        try:
            keys = pairing.matching_keys(store.keys(), candidates)
        except UserError as error:
            raise UserError(
                f'{self.options.where}.{option} ({store.path}) was not made for the images of dataroot_lq '
                f'({self.lq_store.path}): {error} Make the centroids again, or change one of the two options.'
            ) from error
        return self.source(option, store, keys, scale)
