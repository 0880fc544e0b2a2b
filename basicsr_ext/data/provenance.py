"""Whether centroids belong to the training set that they are used with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import image_digest
from basicsr_ext.storage.base import ImageStore

_SAMPLED_IMAGES = 8
_KINDS = {'dataroot_centroid': 'centroid', 'dataroot_centroid_lq': 'centroid_lq'}


def check_centroids(train_set: Any, scale: int) -> Mapping[str, Any]:
    """Refuses centroids that were made for other images, another scale, or by two different runs.

    The keys and sizes of all images were compared when the dataset was built; here the record that
    ``basicsr prepare centroids`` keeps is compared, and the pixels of some LQ images spread over the set.

    Args:
        train_set: A :class:`~basicsr_ext.data.paired_centroid_dataset.PairedCentroidDataset`.
        scale: Of the run.

    Returns:
        The record of the centroids: network, weights, scale and so on.

    Raises:
        UserError: Says which record or which images differ.
    """
    stores: dict[str, ImageStore] = {
        'dataroot_centroid': train_set.centroid_store,
        'dataroot_centroid_lq': train_set.centroid_lq_store,
    }
    for option, store in stores.items():
        kind = store.meta.get('kind')
        if kind != _KINDS[option]:
            raise UserError(
                f'datasets.train.{option}: expected a store that "basicsr prepare centroids" made as {_KINDS[option]}, found '
                f'{store.path} with {f"kind {kind}" if kind else "no record of how it was made"}.'
            )
        if store.meta.get('scale') != scale:
            raise UserError(
                f'datasets.train.{option}: {store.path} was made for scale {store.meta.get("scale")}, and this run has '
                f'scale {scale}.'
            )
    centroid, centroid_lq = (store.meta for store in stores.values())
    differing = [key for key in centroid if key != 'kind' and centroid[key] != centroid_lq.get(key)]
    if differing:
        raise UserError(
            'datasets.train: dataroot_centroid and dataroot_centroid_lq come from different runs of "basicsr prepare '
            f'centroids": they differ in {", ".join(differing)}. Name the two stores that one run made.'
        )
    _check_pixels(train_set, centroid['lq_digests'])
    return centroid


def _check_pixels(train_set: Any, digests: Mapping[str, str]) -> None:
    keys = [lq_key for _, lq_key in train_set.pairs]
    sampled = keys[:: max(1, len(keys) // _SAMPLED_IMAGES)]
    differing = [key for key in sampled if image_digest(train_set.lq_store.read(key)) != digests.get(key)]
    if differing:
        raise UserError(
            f'datasets.train.dataroot_centroid: the centroids in {train_set.centroid_store.path} were made from other LQ '
            f'images than those in {train_set.lq_store.path}: of {len(sampled)} compared, {len(differing)} differ, first '
            f'"{differing[0]}". Make the centroids from this LQ set.'
        )
