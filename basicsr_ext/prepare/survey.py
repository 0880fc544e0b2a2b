"""Reading every image of a set, whatever is wrong with some of them."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import image_digest
from basicsr_ext.functional.perceptual_hash import perceptual_hash
from basicsr_ext.prepare.jobs import run_jobs
from basicsr_ext.storage import ImageSpec, ImageStore, open_store
from basicsr_ext.storage.alpha import has_alpha, keys_with_alpha
from basicsr_ext.storage.base import unfit_key
from basicsr_ext.storage.basicsr_lmdb import DepthError
from basicsr_ext.storage.decoding import DecodingError, decode_window
from basicsr_ext.storage.folder import list_images
from basicsr_ext.storage.headers import HeaderError, read_header


class Seen(NamedTuple):
    """One image of a set.

    Attributes:
        spec: Its size and type; ``None`` where it cannot be read.
        hash: Its perceptual hash; ``None`` where it was not asked for or the image cannot be read.
        digest: Of its pixels; empty where they cannot be read.
        damage: Why it cannot be read; empty where it can.
        alpha: Whether it carries transparency.
        namesake: File with the same key; this one's key has an extension, and it has no part in pairs.
        misnamed: Why its name cannot be a key; empty where it can.
    """

    spec: ImageSpec | None = None
    hash: np.ndarray | None = None
    digest: str = ''
    damage: str = ''
    alpha: bool = False
    namesake: str = ''
    misnamed: str = ''


def survey(path: str | Path, *, hashes: bool, num_workers: int) -> dict[str, Seen]:
    """Decodes every image of a folder or store.

    Args:
        path: Folder or store.
        hashes: Whether perceptual hashes are computed.
        num_workers: Processes.

    Returns:
        Key -> what was seen, in the order of the keys.

    Raises:
        UserError: There is no such set, it has no images, or a store cannot be opened at all.
    """
    path = Path(path).expanduser()
    if path.is_dir() and path.suffix != '.lmdb' and not (path / 'data.mdb').exists():
        files, namesakes = _by_key(list_images(path))
        look = partial(_look_at_file, path, files, hashes)
        keys = sorted(files)
    else:
        store = open_store(path)
        look = partial(_look_into_store, store, set(keys_with_alpha(store)), hashes)
        keys, namesakes = list(store.keys()), {}
    seen = dict(run_jobs(look, keys, num_workers=num_workers, description=path.name))
    return {key: seen[key]._replace(namesake=namesakes.get(key, ''), misnamed=unfit_key(key)) for key in keys}


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


def _look_at_file(folder: Path, files: dict[str, str], hashes: bool, key: str) -> tuple[str, Seen]:
    file = folder / files[key]
    try:
        with file.open('rb') as stream:
            header = read_header(stream)
            stream.seek(0)
            alpha = has_alpha(stream)
        spec = ImageSpec(header.height, header.width, header.channels, np.dtype(f'uint{header.bits}'))
        image = decode_window(np.fromfile(file, np.uint8), spec, 0, 0, spec.height, spec.width)
    except (HeaderError, DecodingError) as error:
        return key, Seen(damage=str(error).rstrip('.'))
    except OSError as error:
        return key, Seen(damage=str(error.strerror))
    return key, Seen(spec, perceptual_hash(image) if hashes else None, image_digest(image), alpha=alpha)


def _look_into_store(store: ImageStore, transparent: set[str], hashes: bool, key: str) -> tuple[str, Seen]:
    try:
        image = store.read(key)
    except DepthError as error:
        return key, Seen(store.spec(key)._replace(dtype=np.dtype(f'uint{error.bits}')), alpha=key in transparent)
    except UserError as error:
        return key, Seen(damage=str(error).rstrip('.'))
    spec, transparency = store.spec(key), key in transparent
    return key, Seen(spec, perceptual_hash(image) if hashes else None, image_digest(image), alpha=transparency)
