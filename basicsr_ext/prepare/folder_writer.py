"""Writing a folder of PNG images that appears only when it is complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

from basicsr_ext.errors import UserError


class ImageFolderWriter:
    """Writes images as PNGs into ``<path>.partial``, and renames it to ``path`` as the last step.

    Args:
        path: Folder to make; it must not exist.
        dtype: uint8 or uint16.

    Attributes:
        meta: Accepted as the LMDB writers do; a folder of images has no place for it.

    Raises:
        UserError: The folder exists, PNG cannot hold the dtype, or writing fails.
    """

    def __init__(self, path: str | Path, *, dtype: np.dtype | type | str) -> None:
        self.path = Path(path)
        self.meta: dict[str, Any] = {}
        self._partial = self.path.with_name(f'{self.path.name}.partial')
        if np.dtype(dtype) not in (np.dtype('uint8'), np.dtype('uint16')):
            raise UserError(
                f'{self.path}: PNG holds uint8 or uint16, not {np.dtype(dtype)}: write into a store (a path ending in '
                '.lmdb).'
            )
        self._refuse_existing()

    def __enter__(self) -> Self:
        with self._reporting():
            if self._partial.exists():
                shutil.rmtree(self._partial)
            self._partial.mkdir(parents=True)
        return self

    def put(self, key: str, image: np.ndarray) -> None:
        """Adds an RGB or grey image of shape (height, width, channels) as ``<key>.png``."""
        target = self._partial / f'{key}.png'
        if target.exists():
            raise UserError(f'{self.path}: two images are called "{key}".')
        pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.shape[2] == 3 else image[:, :, 0]
        _, encoded = cv2.imencode('.png', pixels)
        with self._reporting():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(encoded.tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._refuse_existing()
                with self._reporting():
                    self._partial.rename(self.path)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)

    def _refuse_existing(self) -> None:
        if os.path.lexists(self.path):
            raise UserError(f'{self.path} exists: remove it, or write to another path.')

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f'{self.path}: writing failed ({error.strerror}). Check that the place is writable and has room, or '
                'choose another.'
            ) from error
