"""Luminance images for networks that refine an enlarged image, as VDSR's training on 291 images needs them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr_ext import __version__
from basicsr_ext.cli.prepare_luma import FACTORS, PATCH_SIZE
from basicsr_ext.errors import UserError
from basicsr_ext.functional.luminance import luminance
from basicsr_ext.functional.resize import downsample, imresize, mod_crop, upsample
from basicsr_ext.prepare.jobs import check_workers
from basicsr_ext.prepare.output import Output
from basicsr_ext.prepare.pixels import to_unit
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.step import make_images
from basicsr_ext.storage import ImageStore


def make_luma(
    inputs: Sequence[str | Path],
    output: str | Path,
    output_lq: str | Path,
    scales: Sequence[int],
    *,
    factors: Sequence[float] = FACTORS,
    patch_size: int = PATCH_SIZE,
    output_small: str | Path | None = None,
    round_luma: bool = False,
    num_workers: int | None = None,
) -> int:
    """Makes stores of luminance and of its bicubic enlargement, float32 in one channel, equal in size.

    Every image gives a copy for each factor and scale: shrunk by the factor as MATLAB shrinks stored integers, its
    luminance taken in double precision, cropped to a multiple of the scale, shrunk by the scale and enlarged again by
    MATLAB's bicubic on doubles. Nothing is clipped, nor rounded without ``round_luma``, before it becomes float32. Whole
    copies are stored: patches, flips and rotations are the dataset's in training (``gt_size: 41`` at ``scale: 1``), and a
    patch is drawn from each copy in proportion to its area, or is one of those side by side (``grid: true``). A copy is called
    ``<folder>/<image>_<factor>_x<scale>``.

    Args:
        inputs: Folders or stores of RGB images (grey counts as RGB); their last names differ.
        output: Raw LMDB store of luminance to write.
        output_lq: Raw LMDB store of enlarged luminance to write.
        scales: One or more factors of super-resolution, each at least 2.
        factors: Of the shrunk copies, above 0 and up to 1.
        patch_size: Copies that are smaller than this hold no patch, and are left out.
        output_small: Raw LMDB store of the luminance before it is enlarged, for networks that enlarge it themselves.
        round_luma: Rounds the luminance of a copy to whole numbers of [0, 255] before it is shrunk, as MATLAB's
            ``rgb2ycbcr`` does with 8-bit images, and so the training images of VDSR's PyTorch code and of AIL; what is
            made from it is not rounded.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Number of copies.

    Raises:
        UserError: An argument is out of range, an output exists, an image is damaged, or no copy is large enough.

    Source: Kim, Lee and Lee, "Accurate Image Super-Resolution Using Very Deep Convolutional Networks", CVPR 2016.
    """
    paths = {'luma_lq': output_lq, 'luma_small': output_small, 'luma': output}
    _check(inputs, [path for path in paths.values() if path is not None], scales, factors, patch_size)
    num_workers = check_workers(num_workers)
    stores = [open_source(path, channels=3) for path in inputs]
    kinds = [kind for kind, path in paths.items() if path is not None]
    make = _MakeCopies(stores, tuple(scales), tuple(factors), patch_size, kinds, round_luma)
    jobs = [(number, key) for number, store in enumerate(stores) for key in store.keys()]
    count = sum(len(make.copies(number, key)) for number, key in jobs)
    if not count:
        raise UserError(f'--patch_size: no image has {patch_size}x{patch_size} pixels in any of its copies.')
    record: dict[str, Any] = {
        'sources': [store.path.absolute().name for store in stores],
        'scales': list(scales),
        'factors': list(factors),
        'patch_size': patch_size,
        'resizer': 'matlab_bicubic',
        'round_luma': round_luma,
        'tool_version': __version__,
    }
    outputs = {
        kind: Output(Path(path), 1, np.dtype(np.float32), meta={'kind': kind, **record})
        for kind, path in paths.items()
        if path is not None
    }
    make_images(
        make,
        jobs,
        outputs,
        settings={**record, 'inputs': [source_record(store) for store in stores]},
        num_workers=num_workers,
        description='luminance',
    )
    return count


def luma_images(image: np.ndarray, factor: float, scale: int, round_luma: bool = False) -> dict[str, np.ndarray]:
    """Luminance of a shrunk image, what bicubic downsampling makes of it, and that enlarged again.

    Args:
        image: RGB of shape (height, width, 3), uint8 or uint16.
        factor: By which the image is shrunk first; 1 leaves it.
        scale: Of super-resolution.
        round_luma: Rounds luminance to whole numbers of [0, 255] before it is shrunk.

    Returns:
        ``luma``, ``luma_small`` and ``luma_lq``: float64 arrays (height, width), about [16/255, 235/255]; bicubic
        resizing may go a little beyond.
    """
    if factor != 1:
        image = imresize(image, factor)
    gt = luminance(to_unit(image) * 255)
    gt = mod_crop((np.floor(gt + 0.5) if round_luma else gt) / 255, scale)  # MATLAB rounds halves up
    small = downsample(gt, scale)
    return {'luma': gt, 'luma_small': small, 'luma_lq': upsample(small, scale)}


class _MakeCopies(NamedTuple):
    """Makes all copies of one image; the fields are arguments of :func:`make_luma`, with the inputs opened."""

    stores: Sequence[ImageStore]
    scales: Sequence[int]
    factors: Sequence[float]
    patch_size: int
    kinds: Sequence[str]
    round_luma: bool

    def copies(self, number: int, key: str) -> dict[str, tuple[float, int]]:
        """Name -> factor and scale of each copy that holds a patch."""
        store = self.stores[number]
        height, width = store.spec(key)[:2]
        shorter = min(height, width)
        found = {}
        for factor in self.factors:
            for scale in self.scales:
                side = int(np.ceil(round(shorter * factor, 9)))
                if side - side % scale >= self.patch_size:
                    found[f'{store.path.absolute().name}/{key}_{factor:g}_x{scale}'] = (factor, scale)
        return found

    def __call__(self, job: tuple[int, str]) -> dict[str, dict[str, np.ndarray]]:
        number, key = job
        image = self.stores[number].read(key)
        copies = {name: luma_images(image, *copy, self.round_luma) for name, copy in self.copies(number, key).items()}
        return {
            kind: {name: images[kind].astype(np.float32)[..., np.newaxis] for name, images in copies.items()}
            for kind in self.kinds
        }


def _check(
    inputs: Sequence[str | Path],
    outputs: Sequence[str | Path],
    scales: Sequence[int],
    factors: Sequence[float],
    patch_size: int,
) -> None:
    names = [Path(path).absolute().name for path in inputs]
    if len(set(names)) < len(names) or not names:
        raise UserError(f'--input: expected folders with different names, which images are named after, found {names}.')
    for path in outputs:
        if Path(path).suffix != '.lmdb':
            raise UserError(f'--output: expected a path ending in .lmdb, since PNGs hold no float32, found {path}.')
    if len({Path(path).absolute() for path in outputs}) < len(outputs):
        raise UserError(f'--output: expected a path of its own for every store, found {", ".join(map(str, outputs))}.')
    if not scales or len(set(scales)) < len(scales) or not all(isinstance(s, int) and s >= 2 for s in scales):
        raise UserError(f'--scale: expected different integers of at least 2, found {list(scales)}.')
    if not factors or len(set(factors)) < len(factors) or not all(0 < factor <= 1 for factor in factors):
        raise UserError(f'--factors: expected different numbers above 0 and up to 1, found {list(factors)}.')
    if not isinstance(patch_size, int) or patch_size < 1:
        raise UserError(f'--patch_size: expected a positive integer, found {patch_size!r}.')
