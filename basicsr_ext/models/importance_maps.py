"""Importance maps of whole training images, a version a round, in the experiment's folder (AIL's recursive form)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed

from basicsr_ext.data.crop_geometry import Geometry, augment, to_chw
from basicsr_ext.errors import UserError

_ROUND = re.compile(r'round_(\d+)')
_MARKS = ('done', 'measure', 'sum', 'at one')  # of each image of maps in the making


class ImportanceMaps:
    """Reads and writes the maps of one run.

    The maps of a round lie in ``round_<number>``: ``maps.bin``, image after image, rows of pixels of channels; and
    ``maps.json``, which says what they were made from. A round in the making has a temporary name, and is
    renamed when every rank has written its share: a round is there whole or not at all. Where making it was interrupted,
    the images that are done are not done again.

    Args:
        folder: Of all rounds.
        sizes: Height and width of each image, in HR pixels.
        channels: Of each image.
        dtype: ``float16`` (maps are off by 2.5e-4 at most) or ``uint8`` (by 2e-3). Importances 0 and 1 are exact.
        rank: This process; image ``i`` is the share of rank ``i % world_size``.
        world_size: Number of processes.
    """

    def __init__(
        self,
        folder: Path,
        sizes: Sequence[tuple[int, int]],
        channels: int,
        dtype: str = 'float16',
        rank: int = 0,
        world_size: int = 1,
    ):
        self.folder = folder
        self.shapes = [(height, width, channels) for height, width in sizes]
        self.dtype = np.dtype(dtype)
        self._one = 255 if self.dtype == np.uint8 else 1
        self.rank = rank
        self.world_size = world_size
        self.round: int | None = None
        self.record: dict[str, Any] = {}
        values = np.cumsum([0, *(height * width * channels for height, width in sizes)], dtype=np.int64)
        self._starts = [int(value) for value in values]

    # ---- reading -------------------------------------------------------------------------------------------------

    def open_on_all_ranks(self, number: int, key: str) -> bool:
        """Opens the maps of a round; all ranks must call it, and get the same answer.

        Args:
            number: Of the round.
            key: What they must have been made from.
        """
        opened = self.open(number, key)
        if self.world_size == 1:
            return opened
        answers = [False] * self.world_size
        distributed.all_gather_object(answers, opened)
        return all(answers)

    def key_of_first_rank(self, key: str) -> str:
        """Returns the first rank's key: networks with running statistics are not alike on all ranks to the last bit."""
        keys = [key]
        if self.world_size > 1:
            distributed.broadcast_object_list(keys, 0)
        return keys[0]

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
            if record['key'] != (key or record['key']) or (path / 'maps.bin').stat().st_size != self._bytes(
                len(self.shapes)
            ):
                return False
        except (OSError, ValueError, KeyError):
            return False
        self._values = np.memmap(path / 'maps.bin', self.dtype, 'r')
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

    def make(self, number: int, key: str, maps: Any, record: dict[str, Any]) -> None:
        """Makes the maps of a round, each rank its share, and opens them; all ranks must call it.

        Args:
            number: Of the round.
            key: What they are made from.
            maps: Function of an image's number that returns its map, (channels, height, width) in [0, 1], and the PSNR
                (dB, or NaN) of what it was made from; the mean over all images is recorded.
            record: Plain values to keep with the maps.

        Raises:
            UserError: They cannot be written, as on a full disk; what is done is kept.
        """
        partial = self.folder / f'round_{number:03d}.partial'
        path = self._path(number)
        try:
            if self.rank == 0:
                self._begin(partial, key)
            self._wait()
            self._write_share(partial, maps)
            self._wait()
            if self.rank == 0:
                self._commit(partial, path, {**record, 'round': number, 'key': key})
            self._wait()
        except OSError as error:
            raise UserError(
                f'{partial} cannot be written ({error}). Make room or choose another place, then go on with --auto_resume.'
            ) from None
        if not self.open(number, key):
            raise UserError(
                f'{path}: the importance maps were made and cannot be read: all ranks need the same folder.'
            )

    def remove_before(self, number: int) -> None:
        """Removes the maps of earlier rounds; called by the first rank."""
        for path in self.folder.glob('round_*'):
            match = _ROUND.match(path.name)
            if match and int(match[1]) < number:
                shutil.rmtree(path, ignore_errors=True)

    def _begin(self, partial: Path, key: str) -> None:
        """Makes files to write into, or keeps those that were begun from the same things."""
        started = partial / 'key'
        if started.is_file() and started.read_text() == key:
            return
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        with (partial / 'maps.bin').open('wb') as file:
            file.truncate(self._bytes(len(self.shapes)))
        # written, not only as long: a full disk must be an error here, not in the memory that is mapped to the file
        (partial / 'done.bin').write_bytes(bytes(8 * len(_MARKS) * len(self.shapes)))
        started.write_text(key)

    def _write_share(self, partial: Path, maps: Any) -> None:
        marks = np.memmap(partial / 'done.bin', np.float64, 'r+', shape=(len(self.shapes), len(_MARKS)))
        with (partial / 'maps.bin').open('r+b') as file:
            for image in range(self.rank, len(self.shapes), self.world_size):
                if marks[image, 0]:
                    continue
                importance, measure = maps(image)
                stored = self._stored(importance)
                file.seek(self._bytes(image))
                file.write(stored.tobytes())
                file.flush()
                os.fdatasync(file.fileno())  # the mark must not reach the disk before the map
                marks[image] = 1, measure, stored.sum(dtype=np.float64), np.count_nonzero(stored == self._one)
        marks.flush()

    def _stored(self, importance: torch.Tensor) -> np.ndarray:
        pixels = importance.detach().float().cpu().clamp(0, 1).permute(1, 2, 0).numpy()
        return np.rint(pixels * self._one).astype(np.uint8) if self.dtype == np.uint8 else pixels.astype(self.dtype)

    def _commit(self, partial: Path, path: Path, record: dict[str, Any]) -> None:
        _, measures, totals, full = np.fromfile(partial / 'done.bin', np.float64).reshape(-1, len(_MARKS)).T
        count = self._starts[-1]
        record = {**record, 'mean': float(totals.sum()) / self._one / count, 'share_at_one': float(full.sum()) / count}
        if not np.isnan(measures).any():
            record['psnr'] = float(measures.mean())
        (partial / 'maps.json').write_text(json.dumps(record, indent=1), encoding='utf-8')
        (partial / 'key').unlink()
        (partial / 'done.bin').unlink()
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)

    def _path(self, number: int) -> Path:
        return self.folder / f'round_{number:03d}'

    def _bytes(self, image: int) -> int:
        return self._starts[image] * self.dtype.itemsize

    def _wait(self) -> None:
        if self.world_size > 1:
            distributed.barrier()


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
