"""Making an LMDB that stock BasicSR reads."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.storage.basicsr_lmdb import INDEX_FILE
from basicsr_ext.storage.lmdb_writer import LmdbWriter


class BasicSRLmdbWriter(LmdbWriter):
    """Writes PNG images and ``meta_info.txt``, as BasicSR's own ``make_lmdb_from_imgs`` does.

    Images are uint8 or uint16, and all alike. BasicSR takes a name's part before its first dot for the key, and encodes
    keys as ASCII: other keys are refused.

    Args:
        path: The LMDB directory to make; its name ends in ``.lmdb``.
        compress_level: Of PNG, 0 (fast) to 9 (small).

    Raises:
        UserError: The name is wrong, something exists under it, or the level is not a level.
    """

    def __init__(self, path: str | Path, compress_level: int = 1) -> None:
        super().__init__(path)
        self._compress_level = compress_level
        self._format: tuple[int, np.dtype] | None = None
        if compress_level not in range(10):
            raise UserError(f'{self.path}: compress_level must be 0 to 9, found {compress_level!r}.')

    def _check(self, key: str, image: np.ndarray) -> None:
        if '.' in key or not key.isascii() or not key.isprintable():
            raise UserError(
                f'{self.path}: BasicSR cannot find key "{key}" again: it allows no dots and nothing but ASCII. '
                'Rename the image, or write the raw layout, which allows any key.'
            )
        if image.dtype not in (np.uint8, np.uint16):
            raise UserError(f'{self.path}: image "{key}": expected uint8 or uint16, found {image.dtype}.')
        found = (image.shape[2], image.dtype)
        self._format = self._format or found
        if found != self._format:
            raise UserError(
                f'{self.path}: image "{key}": expected {self._format[0]} channels of {self._format[1]} as in the '
                f'images before, found {found[0]} of {found[1]}.'
            )

    def _encode(self, name: bytes, image: np.ndarray) -> bytes:
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else np.ascontiguousarray(image)
        done, encoded = cv2.imencode('.png', bgr, [cv2.IMWRITE_PNG_COMPRESSION, self._compress_level])
        assert done
        return encoded.tobytes()

    def _write_index(self, folder: Path) -> None:
        lines = (
            f'{key}.png ({height},{width},{channels}) {self._compress_level}\n'
            for key, (height, width, channels) in self._shapes.items()
        )
        (folder / INDEX_FILE).write_text(''.join(lines), encoding='ascii')
