"""Small images, and functions that write them as a folder or an LMDB."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter

KINDS = ('folder', 'basicsr', 'raw')


def random_image(shape: tuple[int, int, int], dtype: str = 'uint8', seed: int = 0) -> np.ndarray:
    """Noise that uses the whole range of the dtype."""
    generator = np.random.default_rng(seed)
    if dtype == 'float32':
        return generator.random(shape, np.float32)
    return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


def encode(image: np.ndarray, extension: str = '.png') -> bytes:
    """An image file of an RGB or grey array."""
    done, encoded = cv2.imencode(extension, image[..., ::-1] if image.shape[2] == 3 else image)
    assert done
    return encoded.tobytes()


def write_folder(folder: Path, images: dict[str, np.ndarray]) -> Path:
    for key, image in images.items():
        file = folder / f'{key}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(image))
    return folder


def write_basicsr(path: Path, images: dict[str, np.ndarray]) -> Path:
    with BasicSRLmdbWriter(path) as writer:
        for key, image in images.items():
            writer.put(key, image)
    return path


def write_raw(path: Path, images: dict[str, np.ndarray], **meta: object) -> Path:
    first = next(iter(images.values()))
    with RawLmdbWriter(path, channels=first.shape[2], dtype=first.dtype) as writer:
        for key, image in images.items():
            writer.put(key, image)
        writer.meta.update(meta)
    return path
