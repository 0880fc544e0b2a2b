"""Making LR images: exact MATLAB bicubic downsampling, or Pillow's, optionally with noise."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from basicsr_ext import __version__
from basicsr_ext.errors import UserError, first_of
from basicsr_ext.functional.resize import downsample, mod_crop, upsample
from basicsr_ext.prepare.jobs import check_workers
from basicsr_ext.prepare.output import KIND, Output
from basicsr_ext.prepare.pixels import from_unit, to_unit
from basicsr_ext.prepare.source import open_source, source_record
from basicsr_ext.prepare.step import make_images
from basicsr_ext.prepare.stores import check_compress_level
from basicsr_ext.storage import ImageStore
from basicsr_ext.storage.base import unfit_key

DTYPES = ('uint8', 'uint16', 'float32')
RESIZERS = ('matlab', 'pillow')
HR = 'hr'


def make_lr(
    input: str | Path,
    output: str | Path,
    scale: int,
    *,
    double: bool = False,
    noise_sigma: float = 0.0,
    noise_seed: int = 0,
    suffix: str = '',
    dtype: str | None = None,
    enlarge: bool = False,
    resizer: str = 'matlab',
    output_hr: str | Path | None = None,
    compress_level: int = 1,
    num_workers: int | None = None,
) -> int:
    """Makes the LR images of a set of HR images.

    Args:
        input: Folder or store of HR images.
        output: A raw LMDB store where it ends in ``.lmdb``, else a folder of PNGs. It must not exist; it appears only
            when all images are done.
        scale: Factor, at least 2.
        double: Round once at the end, as MATLAB's imresize after im2double, instead of after each pass, as on integers.
        noise_sigma: Standard deviation of the noise added to the LR images, on [0, 1].
        noise_seed: Seed of the noise.
        suffix: Appended to the names of the images, such as ``x4``.
        dtype: Of the LR images; ``None``: that of the HR images. ``float32`` keeps what ``double`` computes unrounded.
        enlarge: Enlarge the LR images again to the cropped size of the HR images, for networks that keep the size.
        resizer: ``matlab``; or ``pillow``, whose bicubic on 8-bit images makes LR images, and HR images whose sides are no
            multiples of the scale are not cropped but resized: so are the test sets of PSPL's published code made.
        output_hr: Where the HR images go that the LR images belong to, cropped or resized; ``None``: nowhere.
        compress_level: Of PNGs, 0 to 9.
        num_workers: Processes; ``None``: one for each processor.

    Returns:
        Number of images.

    Raises:
        UserError: An argument is out of range, the output exists, or an image is damaged or smaller than the scale.
    """
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 2:
        raise UserError(f'--scale: expected an integer of at least 2, found {scale!r}.')
    if not 0 <= noise_sigma <= 1:
        raise UserError(f'--noise_sigma: expected 0 to 1 (a fraction of the full range), found {noise_sigma}.')
    if not isinstance(noise_seed, int) or noise_seed < 0:
        raise UserError(f'--noise_seed: expected an integer of at least 0, found {noise_seed!r}.')
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f'--dtype: expected one of {", ".join(DTYPES)}, found {dtype!r}.')
    if reason := unfit_key(f'image{suffix}'):
        raise UserError(f'--suffix: expected an ending of names, such as x4, found {reason} in {suffix!r}.')
    if resizer not in RESIZERS:
        raise UserError(f'--resizer: expected one of {", ".join(RESIZERS)}, found {resizer!r}.')
    if resizer == 'pillow' and (double or noise_sigma or dtype not in (None, 'uint8')):
        raise UserError(
            '--resizer: pillow makes 8-bit images without noise: leave out --double, --noise_sigma and --dtype.'
        )
    if output_hr is not None and Path(output_hr).absolute() == Path(output).absolute():
        raise UserError(f'--output_hr: expected another path than --output, found {output_hr}.')
    check_compress_level(compress_level)
    num_workers = check_workers(num_workers)
    store = open_source(input)
    _check_sizes(store, scale)
    if resizer == 'pillow' and np.dtype(store.dtype) != np.uint8:
        raise UserError(f'{store.path}: --resizer pillow takes 8-bit images, found {np.dtype(store.dtype)}.')
    record = {
        'kind': 'lr',
        'source': Path(input).absolute().name,
        'scale': scale,
        'resizer': f'{resizer}_bicubic',
        'double': double,
        'noise_sigma': noise_sigma,
        'noise_seed': noise_seed,
        'enlarge': enlarge,
        'tool_version': __version__,
    }
    target = Output(
        Path(output), store.channels, np.dtype(dtype or store.dtype), compress_level=compress_level, meta=record
    )
    outputs = {KIND: target}
    if output_hr is not None:
        hr = {**record, 'kind': HR}
        outputs = {
            HR: Output(Path(output_hr), store.channels, np.dtype(store.dtype), compress_level=compress_level, meta=hr),
            **outputs,
        }
    for to in outputs.values():
        to.check_apart_from(store)
    make_images(
        _MakeLR(
            store, scale, double, noise_sigma, noise_seed, suffix, target.dtype.name, enlarge, resizer, HR in outputs
        ),
        store.keys(),
        outputs,
        settings={**record, **source_record(store), 'suffix': suffix},
        num_workers=num_workers,
        description='LR images',
    )
    return len(store)


class _MakeLR(NamedTuple):
    """Makes one LR image; the fields are arguments of :func:`make_lr`."""

    store: ImageStore
    scale: int
    double: bool
    noise_sigma: float
    noise_seed: int
    suffix: str
    dtype: str
    enlarge: bool
    resizer: str
    keeps_hr: bool

    def __call__(self, key: str) -> dict[str, dict[str, np.ndarray]]:
        image = self.store.read(key)
        if self.resizer == 'pillow':
            image, low = pillow_pair(image, self.scale)
            low = pillow_resize(low, image.shape[0], image.shape[1]) if self.enlarge else low
        else:
            image = mod_crop(image, self.scale)
            low = self._matlab(image, key)
        hr = {HR: {key: image}} if self.keeps_hr else {}
        return {**hr, KIND: {key + self.suffix: low}}

    def _matlab(self, image: np.ndarray, key: str) -> np.ndarray:
        low = lr_image(image, self.scale, double=self.double)
        if self.noise_sigma > 0:
            low = to_unit(low) + gaussian_noise(low.shape, self.noise_sigma, self.noise_seed, key)
        if self.enlarge:
            low = upsample(low, self.scale)
        if low.dtype != self.dtype:
            low = from_unit(to_unit(low), self.dtype)
        return low


def _check_sizes(store: ImageStore, scale: int) -> None:
    small = [f'"{key}" ({store.spec(key).height}x{store.spec(key).width})' for key in store.keys()
             if min(store.spec(key)[:2]) < scale]  # fmt: skip
    if small:
        raise UserError(
            f'{store.path}: {len(small)} of {len(store)} images are too small for scale {scale}: {first_of(small)}. Remove '
            'them, or choose a smaller scale.'
        )


def lr_image(image: np.ndarray, scale: int, *, double: bool = False) -> np.ndarray:
    """Crops an HR image to a multiple of the scale, and downsamples it by MATLAB's bicubic.

    Args:
        image: Of shape (height, width, channels), of any stored dtype.
        scale: Factor.
        double: Compute as on MATLAB doubles: nothing is rounded.

    Returns:
        An image of the same integer dtype; with ``double``, or of a floating point image, floating point around [0, 1],
        neither clipped nor rounded.
    """
    image = mod_crop(image, scale)
    floating = double or image.dtype.kind == 'f'
    return downsample(image, scale, double=True) if floating else downsample(image, scale)


def pillow_pair(image: np.ndarray, scale: int) -> tuple[np.ndarray, np.ndarray]:
    """HR and LR image as the published code of PSPL makes them for its tests.

    Args:
        image: Of shape (height, width, channels), uint8.
        scale: Factor.

    Returns:
        The image, resized where its sides are no multiples of the scale; and that shrunk.

    Source: https://github.com/Elin24/PSPL, ``mkdata.py``.
    """
    height, width = (side // scale for side in image.shape[:2])
    hr = pillow_resize(image, height * scale, width * scale)
    return hr, pillow_resize(hr, height, width)


def pillow_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes an image (height, width, channels), uint8, by Pillow's bicubic; one of that size stays as it is."""
    if image.shape[:2] == (height, width):
        return image
    grey = image.shape[2] == 1
    resized = Image.fromarray(image[..., 0] if grey else image).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized).reshape(height, width, image.shape[2])


def gaussian_noise(shape: tuple[int, ...], sigma: float, seed: int, key: str) -> np.ndarray:
    """Zero-mean Gaussian noise, independent for each pixel and channel, that depends on nothing but its arguments.

    Args:
        shape: Of the image.
        sigma: Standard deviation.
        seed: Of the whole set, 0 or more.
        key: Name of the image.
    """
    name = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), 'little')
    return np.random.default_rng([seed, name]).normal(0, sigma, shape)
