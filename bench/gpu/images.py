"""Photographs for the GPU run: those of the unpacked archive, or of scikit-image where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np


def photograph_files() -> list[Path]:
    """Files of photographs, the largest first: of BASICSR_EXT_BENCH_DIR, else of scikit-image."""
    bench = os.environ.get('BASICSR_EXT_BENCH_DIR')
    folders = [Path(bench, 'train', name) for name in ('photos_560', 'BSDS500_train')] if bench else []
    files = [f for folder in folders if folder.is_dir() for f in sorted(folder.iterdir()) if f.suffix != '.json']
    if files:
        return files
    import skimage.data

    root = Path(skimage.data.__file__).parent
    return [root / name for name in ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg', 'motorcycle_left.png')]


def photographs(count: int) -> Iterator[tuple[str, np.ndarray]]:
    """Gives names and BGR images (height, width, 3), uint8, of at most so many photographs."""
    for file in islice(photograph_files(), count):
        yield file.stem, cv2.imread(str(file), cv2.IMREAD_COLOR)
