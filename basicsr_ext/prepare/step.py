"""What all steps that make images from images share: processes, stopping and going on, an output that is whole."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import keys_digest
from basicsr_ext.prepare.jobs import run_jobs
from basicsr_ext.prepare.pieces import Pieces
from basicsr_ext.prepare.png import PNG_TYPES, encode_png, write_png
from basicsr_ext.storage import BasicSRLmdbWriter, FolderStore, ImageStore, RawLmdbWriter

Images = Mapping[str, np.ndarray]
KIND = 'images'


class Output(NamedTuple):
    """Where images go, and in which form.

    Attributes:
        path: A store where it ends in ``.lmdb``, else a folder of PNGs.
        channels: Of every image, 1 or 3.
        dtype: Of every image.
        layout: Of a store: ``raw`` or ``basicsr``.
        compress_level: Of PNGs.
        meta: Kept in a raw store.
    """

    path: Path
    channels: int
    dtype: np.dtype
    layout: str = 'raw'
    compress_level: int = 1
    meta: Mapping[str, Any] = MappingProxyType({})

    @property
    def is_store(self) -> bool:
        """Whether an LMDB is made; else a folder."""
        return self.path.suffix == '.lmdb'

    @property
    def holds_pngs(self) -> bool:
        """Whether images are encoded."""
        return not self.is_store or self.layout == 'basicsr'

    def check(self) -> None:
        """Refuses what PNGs cannot hold."""
        if self.holds_pngs and self.dtype not in PNG_TYPES:
            way_out = 'choose the layout raw' if self.is_store else 'write into a store (a path ending in .lmdb)'
            raise UserError(f'{self.path}: PNG holds uint8 or uint16, not {self.dtype}: {way_out}.')


class Part(NamedTuple):
    """Makes one piece, in whichever process: calls the function for a job, and keeps its images."""

    function: Callable[[Any], Mapping[str, Images]]
    pieces: Pieces
    outputs: Mapping[str, Output]

    def __call__(self, numbered: tuple[int, Any]) -> None:
        index, job = numbered
        arrays = {}
        for kind, images in self.function(job).items():
            output = self.outputs[kind]
            for key, image in images.items():
                if not output.is_store:
                    with self.pieces.reporting():
                        folder = _image_folder(self.pieces, kind)
                        write_png(folder, key, image, output.compress_level, scratch=self.pieces.folder)
                elif output.layout == 'basicsr':
                    arrays[f'{kind} {key}'] = _Encoded.pack(image, output.compress_level)
                else:
                    arrays[f'{kind} {key}'] = image
        self.pieces.save(index, arrays)


def make_images(
    function: Callable[[Any], Mapping[str, Images]],
    jobs: Sequence[Any],
    outputs: Mapping[str, Output],
    *,
    settings: Mapping[str, Any],
    num_workers: int,
    description: str,
) -> None:
    """Makes stores or folders of images from what a function gives for each job.

    The outputs appear when all is done. A run that was stopped, even killed, leaves its work beside the last output, in
    ``<output>.parts``; the same call goes on with it, and what it makes equals, to the bit, what an undisturbed run makes.
    A mistake of the user's leaves nothing.

    Args:
        function: Gives kind -> name -> image for a job; can be pickled.
        jobs: Its arguments; in this order images get into a store.
        outputs: Kind -> where its images go.
        settings: All that the images depend on.
        num_workers: Processes.
        description: Of the progress bar.

    Raises:
        UserError: An output exists, the settings are not those of the stopped run, a job fails, or writing does.
    """
    for output in outputs.values():
        output.check()
    *_, last = outputs.values()
    forms = [[kind, output.layout, output.compress_level, str(output.dtype)] for kind, output in outputs.items()]
    pieces = Pieces(last.path, {**settings, 'outputs': forms})
    finished_before = refuse_existing(pieces, outputs)
    pieces.begin()
    try:
        if not finished_before:
            missing = [(index, job) for index, job in enumerate(jobs) if not pieces.has(index)]
            part = Part(function, pieces, outputs)
            done = len(jobs) - len(missing)
            for _ in run_jobs(part, missing, num_workers=num_workers, description=description, done=done):
                pass
            assemble(pieces, len(jobs), outputs)
    except UserError:
        pieces.remove()
        raise
    except BaseException:
        pieces.leave()
        raise
    pieces.remove()


def refuse_existing(pieces: Pieces, outputs: Mapping[str, Output]) -> bool:
    """Returns whether a killed run had made all outputs, and lacked nothing but removing its pieces.

    Raises:
        UserError: An output exists, and is not a former run's of this step; or its name is none of a store.
    """
    existing = [output.path for output in outputs.values() if os.path.lexists(output.path)]
    if existing and not pieces.whole:
        raise UserError(f'{existing[0]} exists: remove it, or write to another path.')
    return len(existing) == len(outputs)


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
        raise


def _assemble(pieces: Pieces, count: int, kind: str, output: Output) -> None:
    if not output.is_store:
        with pieces.reporting():
            _image_folder(pieces, kind).rename(output.path)
    elif output.layout == 'basicsr':
        with _EncodedWriter(output.path, output.compress_level) as encoded_writer:
            for key, value in _all_images(pieces, count, kind):
                encoded_writer.put_encoded(key, _Encoded.unpack(value))
    else:
        with RawLmdbWriter(output.path, channels=output.channels, dtype=output.dtype) as writer:
            writer.meta.update(output.meta)
            for key, image in _all_images(pieces, count, kind):
                writer.put(key, image)


def _all_images(pieces: Pieces, count: int, kind: str) -> Iterator[tuple[str, np.ndarray]]:
    for index in tqdm(range(count), desc='writing the store', unit='piece', disable=None):
        for name, image in pieces.load(index).items():
            if name.startswith(f'{kind} '):
                yield name.removeprefix(f'{kind} '), image


def _image_folder(pieces: Pieces, kind: str) -> Path:
    return pieces.folder / kind


class _Encoded(NamedTuple):
    """A PNG, and what a writer asks about it."""

    shape: tuple[int, ...]
    dtype: np.dtype
    content: bytes

    @staticmethod
    def pack(image: np.ndarray, compress_level: int) -> np.ndarray:
        header = np.array([*image.shape, image.dtype.itemsize], '<u4').tobytes()
        return np.frombuffer(header + encode_png(image, compress_level), np.uint8)

    @classmethod
    def unpack(cls, value: np.ndarray) -> _Encoded:
        content = value.tobytes()
        *shape, size = np.frombuffer(content[:16], '<u4').tolist()
        return cls(tuple(shape), np.dtype(f'uint{8 * size}'), content[16:])


class _EncodedWriter(BasicSRLmdbWriter):
    """Takes PNGs that other processes have encoded."""

    _content = b''

    def put_encoded(self, key: str, encoded: _Encoded) -> None:
        self._content = encoded.content
        # What is checked is shape and dtype, which need no pixels.
        self.put(key, np.broadcast_to(np.zeros((), encoded.dtype), encoded.shape))

    def _encode(self, name: bytes, image: np.ndarray) -> list[tuple[bytes, bytes]]:
        return [(name, self._content)]


def source_record(store: ImageStore) -> dict[str, Any]:
    """What tells whether a stopped run and this one read the same images: names, and sizes and times of files."""
    if isinstance(store, FolderStore):
        files = [store.path / file for file in store.files()]
    else:
        files = [store.path / 'data.mdb']
    states = hashlib.sha256()
    for file in files:
        status = file.stat()
        states.update(f'{status.st_size} {status.st_mtime_ns}\n'.encode())
    return {
        'source': store.path.absolute().name,
        'source_keys_sha256': keys_digest(store.keys()),
        'source_files_sha256': states.hexdigest(),
    }
