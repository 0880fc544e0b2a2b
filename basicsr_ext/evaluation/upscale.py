"""``basicsr upscale``: a trained network on images of the user's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from basicsr_ext.errors import UserError, first_of
from basicsr_ext.evaluation.network_file import TrainedNetwork, open_network
from basicsr_ext.evaluation.pictures import FORMATS, BadImage, Picture, read_picture, write_picture
from basicsr_ext.functional.device import resolve_device
from basicsr_ext.functional.inference import Inference, super_resolve
from basicsr_ext.functional.precision import PRECISIONS
from basicsr_ext.functional.resize import upsample
from basicsr_ext.functional.tiling import check_tile
from basicsr_ext.prepare.pixels import from_unit, to_unit
from basicsr_ext.report.results import check_output
from basicsr_ext.storage.folder import find_images


class Upscaled(NamedTuple):
    """What was done.

    Attributes:
        files: The images that were written.
        lossy: Inputs of which the format left something out: alpha, or the lower 8 of 16 bits.
        skipped: Inputs that could not be enlarged -> why.
    """

    files: list[Path]
    lossy: list[Path]
    skipped: dict[Path, str]


def upscale(
    images: str | os.PathLike,
    output: str | os.PathLike,
    weights: str | os.PathLike,
    *,
    options: str | os.PathLike | None = None,
    scale: int | None = None,
    param_key: str | None = None,
    tile: int | None = None,
    overlap: int = 16,
    batch_size: int = 1,
    self_ensemble: bool = False,
    precision: str = 'fp32',
    device: str = 'auto',
    suffix: str = '',
    ext: str = 'png',
    overwrite: bool = False,
) -> Upscaled:
    """Enlarges an image, or all images of a folder and its subfolders, by a trained network.

    Alpha is enlarged by MATLAB's bicubic: networks are trained on colours, not on masks. Grey images stay grey. A network of
    one channel gets the luminance, and the chroma is enlarged by MATLAB's bicubic.

    Results appear when they are whole. An image of a folder that cannot be enlarged is passed over.

    Args:
        images: Image, or folder.
        output: Folder for the results, made where it does not exist.
        weights: Network file; ours say themselves what network they belong to.
        options: Option file with ``network_g`` and ``scale``, for other files.
        scale: Factor; for networks that take enlarged images (of scale 1): these are enlarged by MATLAB's bicubic before.
        param_key: Entry of the file; default: ``params_ema``, else ``params``, else the whole file.
        tile: Size of tiles in pixels of the input; default: whole images.
        overlap: Of neighbouring tiles.
        batch_size: Tiles that go through the network together.
        self_ensemble: Average over the eight flips and transpositions.
        precision: ``fp32``, ``bf16`` or ``fp16``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        suffix: Appended to names.
        ext: Format of the results, one of :data:`~basicsr_ext.evaluation.pictures.FORMATS`.
        overwrite: Replace what is there.

    Raises:
        UserError: Weights or arguments are not as they must be, no image can be enlarged, or writing fails.
    """
    _check_arguments(tile, overlap, batch_size, precision, suffix, ext)
    sources = _find_sources(Path(images))
    targets = {key: Path(output, f'{key}{suffix}.{ext}') for key in sources}
    check_output(output)
    _check_targets(sources, targets, overwrite)
    trained = open_network(weights, resolve_device(device), options=options, param_key=param_key)
    before = _enlarged_before(trained, scale)
    how = Inference(trained.scale, tile, overlap, batch_size, self_ensemble, precision, *trained.needs)
    done = Upscaled([], [], {})
    existed = Path(output).exists()
    try:
        for key, source in tqdm(sources.items(), desc='upscale', unit='image', disable=None):
            try:
                picture = read_picture(source)
                write_picture(targets[key], enlarge(picture, trained, how, str(source), before))
            except BadImage as error:
                done.skipped[source] = str(error)
                continue
            done.files.append(targets[key])
            if _loses(picture, ext):
                done.lossy.append(source)
        if not done.files:
            raise UserError(_none_of(list(done.skipped.values())))
    except BaseException:
        if not existed and not any(path.is_file() for path in Path(output).rglob('*')):
            shutil.rmtree(output, ignore_errors=True)
        raise
    return done


def enlarge(picture: Picture, trained: TrainedNetwork, how: Inference, name: str, before: int = 1) -> Picture:
    """Enlarges one image.

    Args:
        picture: The image.
        trained: The network.
        how: How it runs.
        name: Of the image, for messages.
        before: Factor of bicubic enlargement before the network.

    Returns:
        The enlarged image, of the same type, grey where it was, with alpha where it had some.

    Raises:
        BadImage: The network fails on this image, or gives values that are not finite.
        UserError: It gives something else than an image.
    """
    pixels = picture.pixels
    unit = torch.from_numpy(to_unit(pixels, np.float32)).permute(2, 0, 1)[None].expand(-1, 3, -1, -1).contiguous()
    if how.tile is None:
        unit = unit.to(next(trained.network.parameters()).device)
    try:
        result = super_resolve(trained.network, upsample(unit, before) if before > 1 else unit, how).images[0].cpu()
    except UserError:
        raise
    except Exception as error:  # whatever a network makes of an image that it was not made for
        raise _explained(error, name, pixels.shape) from error
    if result.shape[0] != 3:
        raise UserError(f'The network gives {result.shape[0]} channels, expected 3: it makes no images in colour.')
    if not result.isfinite().all():
        raise BadImage(
            f'{name}: the network gives values that are not finite. Change the precision (found {how.precision}; try '
            'fp32), or the weights.'
        )
    result = result.mean(0, keepdim=True) if pixels.shape[2] == 1 else result
    alpha = None if picture.alpha is None else upsample(picture.alpha, trained.scale * before)
    return Picture(from_unit(result.permute(1, 2, 0).numpy(), pixels.dtype), alpha)


def _check_arguments(tile: int | None, overlap: int, batch_size: int, precision: str, suffix: str, ext: str) -> None:
    check_tile(tile, overlap)
    if batch_size < 1:
        raise UserError(f'batch size: expected a positive integer, found {batch_size}.')
    if precision not in PRECISIONS:
        raise UserError(f'precision: expected one of {", ".join(PRECISIONS)}, found {precision!r}.')
    if set('/\\\0') & set(suffix):
        raise UserError(f'suffix: expected an ending of names, without slashes, found {suffix!r}.')
    if ext not in FORMATS:
        raise UserError(f'ext: expected one of {", ".join(FORMATS)}, found {ext!r}.')


def _find_sources(images: Path) -> dict[str, Path]:
    if images.is_file():
        return {images.stem: images}
    if not images.exists():
        raise UserError(f'{images}: expected an image or a folder of images, and there is nothing.')
    return {key: images / file for key, file in find_images(images).items()}


def _check_targets(sources: dict[str, Path], targets: dict[str, Path], overwrite: bool) -> None:
    inputs = {file.resolve() for file in sources.values()}
    existing = [file for file in targets.values() if os.path.lexists(file)]
    own = next((file for file in existing if file.resolve() in inputs), None)
    if own is not None:
        raise UserError(f'{own} is an input, and would be overwritten. Choose another folder, or a --suffix.')
    if existing and not overwrite:
        raise UserError(
            f'{first_of([str(file) for file in existing])} exist already. Choose another folder or --suffix, or say '
            '--overwrite.'
        )


def _loses(picture: Picture, ext: str) -> bool:
    form = FORMATS[ext]
    return (picture.alpha is not None and not form.alpha) or (picture.pixels.dtype == np.uint16 and not form.deep)


def _enlarged_before(trained: TrainedNetwork, scale: int | None) -> int:
    if scale is None or scale == trained.scale:
        return 1
    if trained.scale != 1 or scale < 1:
        raise UserError(f'scale: the network enlarges by {trained.scale}, the command line says {scale}.')
    return scale


def _none_of(reasons: list[str]) -> str:
    return reasons[0] if len(reasons) == 1 else f'None of {len(reasons)} images can be enlarged. {reasons[0]}'


def _explained(error: BaseException, name: str, shape: tuple[int, ...]) -> BadImage:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error):
        hint = 'the device has not enough memory: choose smaller tiles (--tile)'
    else:
        hint = (str(error).splitlines() or [type(error).__name__])[0]
    return BadImage(f'{name}: the network fails on this image of {shape[0]}x{shape[1]} pixels: {hint}.')
