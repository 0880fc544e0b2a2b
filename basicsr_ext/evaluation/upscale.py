"""``basicsr upscale``: a trained network on images of the user's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext.errors import UserError, first_of
from basicsr_ext.evaluation.early import check_weights_exist
from basicsr_ext.evaluation.pictures import FORMATS, BadImage, Picture, read_picture, write_picture
from basicsr_ext.files import follow_links
from basicsr_ext.prepare.progress import progress
from basicsr_ext.report.results import check_output
from basicsr_ext.storage.folder import EXTENSIONS, find_images


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
    overlap: int | None = None,
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
        overlap: Of neighbouring tiles; default: 16, or half of a smaller tile.
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
    _check_naming(suffix, ext)
    check_weights_exist(weights)
    sources = _find_sources(Path(images))
    targets = {key: Path(output, f'{key}{suffix}.{ext}') for key in sources}
    check_output(output, EXTENSIONS)
    _check_targets(sources, targets, overwrite)
    from basicsr_ext.evaluation.enlarging import open_enlarger  # not before: torch takes seconds to import

    enlarge = open_enlarger(
        weights,
        options=options,
        scale=scale,
        param_key=param_key,
        tile=tile,
        overlap=overlap,
        batch_size=batch_size,
        self_ensemble=self_ensemble,
        precision=precision,
        device=device,
    )
    done = Upscaled([], [], {})
    existed = Path(output).exists()
    try:
        with progress('upscale', len(sources)) as update:
            for key, source in sources.items():
                try:
                    picture = read_picture(source)
                    write_picture(targets[key], enlarge(picture, str(source)))
                except BadImage as error:
                    done.skipped[source] = str(error)
                else:
                    done.files.append(targets[key])
                    if _loses(picture, ext):
                        done.lossy.append(source)
                update()
        if not done.files:
            raise UserError(_none_of(list(done.skipped.values())))
    except BaseException:
        if not existed and not any(path.is_file() for path in Path(output).rglob('*')):
            shutil.rmtree(output, ignore_errors=True)
        raise
    return done


def _check_naming(suffix: str, ext: str) -> None:
    if set('/\\\0') & set(suffix):
        raise UserError(f'suffix: expected an ending of names, without slashes, found {suffix!r}.')
    if ext not in FORMATS:
        raise UserError(f'ext: expected one of {", ".join(FORMATS)}, found {ext!r}.')


def _find_sources(images: Path) -> dict[str, Path]:
    if images.is_file():
        return {images.stem: images}
    if not images.exists():
        raise UserError(f'{images}: expected an image or a folder of images, and there is nothing.')
    if not images.is_dir():
        raise UserError(f'{images}: expected an image or a folder of images, found a pipe or device.')
    if (images / 'data.mdb').is_file():
        raise UserError(
            f'{images}: expected an image or a folder of images, found a store (LMDB), which is not enlarged. Give the '
            'folder that it was made from.'
        )
    return {key: images / file for key, file in find_images(images).items()}


def _check_targets(sources: dict[str, Path], targets: dict[str, Path], overwrite: bool) -> None:
    inputs = {follow_links(file) for file in sources.values()}
    existing = [file for file in targets.values() if os.path.lexists(file)]
    own = next((file for file in existing if follow_links(file) in inputs), None)
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


def _none_of(reasons: list[str]) -> str:
    return reasons[0] if len(reasons) == 1 else f'None of {len(reasons)} images can be enlarged. {reasons[0]}'
