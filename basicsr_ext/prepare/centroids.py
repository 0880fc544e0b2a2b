"""Making centroid stores for ECO (arXiv 2312.17526): a teacher's SR images, and what they downsample to."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from basicsr_ext import __version__
from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import keys_digest
from basicsr_ext.functional.precision import PRECISIONS, overflow_hint
from basicsr_ext.networks import inference
from basicsr_ext.networks.devices import resolve_device
from basicsr_ext.networks.requirements import requirements_of
from basicsr_ext.networks.tiling import check_tile, overlap_warning, resolve_overlap
from basicsr_ext.networks.weights import digest_tensors, sha256
from basicsr_ext.prepare.centroid_pieces import CentroidPieces
from basicsr_ext.prepare.pixels import to_unit
from basicsr_ext.prepare.recognised import detect_architecture
from basicsr_ext.prepare.sharing import on_first_rank, own_device, shared_work
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.teacher import build_teacher, check_network_option, teacher_from_weights
from basicsr_ext.storage import ImageStore

DTYPES = ('uint8', 'uint16', 'float32')


class Pass(NamedTuple):
    """How the teacher runs; the fields are arguments of :func:`make_centroids`."""

    scale: int
    tile: int | None
    overlap: int
    batch_size: int
    precision: str
    self_ensemble: bool
    window: int = 1  # of the network itself

    def check(self) -> None:
        """Refuses values out of range with a UserError."""
        for name in ('scale', 'batch_size'):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f'--{name}: expected a positive integer, found {value!r}.')
        if self.precision not in PRECISIONS:
            raise UserError(f'--precision: expected one of {", ".join(PRECISIONS)}, found {self.precision!r}.')
        check_tile(self.tile, self.overlap)


def make_centroids(
    lq: str | Path,
    output: str | Path,
    output_lq: str | Path,
    *,
    network: Mapping[str, Any] | None,
    weights: str | Path,
    scale: int | None,
    param_key: str | None = None,
    tile: int | None = None,
    overlap: int | None = None,
    batch_size: int = 1,
    precision: str = 'fp32',
    self_ensemble: bool = False,
    dtype: str = 'uint8',
    device: str = 'auto',
    launcher: str | None = 'none',
    num_workers: int | None = None,
) -> int:
    """Runs a teacher over LR images; stores its clipped output, the empirical centroids, and their downsampling.

    The centroids are ``mu = f_hat(x)`` (Eq. 7), rounded to ``dtype``; the second store holds ``down(mu)`` (Eq. 11),
    computed on whole images from the rounded ``mu`` by MATLAB's bicubic. Both carry the names of the LR images, and
    record where they come from. Both appear when all images are done, or neither.

    What is done lies in ``<output>.parts`` until then. After a stop, even a kill, the same call goes on from there. Ranks
    share the images. The stores are the same to the bit, however often the work was stopped and by how many ranks it was
    done, on the same kind of device with the same number of threads.

    Args:
        lq: Folder or store of LR images.
        output: Raw LMDB store of centroids to write.
        output_lq: Raw LMDB store of downsampled centroids to write.
        network: Network option of BasicSR: ``type`` and the arguments of that class; ``None`` takes what the file of weights
            says of its network; where it says nothing, spandrel recognises it.
        weights: File of trained weights.
        scale: Factor by which the network enlarges; ``None`` is allowed without a network option, and takes the network's.
        param_key: Entry of the file of weights; ``None`` takes ``params_ema``, else ``params``, else the whole file.
        tile: Size of tiles in LR pixels; ``None`` runs on whole images.
        overlap: Of neighbouring tiles, in LR pixels; ``None``: 16, or half of a smaller tile.
        batch_size: Tiles that go through the network together; without tiles, consecutive images of equal size.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        self_ensemble: Average over the eight flips and transpositions.
        dtype: Of the stored images: ``uint8``, ``uint16`` or ``float32``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        launcher: ``none``, ``pytorch`` or ``slurm``, which started the ranks; ``None`` recognises torchrun.
        num_workers: Processes that look for damaged images before the work begins; ``None``: one for each processor.

    Returns:
        Number of images.

    Raises:
        UserError: An argument is out of range, a file is missing or damaged, an output exists, the weights do not fit
            the network, the network does not fit the images or the scale, or a stopped run had other settings.
    """
    if dtype not in DTYPES:
        raise UserError(f'--dtype: expected one of {", ".join(DTYPES)}, found {dtype!r}.')
    if Path(output).absolute() == Path(output_lq).absolute():
        raise UserError(f'--output_lq: expected another path than that of the centroids, found {output_lq} for both.')
    where = resolve_device(own_device(device))
    teacher = None
    if network is None:
        network, scale = teacher_from_weights(weights, scale)
    if network is None:
        teacher, scale, network = detect_architecture(weights, param_key, scale)
    else:
        check_network_option(network)
    if warning := overlap_warning(tile, overlap):
        print(f'warning: --overlap: {warning}', file=sys.stderr)
    settings = Pass(scale, tile, resolve_overlap(tile, overlap), batch_size, precision, self_ensemble)
    settings.check()
    store = open_source(lq)
    if teacher is None:
        teacher = build_teacher(network, weights, param_key, where)
        settings = settings._replace(window=requirements_of(network).window)
    else:
        settings = settings._replace(window=teacher.size_multiple)
    teacher = teacher.to(where)
    record = {
        'network': dict(network),
        'weights': Path(weights).name,
        'weights_sha256': sha256(weights),
        'weights_tensors_sha256': digest_tensors(weights),
        'param_key': param_key,
        'source': Path(lq).absolute().name,
        'source_count': len(store),
        'source_keys_sha256': keys_digest(store.keys()),
        'resizer': 'matlab_bicubic',
        **settings._asdict(),
        'overlap': None if tile is None else settings.overlap,
        'dtype': dtype,
        'tool_version': __version__,
    }
    batches = list(_batches(store, settings.batch_size if tile is None else 1))
    pieces = CentroidPieces(
        Path(output),
        Path(output_lq),
        store,
        batches,
        record,
        stop_record={'command': 'centroids', 'device': where.type, **source_record(store)},
    )

    def forward(keys: Sequence[str], images: Sequence[np.ndarray]) -> list[np.ndarray]:
        return super_resolve(teacher, images, settings, keys[0])

    with shared_work(launcher) as (rank, ranks), pieces.kept():
        on_first_rank(lambda: pieces.begin(num_workers))
        pieces.fill(forward, rank, ranks)
        on_first_rank(pieces.assemble)
    return len(store)


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

    try:
        outputs = inference.super_resolve(
            teacher, batch.contiguous().to(device), inference.Inference(**settings._asdict())
        )
        outputs = outputs.images.permute(0, 2, 3, 1).cpu().numpy()
    except UserError:
        raise
    except Exception as error:  # whatever a network makes of an image that it was not made for
        raise _explained(error, name, images[0].shape) from error
    if outputs.shape[-1] != images[0].shape[-1]:
        raise UserError(
            f'The network gives {outputs.shape[-1]} channels for images of {images[0].shape[-1]}: change the network.'
        )
    if not np.isfinite(outputs).all():
        raise UserError(
            f'The network gives values that are not finite for image "{name}". {overflow_hint(settings.precision)}.'
        )
    return list(outputs)


def _explained(error: Exception, name: str, shape: tuple[int, ...]) -> UserError:
    if isinstance(error, torch.cuda.OutOfMemoryError):
        hint = 'the device has not enough memory: choose a smaller tile or batch size'
    else:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        hint = f'{reason}. Does its number of input channels fit?'
    return UserError(
        f'The network fails on image "{name}" of {shape[0]}x{shape[1]} pixels, {shape[2]} channels: {hint}.'
    )


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
