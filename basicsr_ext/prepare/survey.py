"""Reading every image of a set, whatever is wrong with some of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.files import expand_home, open_file, read_file
from basicsr_ext.functional.digest import image_digest
from basicsr_ext.functional.perceptual_hash import perceptual_hash
from basicsr_ext.prepare.jobs import run_jobs
from basicsr_ext.storage import ImageSpec, ImageStore, open_store
from basicsr_ext.storage.alpha import has_alpha, keys_with_alpha
from basicsr_ext.storage.base import unfit_key
from basicsr_ext.storage.basicsr_lmdb import DepthError
from basicsr_ext.storage.decoding import DecodingError, decode_window
from basicsr_ext.storage.folder import list_images
from basicsr_ext.storage.headers import HeaderError, UnsupportedError, read_header


class ScannedImage(NamedTuple):
    """One image of a set.

    Attributes:
        spec: Its size and type; ``None`` where it cannot be read.
        hash: Its perceptual hash; ``None`` where it was not asked for or the image cannot be read.
        digest: Of its pixels; empty where they cannot be read.
        damage: Why it cannot be read; empty where it can.
        unsupported: Whether it is whole, and of a kind or size that is not read.
        alpha: Whether it carries transparency.
        namesake: File with the same key; this one's key has an extension, and it has no part in pairs.
        misnamed: Why its name cannot be a key; empty where it can.
    """

    spec: ImageSpec | None = None
    hash: np.ndarray | None = None
    digest: str = ''
    damage: str = ''
    unsupported: bool = False
    alpha: bool = False
    namesake: str = ''
    misnamed: str = ''


class FileSet(NamedTuple):
    """A folder of images, some of which may be damaged.

    Attributes:
        folder: The folder.
        files: Key -> path below the folder. A file whose key was taken has its extension in its own.
        namesakes: Key of such a file -> the file that took its key.
    """

    folder: Path
    files: Mapping[str, str]
    namesakes: Mapping[str, str]

    def keys(self) -> list[str]:
        """Names of all images, sorted."""
        return sorted(self.files)

    def read(self, key: str) -> np.ndarray:
        """Reads an image.

        Raises:
            HeaderError, DecodingError, OSError: It cannot be read.
        """
        return self._read(key, self._spec(key))

    def look(self, key: str, hashes: bool) -> ScannedImage:
        """Sees what there is to see of an image, see :class:`ScannedImage`."""
        try:
            spec = self._spec(key)
            with open_file(self.folder / self.files[key]) as stream:
                alpha = has_alpha(stream)
            image = self._read(key, spec)
        except (HeaderError, DecodingError) as error:
            return ScannedImage(damage=str(error).rstrip('.'), unsupported=isinstance(error, UnsupportedError))
        except OSError as error:
            return ScannedImage(damage=str(error.strerror))
        return _seen(spec, image, hashes, alpha)

    def _spec(self, key: str) -> ImageSpec:
        with open_file(self.folder / self.files[key]) as stream:
            header = read_header(stream)
        return ImageSpec(header.height, header.width, header.channels, np.dtype(f'uint{header.bits}'))

    def _read(self, key: str, spec: ImageSpec) -> np.ndarray:
        encoded = np.frombuffer(read_file(self.folder / self.files[key]), np.uint8)
        return decode_window(encoded, spec, 0, 0, spec.height, spec.width)


class StoreSet(NamedTuple):
    """The images of a store, some of which may be damaged.

    Attributes:
        store: The store.
        transparent: Keys of images with alpha.
    """

    store: ImageStore
    transparent: frozenset[str]
    namesakes: Mapping[str, str] = MappingProxyType({})

    def keys(self) -> Sequence[str]:
        """Names of all images, sorted."""
        return self.store.keys()

    def read(self, key: str) -> np.ndarray:
        """Reads an image.

        Raises:
            UserError: It cannot be read.
        """
        return self.store.read(key)

    def look(self, key: str, hashes: bool) -> ScannedImage:
        """Sees what there is to see of an image, see :class:`ScannedImage`."""
        spec, alpha = self.store.spec(key), key in self.transparent
        try:
            image = self.store.read(key)
            self.store.verify(key)
        except DepthError as error:
            return ScannedImage(spec._replace(dtype=np.dtype(f'uint{error.bits}')), alpha=alpha)
        except UserError as error:
            return ScannedImage(damage=str(error).rstrip('.'))
        return _seen(spec, image, hashes, alpha)


def open_set(path: str | Path) -> FileSet | StoreSet:
    """Opens a folder or a store, whatever is wrong with some of its images.

    Raises:
        UserError: There is no such set, it has no images, or a store cannot be opened at all.
    """
    path = expand_home(path)
    if path.is_dir() and path.suffix != '.lmdb' and not (path / 'data.mdb').exists():
        return FileSet(path, *_by_key(list_images(path)))
    store = open_store(path)
    return StoreSet(store, frozenset(keys_with_alpha(store)))


def survey(images: FileSet | StoreSet, description: str, *, hashes: bool, num_workers: int) -> dict[str, ScannedImage]:
    """Decodes every image of a set.

    Args:
        images: The set.
        description: Its name, for the user.
        hashes: Whether perceptual hashes are computed.
        num_workers: Processes.

    Returns:
        Key -> what was seen, in the order of the keys.
    """
    look = partial(_look, images, hashes)
    seen = dict(run_jobs(look, images.keys(), num_workers=num_workers, description=description))
    return {
        key: seen[key]._replace(namesake=images.namesakes.get(key, ''), misnamed=unfit_key(key))
        for key in images.keys()
    }


def _look(images: FileSet | StoreSet, hashes: bool, key: str) -> tuple[str, ScannedImage]:
    return key, images.look(key, hashes)


def _seen(spec: ImageSpec, image: np.ndarray, hashes: bool, alpha: bool) -> ScannedImage:
    return ScannedImage(spec, perceptual_hash(image) if hashes else None, image_digest(image), alpha=alpha)


def _by_key(found: list[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Key -> file, and key of a file whose name was taken -> file that has it."""
    files, namesakes = {}, {}
    for file in found:
        key = os.path.splitext(file)[0]
        if key in files:
            namesakes[file] = files[key]
            key = file
        files[key] = file
    return files, namesakes
