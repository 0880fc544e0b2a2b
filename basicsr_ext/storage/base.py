"""The interface that every image store offers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from basicsr_ext.errors import UserError

_DRIVE = re.compile('[A-Za-z]:')
# Most keys: parts of letters, digits and dashes, in which dots are not the first.
_PLAIN = re.compile(r'[\w-][\w.-]*(?:/[\w-][\w.-]*)*', re.ASCII)


def unfit_key(key: str) -> str:
    """Says why a name cannot be a key; empty where it can.

    Keys become paths below a folder, and values in UTF-8: one that leads out of the folder, or that some system reads as
    another path, is refused wherever it comes from.
    """
    if _PLAIN.fullmatch(key):
        return ''
    try:
        key.encode()
    except UnicodeEncodeError:
        return 'bytes that are no UTF-8'
    if not key:
        return 'an empty name'
    if '\0' in key or '\\' in key:
        return 'a backslash' if '\\' in key else 'a null character'
    if key.startswith('/') or _DRIVE.match(key):
        return 'an absolute path'
    parts = key.split('/')
    return next((f'the part "{part}"' for part in parts if part in ('', '.', '..')), '')


def check_key(key: str, where: object) -> None:
    """Refuses a name that cannot be a key.

    Args:
        key: The name of an image.
        where: The store or folder that it is in or is meant for, for the message.

    Raises:
        UserError: See :func:`unfit_key`.
    """
    if reason := unfit_key(key):
        raise UserError(
            f'{where}: image {key!r}: expected a name that is a path below a folder, found {reason}. Rename the '
            'image, and make the store again where it is one.'
        )


class ImageSpec(NamedTuple):
    """Shape and type of one stored image."""

    height: int
    width: int
    channels: int
    dtype: np.dtype


class ImageStore(ABC):
    """A read-only set of named images.

    Images are RGB (3 channels) or luminance/grey (1 channel) arrays of shape (height, width, channels), of dtype uint8
    ([0, 255]), uint16 ([0, 65535]) or float32 ([0, 1]). All images of a store have the same number of channels and the
    same dtype. A store may be pickled, may cross a fork, and may be read by several threads at once: whatever handle it
    needs is opened where it is used.

    Attributes:
        path: Where the store lies.
        channels: 1 or 3.
        dtype: Of all its images.
        meta: Free-form information kept with the store, such as where centroids come from; empty where there is none.
    """

    path: Path
    channels: int
    dtype: np.dtype
    meta: Mapping[str, Any]

    @abstractmethod
    def keys(self) -> Sequence[str]:
        """Names of all images, sorted, without extension."""

    @abstractmethod
    def spec(self, key: str) -> ImageSpec:
        """Shape and dtype of an image, without reading its pixels.

        Raises:
            UserError: The store has no such key.
        """

    @abstractmethod
    def _read(self, key: str, top: int, left: int, height: int, width: int) -> np.ndarray:
        """Reads a window that is known to lie inside the image."""

    def read(
        self, key: str, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None
    ) -> np.ndarray:
        """Reads an image, or a window of it.

        Args:
            key: Name of the image.
            top: First row of the window.
            left: First column of the window.
            height: Rows of the window; ``None`` reads to the bottom.
            width: Columns of the window; ``None`` reads to the right border.

        Returns:
            Array of shape (height, width, channels): contiguous, writable, and the caller's own.

        Raises:
            UserError: The key is unknown, the image is damaged, or the window leaves the image.
        """
        spec = self.spec(key)
        height = spec.height - top if height is None else height
        width = spec.width - left if width is None else width
        inside = top >= 0 and left >= 0 and top + height <= spec.height and left + width <= spec.width
        if not inside or height <= 0 or width <= 0:
            raise UserError(
                f'{self.path}: window top {top}, left {left}, {height}x{width} does not lie in image "{key}" '
                f'of {spec.height}x{spec.width} pixels.'
            )
        return self._read(key, top, left, height, width)

    def windows(self, places: Sequence[tuple[str, int, int]], height: int, width: int) -> list[np.ndarray]:
        """Gives windows of one size as arrays to be copied from, which may lie in the store itself.

        Args:
            places: Key, first row and first column of each; they must lie inside the images: that is not checked here.
            height: Rows of a window.
            width: Columns of a window.

        Returns:
            Arrays of shape (height, width, channels). They are not to be written to, and are valid while the store lives,
            in this process.

        Raises:
            UserError: An image is damaged.
        """
        return [self._read(key, top, left, height, width) for key, top, left in places]

    def verify(self, key: str) -> None:
        """Compares an image's pixels with their checksum, where the store keeps one.

        Raises:
            UserError: They are not those that were stored, or the key is unknown.
        """
        self.spec(key)

    def marks(self, keys: Sequence[str]) -> list[str]:
        """What tells the pixels of images from others, without reading them.

        Args:
            keys: Names of the images.

        Returns:
            For each image a kind of mark and its value, such as ``crc32 12345``; empty where the store knows of none.
        """
        return [''] * len(keys)

    def __len__(self) -> int:
        return len(self.keys())


class IndexedStore(ImageStore):
    """A store that knows the size of every image from the moment it is opened.

    Args:
        path: Where the store lies.
        sizes: Key -> (height, width).
        channels: 1 or 3.
        dtype: Of all images.
        meta: Free-form information.

    Raises:
        UserError: A key is none, such as one that leads out of a folder.
    """

    def __init__(
        self,
        path: Path,
        sizes: Mapping[str, tuple[int, int]],
        channels: int,
        dtype: np.dtype,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = path
        self.channels = channels
        self.dtype = dtype
        self.meta = dict(meta or {})
        self._keys = tuple(sorted(sizes))
        self._sizes = dict(sizes)
        for key in self._keys:
            check_key(key, path)

    def keys(self) -> Sequence[str]:
        return self._keys

    def spec(self, key: str) -> ImageSpec:
        try:
            height, width = self._sizes[key]
        except KeyError:
            raise UserError(
                f'{self.path}: no image "{key}"; there are {len(self._keys)} images, the first is "{self._keys[0]}".'
            ) from None
        return ImageSpec(height, width, self.channels, self.dtype)
