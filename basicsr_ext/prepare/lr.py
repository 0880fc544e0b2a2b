"""Making LR images: exact MATLAB bicubic downsampling, optionally with noise."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from tqdm import tqdm

from basicsr_ext import __version__
from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import downsample, mod_crop
from basicsr_ext.prepare.folder_writer import ImageFolderWriter
from basicsr_ext.prepare.pixels import from_unit, to_unit
from basicsr_ext.storage import RawLmdbWriter, open_store


def make_lr(
    input: str | Path,
    output: str | Path,
    scale: int,
    *,
    double: bool = False,
    noise_sigma: float = 0.0,
    noise_seed: int = 0,
    suffix: str = '',
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

    Returns:
        Number of images.

    Raises:
        UserError: An argument is out of range, the output exists, or an image is damaged or smaller than the scale.
    """
    if scale < 2:
        raise UserError(f'scale: expected an integer of at least 2, found {scale}.')
    if not 0 <= noise_sigma <= 1:
        raise UserError(f'noise sigma: expected 0 to 1 (a fraction of the full range), found {noise_sigma}.')
    if noise_seed < 0:
        raise UserError(f'noise seed: expected 0 or more, found {noise_seed}.')
    store = open_store(input)
    keys = store.keys()
    if not keys:
        raise UserError(f'{input}: expected images, found none.')
    with _open_writer(output, store.channels, store.dtype) as writer:
        writer.meta.update(
            kind='lr',
            source=Path(input).absolute().name,
            scale=scale,
            resizer='matlab_bicubic',
            double=double,
            noise_sigma=noise_sigma,
            noise_seed=noise_seed,
            tool_version=__version__,
        )
        for key in tqdm(keys, desc='LR images', unit='image', disable=None):
            image = store.read(key)
            if min(image.shape[:2]) < scale:
                raise UserError(
                    f'{input}: image "{key}" has {image.shape[0]}x{image.shape[1]} pixels, which is too small for '
                    f'scale {scale}: remove it, or choose a smaller scale.'
                )
            low = lr_image(image, scale, double=double)
            if noise_sigma > 0:
                low = to_unit(low) + gaussian_noise(low.shape, noise_sigma, noise_seed, key)
            writer.put(key + suffix, from_unit(low, store.dtype) if low.dtype.kind == 'f' else low)
    return len(keys)


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
    return downsample(to_unit(image) if floating else image, scale)


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


def _open_writer(output: str | Path, channels: int, dtype: np.dtype) -> RawLmdbWriter | ImageFolderWriter:
    if Path(output).suffix == '.lmdb':
        return RawLmdbWriter(output, channels=channels, dtype=dtype)
    return ImageFolderWriter(output, dtype=dtype)
