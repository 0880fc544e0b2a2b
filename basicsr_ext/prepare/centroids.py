"""Making centroid stores for ECO (arXiv 2312.17526): a teacher's SR images, and what they downsample to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from basicsr_ext import __version__
from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import image_digest, keys_digest
from basicsr_ext.functional.precision import PRECISIONS, autocast
from basicsr_ext.functional.resize import downsample
from basicsr_ext.functional.self_ensemble import self_ensemble as ensemble_forward
from basicsr_ext.functional.tiling import tile_spans, tiled_forward
from basicsr_ext.models.weights import sha256
from basicsr_ext.prepare.pixels import from_unit, to_unit
from basicsr_ext.prepare.teacher import build_teacher, check_network_option, resolve_device
from basicsr_ext.storage import ImageStore, RawLmdbWriter, open_store

DTYPES = ('uint8', 'uint16', 'float32')


class Pass(NamedTuple):
    """How the teacher runs; the fields are arguments of :func:`make_centroids`."""

    scale: int
    tile: int | None
    overlap: int
    batch_size: int
    precision: str
    self_ensemble: bool

    def check(self) -> None:
        """Refuses values out of range with a UserError."""
        for name in ('scale', 'batch_size'):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f'{name.replace("_", " ")}: expected a positive integer, found {value!r}.')
        if self.precision not in PRECISIONS:
            raise UserError(f'precision: expected one of {", ".join(PRECISIONS)}, found {self.precision!r}.')
        if self.tile is not None:
            tile_spans(self.tile, self.tile, self.overlap)


def make_centroids(
    lq: str | Path,
    output: str | Path,
    output_lq: str | Path,
    *,
    network: Mapping[str, Any],
    weights: str | Path,
    scale: int,
    param_key: str | None = None,
    tile: int | None = None,
    overlap: int = 16,
    batch_size: int = 1,
    precision: str = 'fp32',
    self_ensemble: bool = False,
    dtype: str = 'uint8',
    device: str = 'auto',
) -> int:
    """Runs a teacher over LR images; stores its clipped output, the empirical centroids, and their downsampling.

    The centroids are ``mu = f_hat(x)`` (Eq. 7), rounded to ``dtype``; the second store holds ``down(mu)`` (Eq. 11),
    computed on whole images from the rounded ``mu`` by MATLAB's bicubic. Both carry the names of the LR images, and
    record where they come from. Both appear when all images are done, or neither.

    Args:
        lq: Folder or store of LR images.
        output: Raw LMDB store of centroids to write.
        output_lq: Raw LMDB store of downsampled centroids to write.
        network: Network option of BasicSR: ``type`` and the arguments of that class.
        weights: File of trained weights.
        scale: Factor by which the network enlarges.
        param_key: Entry of the file of weights; ``None`` takes ``params_ema``, else ``params``, else the whole file.
        tile: Size of tiles in LR pixels; ``None`` runs on whole images.
        overlap: Of neighbouring tiles, in LR pixels.
        batch_size: Tiles that go through the network together; without tiles, consecutive images of equal size.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        self_ensemble: Average over the eight flips and transpositions.
        dtype: Of the stored images: ``uint8``, ``uint16`` or ``float32``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Returns:
        Number of images.

    Raises:
        UserError: An argument is out of range, a file is missing or damaged, an output exists, the weights do not fit
            the network, or the network does not fit the images or the scale.
    """
    settings = Pass(scale, tile, overlap, batch_size, precision, self_ensemble)
    settings.check()
    check_network_option(network)
    if dtype not in DTYPES:
        raise UserError(f'dtype: expected one of {", ".join(DTYPES)}, found {dtype!r}.')
    if Path(output).absolute() == Path(output_lq).absolute():
        raise UserError(f'output lq: expected another path than that of the centroids, found {output_lq} for both.')
    store = open_store(lq)
    keys = store.keys()
    if not keys:
        raise UserError(f'{lq}: expected LR images, found none.')
    teacher = build_teacher(network, weights, param_key, resolve_device(device))
    record = {
        'network': dict(network),
        'weights': Path(weights).name,
        'weights_sha256': sha256(weights),
        'param_key': param_key,
        'source': Path(lq).absolute().name,
        'source_count': len(keys),
        'source_keys_sha256': keys_digest(keys),
        'resizer': 'matlab_bicubic',
        **settings._asdict(),
        'overlap': None if tile is None else overlap,
        'dtype': dtype,
        'tool_version': __version__,
    }
    with _both_or_neither(output, output_lq, store.channels, dtype) as (centroids, centroids_lq):
        digests = _write(store, teacher, settings, dtype, centroids, centroids_lq)
        centroids.meta.update(kind='centroid', lq_digests=digests, **record)
        centroids_lq.meta.update(kind='centroid_lq', lq_digests=digests, **record)
    return len(keys)


def _write(
    store: ImageStore,
    teacher: torch.nn.Module,
    settings: Pass,
    dtype: str,
    centroids: RawLmdbWriter,
    centroids_lq: RawLmdbWriter,
) -> dict[str, str]:
    """Fills both stores, and returns the digests of the LR images."""
    digests = {}
    with tqdm(total=len(store), desc='centroids', unit='image', disable=None) as progress:
        for keys in _batches(store, settings.batch_size if settings.tile is None else 1):
            images = [store.read(key) for key in keys]
            for key, image, output in zip(keys, images, super_resolve(teacher, images, settings, keys[0]), strict=True):
                digests[key] = image_digest(image)
                centroid = from_unit(output, dtype)
                centroids.put(key, centroid)
                centroids_lq.put(key, _downsampled(centroid, settings.scale))
                progress.update()
    return digests


@torch.inference_mode()
def super_resolve(
    teacher: torch.nn.Module, images: Sequence[np.ndarray], settings: Pass, name: str
) -> list[np.ndarray]:
    """Runs the teacher over images of equal size.

    Args:
        teacher: Network in evaluation mode.
        images: Stored pixels of shape (height, width, channels).
        settings: How it runs.
        name: Of the first image, for messages.

    Returns:
        One float32 array of shape (height * scale, width * scale, channels) an image, not clipped.

    Raises:
        UserError: The network fails, or gives another shape or values that are not finite.
    """
    device = next(teacher.parameters()).device
    batch = torch.from_numpy(np.stack([to_unit(image, np.float32) for image in images])).permute(0, 3, 1, 2)

    def forward(batch: torch.Tensor) -> torch.Tensor:
        return tiled_forward(
            teacher, batch, settings.scale, settings.tile, settings.overlap, settings.batch_size
        ).float()

    try:
        with autocast(device, settings.precision):
            batch = batch.contiguous().to(device)
            outputs = ensemble_forward(forward, batch) if settings.self_ensemble else forward(batch)
        outputs = outputs.permute(0, 2, 3, 1).cpu().numpy()
    except RuntimeError as error:
        raise _explained(error, name, images[0].shape) from error
    if outputs.shape[-1] != images[0].shape[-1]:
        raise UserError(
            f'The network gives {outputs.shape[-1]} channels for images of {images[0].shape[-1]}: change the network.'
        )
    if not np.isfinite(outputs).all():
        raise UserError(
            f'The network gives values that are not finite for image "{name}": change the precision (found '
            f'{settings.precision}; try fp32), or the weights.'
        )
    return list(outputs)


def _explained(error: RuntimeError, name: str, shape: tuple[int, ...]) -> UserError:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        hint = 'the device has not enough memory: choose a smaller tile or batch size'
    else:
        hint = (
            f'{str(error).splitlines()[0]}. Does its number of input channels fit? A network that works in windows '
            'needs tiles of a multiple of its window'
        )
    return UserError(
        f'The network fails on image "{name}" of {shape[0]}x{shape[1]} pixels, {shape[2]} channels: {hint}.'
    )


def _downsampled(centroid: np.ndarray, scale: int) -> np.ndarray:
    """MATLAB's bicubic on the stored integers, or on floating point, which is clipped as it is stored."""
    if centroid.dtype.kind != 'f':
        return downsample(centroid, scale)
    return from_unit(downsample(to_unit(centroid), scale), centroid.dtype)


def _batches(store: ImageStore, limit: int) -> Iterator[list[str]]:
    """Runs of at most ``limit`` consecutive keys whose images have one size."""
    batch: list[str] = []
    keys = store.keys()
    for key in keys:
        if batch and (len(batch) == limit or store.spec(key) != store.spec(batch[0])):
            yield batch
            batch = []
        batch.append(key)
    if batch:
        yield batch


@contextmanager
def _both_or_neither(
    output: str | Path, output_lq: str | Path, channels: int, dtype: str
) -> Iterator[tuple[RawLmdbWriter, RawLmdbWriter]]:
    """Opens both stores for writing; where anything fails, even the last renaming, neither stays."""
    lq_is_there = False
    try:
        with RawLmdbWriter(output, channels=channels, dtype=dtype) as centroids:
            with RawLmdbWriter(output_lq, channels=channels, dtype=dtype) as centroids_lq:
                yield centroids, centroids_lq
            lq_is_there = True
    except BaseException:
        if lq_is_there:
            shutil.rmtree(output_lq, ignore_errors=True)
        raise
