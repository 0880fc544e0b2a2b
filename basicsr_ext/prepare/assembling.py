"""From finished pieces to outputs that are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.prepare.output import Output
from basicsr_ext.prepare.pieces import Pieces
from basicsr_ext.prepare.png import encode_png
from basicsr_ext.prepare.progress import progress
from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter


def begin(pieces: Pieces, outputs: Mapping[str, Output]) -> bool:
    """Begins a step or goes on with it; returns whether a killed run had made all outputs, and lacked nothing but cleaning up.

    Raises:
        UserError: An output exists, and is not a former run's of this step; or the step cannot be begun.
    """
    _refuse_existing(pieces, outputs)  # before there is a folder
    pieces.begin()
    try:
        # Again: settings are compared now, and nobody else is at work.
        return _refuse_existing(pieces, outputs) == len(outputs)
    except UserError:
        if not pieces.went_on:
            pieces.remove()
        pieces.leave()
        raise


def _refuse_existing(pieces: Pieces, outputs: Mapping[str, Output]) -> int:
    existing = [output.path for output in outputs.values() if os.path.lexists(output.path)]
    if existing and not pieces.whole:
        raise UserError(f'{existing[0]} exists: remove it, or write to another path.')
    return len(existing)


def assemble(pieces: Pieces, count: int, outputs: Mapping[str, Output]) -> None:
    """Makes the outputs of all pieces, in the order of ``outputs``; where one fails, none stays."""
    pieces.set_whole()
    made: list[Path] = []
    try:
        for kind, output in outputs.items():
            # What is there already was made before a kill, of the same pieces.
            if not os.path.lexists(output.path):
                _assemble(pieces, count, kind, output)
                made.append(output.path)
    except BaseException:
        for path in made:
            shutil.rmtree(path, ignore_errors=True)
        if not any(os.path.lexists(output.path) for output in outputs.values()):
            pieces.unset_whole()  # what somebody puts there later is not ours
        raise


def _assemble(pieces: Pieces, count: int, kind: str, output: Output) -> None:
    if not output.is_store:
        with pieces.reporting():
            image_folder(pieces, kind).rename(output.path)
    elif output.layout == 'basicsr':
        with _EncodedWriter(output.path, output.compress_level) as encoded_writer:
            for key, value in _all_images(pieces, count, kind):
                encoded_writer.put_encoded(key, Encoded.unpack(value))
    else:
        with RawLmdbWriter(output.path, channels=output.channels, dtype=output.dtype) as writer:
            writer.meta.update(output.meta)
            for key, image in _all_images(pieces, count, kind):
                writer.put(key, image)


def _all_images(pieces: Pieces, count: int, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    with progress('writing the store', count, unit='piece') as update:
        for index in range(count):
            for name, image in pieces.load(index).items():
                if name.startswith(f'{kind} '):
                    yield name.removeprefix(f'{kind} '), image
            update()


def image_folder(pieces: Pieces, kind: str) -> Path:
    return pieces.folder / kind


class Encoded(NamedTuple):
    """A PNG, and what a writer asks about it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    content: bytes

    @staticmethod
    def pack(image: np.ndarray, compress_level: int) -> np.ndarray:
        header = np.array([*image.shape, image.dtype.itemsize], '<u4').tobytes()
        return np.frombuffer(header + encode_png(image, compress_level), np.uint8)

    @classmethod
    def unpack(cls, value: np.ndarray) -> Encoded:
        content = value.tobytes()
        *shape, size = np.frombuffer(content[:16], '<u4').tolist()
        return cls(tuple(shape), np.dtype(f'uint{8 * size}'), content[16:])


class _EncodedWriter(BasicSRLmdbWriter):
    """Takes PNGs that other processes have encoded."""

    _content = b''

    def put_encoded(self, key: str, encoded: Encoded) -> None:
        self._content = encoded.content
        # What is checked is shape and dtype, which need no pixels.
        self.put(key, np.broadcast_to(np.zeros((), encoded.dtype), encoded.shape))

    def _encode(self, name: bytes, image: np.ndarray) -> bytes:
        return self._content
