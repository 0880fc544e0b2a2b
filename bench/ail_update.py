"""AIL's updates of stored importance maps: time and memory, on a part of an image, and what they come to for DIV2K.

    python bench/ail_update.py [--images FOLDER] [--quick]

Makes the first maps, from the errors of a teacher, VDSR with 64 features, and those of a later round, from the errors of
a student, VDSR with 13, as a run does: images are read from a store, luminance that is enlarged already, and maps are
written as float16 and committed. Weights are random, which changes neither time nor memory. Networks run in tiles of 512
pixels (``update_tile``), and for comparison over the whole image at once.

On one CPU thread times are those of the processor, since others may share the machine, and memory is the largest resident
set of a process, Python and torch included; on a GPU, wall-clock times, and torch's allocator. Images are of 1356x1020 pixels,
half of one of DIV2K's: mosaics of scikit-image's photographs, or the middle of a folder's images. DIV2K's 800 training images
have 2.2 gigapixels.

The last lines read ``<figure> <value> Mpx/s`` or ``<figure> <value> MB``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import basicsr_ext

basicsr_ext.register()

import torch
from basicsr.archs import build_network

from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.distributed import Ranks
from basicsr_ext.functional.resize import downsample, upsample
from basicsr_ext.models.ail.importance import RecursiveImportance
from basicsr_ext.models.ail.map_files import ImportanceMaps
from basicsr_ext.models.ail.options import AILOptions
from basicsr_ext.models.ail.whole_images import WholeImages

CUDA = torch.cuda.is_available()
SIZE, QUICK_SIZE = (1020, 1356), (256, 340)
DIV2K = 2.2e9  # pixels of its training images
TILES = {'': 512, '_whole': None}
UPDATES = ('first', 'round')


def pictures(folder: Path | None, size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Grey images of a size."""
    if folder is not None:
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.png', '.jpg', '.bmp'))[:count]
        images = [cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files]
        starts = [tuple(max(0, have - want) // 2 for have, want in zip(i.shape, size, strict=True)) for i in images]
        return [
            image[top : top + size[0], left : left + size[1]] for image, (top, left) in zip(images, starts, strict=True)
        ]
    import skimage.data

    root = Path(skimage.data.__file__).parent
    grey = [
        cv2.imread(str(root / name), cv2.IMREAD_GRAYSCALE) for name in ('astronaut.png', 'coffee.png', 'rocket.jpg')
    ]
    row = np.concatenate([image[:400] for image in grey], 1)
    mosaic = np.tile(row, (-(-size[0] // row.shape[0]), -(-size[1] // row.shape[1])))
    return [np.ascontiguousarray(np.roll(mosaic, 100 * shift, 1)[: size[0], : size[1]]) for shift in range(count)]


def write_images(root: Path, images: list[np.ndarray]) -> None:
    """Writes the store of luminance, and that of its enlargement after it was shrunk to the half."""
    for name in ('gt', 'lq'):
        (root / name).mkdir()
    for number, image in enumerate(images):
        image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
        cv2.imwrite(str(root / 'gt' / f'{number}.png'), image)
        cv2.imwrite(str(root / 'lq' / f'{number}.png'), upsample(downsample(image[..., None], 2), 2))


def measure(root: Path, update: str, tile: int | None) -> tuple[float, float]:
    """Makes the maps of round 0, or of round 1 after that of ones; returns megapixels a second, and the peak memory in MB."""
    torch.manual_seed(0)
    device = torch.device('cuda' if CUDA else 'cpu')
    block = {
        'name': 'bench',
        'phase': 'train',
        'type': 'PairedStoreDataset',
        'scale': 1,
        'gt_size': 41,
        'geometry': True,
    }
    data = PairedStoreDataset({**block, 'dataroot_gt': root / 'gt', 'dataroot_lq': root / 'lq', 'output': 'uint8'})
    images = WholeImages(data, 1, device)
    networks = [build_network({'type': 'VDSR', 'num_feat': n, 'upscale': 1}).to(device).eval() for n in (13, 64)]
    initialization = 'teacher' if update == 'first' else 'ones'
    options = AILOptions(round_iterations=1, update_tile=tile, initialization=initialization)
    clock = time.perf_counter if CUDA else time.process_time
    with tempfile.TemporaryDirectory(dir=root) as folder:
        maps = ImportanceMaps(Path(folder), images.sizes, images.channels)
        importance = RecursiveImportance(maps, images, Ranks(), options, *networks, 0, 1)
        number = UPDATES.index(update)
        if number > 0:
            importance.begin(0, 0)
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        start = clock()
        importance.begin(number, number)
        seconds = clock() - start
    peak = torch.cuda.max_memory_allocated() if CUDA else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return sum(height * width for height, width in images.sizes) / 1e6 / seconds, peak / 1e6


def in_a_process(*arguments: Any) -> tuple[float, float]:
    """The same in a forked process, whose memory has not grown."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, json.dumps(measure(*arguments)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise SystemExit('the measured process failed')
    return json.loads(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=Path, metavar='FOLDER', help="instead of scikit-image's photographs")
    parser.add_argument('--quick', action='store_true', help='a part a sixteenth as large, for a smoke test')
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    size = QUICK_SIZE if arguments.quick else SIZE
    print(f'{"GPU " + torch.cuda.get_device_name() if CUDA else "CPU, one thread"}, torch {torch.__version__}')
    lines = []
    with tempfile.TemporaryDirectory() as root:
        write_images(Path(root), pictures(arguments.images, size, 16 if CUDA else 1))
        if CUDA:
            measure(Path(root), 'first', 512)  # warms up
        for suffix, tile in TILES.items():
            for update in UPDATES:
                speed, memory = (measure if CUDA else in_a_process)(Path(root), update, tile)
                print(
                    f'{update} maps, {f"tiles of {tile}" if tile else "whole images"}: {speed:.3g} Mpx/s, at most '
                    f'{memory:.0f} MB; DIV2K: {DIV2K / 1e6 / speed / 3600:.2g} hours'
                )
                lines.append(f'ail_update_{update}{suffix} {speed:.3g} Mpx/s')
                lines.append(f'ail_update_{update}{suffix}_memory {memory:.0f} MB')
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
