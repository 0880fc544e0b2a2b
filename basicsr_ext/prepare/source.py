"""The images that a step reads."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from basicsr_ext.functional.digest import keys_digest
from basicsr_ext.storage import FolderStore, ImageStore, open_store
from basicsr_ext.storage.alpha import keys_with_alpha


def open_source(path: str | Path, channels: int | None = None) -> ImageStore:
    """Opens what a step reads; says on stderr where alpha is dropped.

    Args:
        path: Folder or store.
        channels: As of :func:`~basicsr_ext.storage.open_store`.

    Raises:
        UserError: It cannot be opened.
    """
    store = open_store(path, channels=channels)
    transparent = keys_with_alpha(store)
    if transparent:
        print(
            f'warning: {path}: {len(transparent)} of {len(store)} images have alpha, such as "{transparent[0]}": it is '
            'dropped, and colours stay as they are below it.',
            file=sys.stderr,
        )
    return store


def source_record(store: ImageStore) -> dict[str, Any]:
    """What tells whether a stopped run and this one read the same images: names, and sizes and times of files."""
    if isinstance(store, FolderStore):
        files = [store.file(key) for key in store.keys()]
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
