"""Centroids in the making: who computes which, what is done already, and the two stores at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import image_digest
from basicsr_ext.functional.resize import downsample
from basicsr_ext.prepare.assembling import assemble, begin
from basicsr_ext.prepare.jobs import check_workers, run_jobs
from basicsr_ext.prepare.keeping import kept
from basicsr_ext.prepare.output import Output
from basicsr_ext.prepare.pieces import Pieces
from basicsr_ext.prepare.pixels import from_unit, to_unit
from basicsr_ext.prepare.sharing import on_first_rank
from basicsr_ext.storage import ImageStore, RawLmdbStore

Forward = Callable[[Sequence[str], Sequence[np.ndarray]], list[np.ndarray]]


class CentroidPieces:
    """A batch of images is a piece; the first rank owns the pieces and makes the stores of them.

    Args:
        output: Store of centroids.
        output_lq: Store of downsampled centroids.
        store: The LR images.
        batches: Their names; what goes through the network together stays together, whoever computes it.
        record: What the stores say about themselves, with ``scale`` and ``dtype``.
        stop_record: What else must be the same when a stopped run is gone on with.
    """

    def __init__(
        self,
        output: Path,
        output_lq: Path,
        store: ImageStore,
        batches: Sequence[Sequence[str]],
        record: Mapping[str, Any],
        stop_record: Mapping[str, Any],
    ) -> None:
        paths = {'centroid_lq': output_lq, 'centroid': output}
        self._outputs = {
            kind: Output(path, store.channels, np.dtype(record['dtype']), meta={'kind': kind, **record})
            for kind, path in paths.items()
        }
        self._store = store
        self._batches = batches
        self._record = record
        self._pieces = Pieces(output, {**record, **stop_record})
        self._finished_before = False

    def begin(self, num_workers: int | None) -> None:
        """Looks whether the outputs can be made, and goes on with what a stopped run left.

        Raises:
            UserError: An output exists, an image is damaged, or the stopped run had other settings.
        """
        workers = check_workers(num_workers)
        for output in self._outputs.values():
            if not output.is_store:
                raise UserError(f'{output.path}: the name of a store must end in ".lmdb".')
        self._finished_before = begin(self._pieces, self._outputs)
        fresh = not any(self._pieces.has(index) for index in range(len(self._batches)))
        if fresh and not isinstance(self._store, RawLmdbStore):
            # A damaged image shall not be found after hours.
            job = partial(_read, self._store)
            for _ in run_jobs(job, self._store.keys(), num_workers=workers, description='looking at the LR images'):
                pass

    def fill(self, forward: Forward, rank: int, ranks: int) -> None:
        """Computes what is missing of this rank's share: every ``ranks``-th batch.

        Args:
            forward: Gives the SR images of LR images and their names, floating point around [0, 1].
            rank: Number of this rank, from 0.
            ranks: How many there are.
        """
        share = range(rank, len(self._batches), ranks)
        missing = [index for index in share if not self._pieces.has(index)]
        description = 'centroids' if ranks == 1 else f'centroids, rank {rank}'
        for _ in run_jobs(
            partial(self._make, forward),
            missing,
            num_workers=0,  # the network runs here
            description=description,
            done=len(share) - len(missing),
            unit='image' if len(self._batches) == len(self._store) else 'batch',
        ):
            pass
        on_first_rank(lambda: None)  # hence all ranks are done

    def _make(self, forward: Forward, index: int) -> None:
        keys = self._batches[index]
        images = [self._store.read(key) for key in keys]
        arrays, digests = {}, {}
        for key, image, output in zip(keys, images, forward(keys, images), strict=True):
            centroid = from_unit(output, self._record['dtype'])
            arrays[f'centroid {key}'] = centroid
            arrays[f'centroid_lq {key}'] = _downsampled(centroid, self._record['scale'])
            digests[key] = np.array(image_digest(image))
        # A piece of their own, so that they can be had without the pixels; first, since the other one tells what is done.
        self._pieces.save(len(self._batches) + index, digests)
        self._pieces.save(index, arrays)

    def assemble(self) -> None:
        """Makes both stores of the pieces, then removes these; where anything fails, no store stays."""
        if not self._finished_before:
            count = len(self._batches)
            digests = {
                key: str(digest) for index in range(count) for key, digest in self._pieces.load(count + index).items()
            }
            outputs = {
                kind: output._replace(meta={**output.meta, 'lq_digests': digests})
                for kind, output in self._outputs.items()
            }
            assemble(self._pieces, count, outputs)
        self._pieces.remove()

    def kept(self) -> AbstractContextManager[None]:
        """Keeps the pieces where work fails or is stopped, and says so: what the network or the device did can be mended."""
        return kept(self._pieces, len(self._batches), after=UserError)


def _read(store: ImageStore, key: str) -> None:
    store.read(key)


def _downsampled(centroid: np.ndarray, scale: int) -> np.ndarray:
    """MATLAB's bicubic on the stored integers, or on floating point, which is clipped as it is stored."""
    if centroid.dtype.kind != 'f':
        return downsample(centroid, scale)
    return from_unit(downsample(to_unit(centroid), scale), centroid.dtype)
