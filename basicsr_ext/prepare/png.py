"""Images as PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from basicsr_ext.prepare.whole_files import atomic_write
from basicsr_ext.storage.base import check_key

PNG_TYPES = (np.dtype('uint8'), np.dtype('uint16'))


def encode_png(image: np.ndarray, compress_level: int) -> bytes:
    """Encodes an image.

    Args:
        image: RGB or grey array (height, width, channels), uint8 or uint16.
        compress_level: 0 (fast) to 9 (small).
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else np.ascontiguousarray(image)
    _, encoded = cv2.imencode('.png', pixels, [cv2.IMWRITE_PNG_COMPRESSION, compress_level])
    return encoded.tobytes()


def write_png(folder: Path, key: str, image: np.ndarray, compress_level: int, scratch: Path) -> None:
    """Writes ``<folder>/<key>.png``, where the key may hold slashes; the file appears when it is whole.

    Args:
        folder: Made where it is missing.
        key: Name of the image.
        image: As for :func:`encode_png`.
        compress_level: As for :func:`encode_png`.
        scratch: Folder for unfinished files.

    Raises:
        UserError: The key leads out of the folder.
    """
    check_key(key, folder)
    file = folder / f'{key}.png'
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, encode_png(image, compress_level), scratch=scratch)
