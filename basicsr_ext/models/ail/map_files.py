"""Importance maps of whole training images, a version a round, in the experiment's folder (AIL's recursive form)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr_ext.data.crop_geometry import Geometry, augment, to_chw
from basicsr_ext.errors import UserError

_ROUND = re.compile(r'round_(\d+)')
_WHITE = {np.dtype(np.uint8): 255}  # what is stored for 1, where that is not 1
_MARK = 4 * 8  # bytes for each image of maps in the making: done or not, PSNR, sum, how many values are 1


class ImportanceMaps:
    """Reads and writes the maps of one run.

    The maps of a round lie in ``round_<number>``: ``maps.bin``, image after image, rows of pixels of channels; and
    ``maps.json``, which says what they were made from. A round in the making has a temporary name, and marks for the
    images that are done; it is renamed when all are: a round is there whole or not at all.
    :mod:`~basicsr_ext.models.ail.maps` makes them.

    Args:
        folder: Of all rounds.
        sizes: Height and width of each image, in HR pixels.
        channels: Of each image.
        dtype: ``float16`` or ``uint8``. Storing raises a map by less than a step: 1/2048 (0.0005) or 1/255 (0.004); after
            N rounds it is less than N + 1 steps too high, and never too low. 0 and 1 are exact.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Sequence[tuple[int, int]],
        channels: int,
        dtype: str = 'float16',
    ):
        self.folder = folder
        self.shapes = [(height, width, channels) for height, width in sizes]
        self.dtype = np.dtype(dtype)
        self.round: int | None = None
        self.record: dict[str, Any] = {}
        values = np.cumsum([0, *(height * width * channels for height, width in sizes)], dtype=np.int64)
        self._starts = [int(value) for value in values]

    def values_of(self, image: int) -> int:
        """Returns how many values the map of an image has."""
        return self._starts[image + 1] - self._starts[image]

    # ---- reading -------------------------------------------------------------------------------------------------

    def open(self, number: int, key: str | None) -> bool:
        """Opens the maps of a round.

        Args:
            number: Of the round.
            key: What they must have been made from (:func:`key_of`); ``None`` where that is not known.

        Returns:
            Whether they are there; maps that were made from something else do not count.
        """
        path = self._path(number)
        try:
            record = json.loads((path / 'maps.json').read_text(encoding='utf-8'))
            size = (path / 'maps.bin').stat().st_size
            if record['key'] != (key or record['key']) or size != self._bytes(len(self.shapes)):
                return False
            self._values = np.memmap(path / 'maps.bin', self.dtype, 'r')
        except (OSError, ValueError, KeyError):
            return False
        self.round, self.record = number, record
        return True

    def read(self, geometry: Geometry) -> torch.Tensor:
        """Reads the window of an image's map, flipped as the sample was.

        Returns:
            float32 of shape (channels, height, width), in [0, 1].
        """
        whole = self._values[self._starts[geometry.image] : self._starts[geometry.image + 1]]
        window = whole.reshape(self.shapes[geometry.image])
        window = window[geometry.top : geometry.top + geometry.height, geometry.left : geometry.left + geometry.width]
        return torch.from_numpy(to_chw(augment(window, geometry), unit_range=True)).float()

    # ---- writing -------------------------------------------------------------------------------------------------

    def begin(self, number: int, key: str) -> list[int]:
        """Makes the files of a round, or keeps those that were begun from the same things; called by one rank.

        Args:
            number: Of the round.
            key: What its maps are made from.

        Returns:
            Images whose maps are not yet there.
        """
        partial = self._partial(number)
        started = partial / 'key'
        if not started.is_file() or started.read_text() != key:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            with (partial / 'maps.bin').open('wb') as file:
                file.truncate(self._bytes(len(self.shapes)))
            (partial / 'done.bin').write_bytes(bytes(_MARK * len(self.shapes)))
            started.write_text(key)
        return np.flatnonzero(self._marks(partial)[:, 0] == 0).tolist()

    def write(self, number: int, image: int, importance: torch.Tensor) -> tuple[float, int]:
        """Writes the map of an image, and waits until it is on the disk; called by any rank.

        Args:
            number: Of the round, which was begun.
            image: Number of the image.
            importance: (channels, height, width), in [0, 1].

        Returns:
            Sum of what is stored, in [0, 1], and how many values of it are 1.
        """
        stored = stored_importance(importance, self.dtype)
        with (self._partial(number) / 'maps.bin').open('r+b') as file:
            file.seek(self._bytes(image))
            file.write(stored.tobytes())
            file.flush()
            os.fdatasync(file.fileno())
        one = _WHITE.get(self.dtype, 1)
        return float(stored.sum(dtype=np.float64)) / one, int(np.count_nonzero(stored == one))

    def mark(self, number: int, image: int, measure: float, total: float, full: int) -> None:
        """Marks the map of an image as written; called by one rank.

        Args:
            number: Of the round.
            image: Number of the image.
            measure: PSNR (dB, or NaN) of what it was made from.
            total: What :meth:`write` returned, as is
            full: this.
        """
        with (self._partial(number) / 'done.bin').open('r+b') as file:
            file.seek(_MARK * image)
            file.write(np.array([1, measure, total, full], np.float64).tobytes())

    def commit(self, number: int, key: str, record: Mapping[str, Any]) -> None:
        """Turns the maps of a round that is complete into those that are read, at once; called by one rank.

        Args:
            number: Of the round.
            key: What its maps were made from.
            record: Plain values to keep with them. Added are the mean, the share at 1, and the mean PSNR.

        Raises:
            UserError: The map of an image is missing.
        """
        partial, path = self._partial(number), self._path(number)
        done, measures, totals, full = self._marks(partial).T
        if not done.all():
            raise UserError(
                f'{partial}: expected the importance maps of {len(done)} images, found {int(done.sum())}: the update of round '
                f'{number} is not complete. Go on with --auto_resume.'
            )
        count = self._starts[-1]
        record = {**record, 'round': number, 'key': key}
        record.update(mean=float(totals.sum()) / count, share_at_one=float(full.sum()) / count)
        if not np.isnan(measures).any():
            record['psnr'] = float(measures.mean())
        with (partial / 'maps.json').open('w', encoding='utf-8') as file:
            json.dump(record, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
        for name in ('key', 'done.bin'):  # not before: without them a killed update would begin anew
            (path / name).unlink()

    def remove_before(self, number: int) -> None:
        """Removes the maps of earlier rounds; called by the first rank."""
        for path in self.folder.glob('round_*'):
            match = _ROUND.match(path.name)
            if match and int(match[1]) < number:
                shutil.rmtree(path, ignore_errors=True)

    def _marks(self, partial: Path) -> np.ndarray:
        return np.fromfile(partial / 'done.bin', np.float64).reshape(len(self.shapes), -1)

    def _path(self, number: int) -> Path:
        return self.folder / f'round_{number:03d}'

    def _partial(self, number: int) -> Path:
        return self.folder / f'round_{number:03d}.partial'

    def _bytes(self, image: int) -> int:
        return self._starts[image] * self.dtype.itemsize


def stored_importance(importance: torch.Tensor, dtype: np.dtype) -> np.ndarray:
    """Returns importance as it is stored: the next value that the type holds, never a lower one.

    Maps are stored anew each round, so that errors add up. Upwards they are one-sided, and a rise is never rounded away,
    however small it is: maps still reach 1.

    Args:
        importance: (channels, height, width), in [0, 1].
        dtype: float16, or uint8, whose 255 is 1.

    Returns:
        Array of shape (height, width, channels).
    """
    pixels = importance.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
    if dtype == np.uint8:
        return np.ceil(pixels * np.float32(_WHITE[dtype])).astype(np.uint8)
    stored = np.ascontiguousarray(pixels, np.float16)
    # the bits of a positive float16, counted up by one, are those of the next one
    stored.view(np.uint16)[...] += stored < pixels
    return stored


def key_of(tensors: Iterable[torch.Tensor], *settings: Any) -> str:
    """Fingerprint of what maps are made from.

    Args:
        tensors: Weights of the network whose errors they are made from.
        settings: Plain values.

    Returns:
        A sha256, in hexadecimal.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
