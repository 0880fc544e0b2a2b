"""Training samples: this package's datasets on raw stores against BasicSR's ``PairedImageDataset`` on its LMDB.

    python bench/loading.py [--images FOLDER] [--quick] [--floor]

480x480 sub-images of scikit-image's photographs, or of the images in a folder, with LR images at scale 4; crops of 192,
flips and rotations, batches of 16. One process, in turns; a figure is the ratio of the median times of a sample:

- ``loading_four_images``: GT, LQ and the centroids of both, one thread; two samples of BasicSR's, which has pairs only.
- ``loading_float_batch``: float32 batches of GT and LQ from a loader; ours has no workers and a thread that reads ahead,
  and converts uint8 batches, whose order in memory stays channels last; BasicSR's has two workers.
- ``loading_float_batch_nchw``: the same with channels first in memory, as BasicSR's are and as models convert them.
- ``loading_cold``: four images, after the files were dropped from the page cache (of this machine; a host's stays).
- ``loading_cold_whole``: the same from stores of whole images of 1356x2040, which need no sub-images; BasicSR reads its own.

The last lines read ``<figure> <ratio>x (goal <goal>x)``. ``--floor`` prints instead where the time goes. Of four images: what
merely copying the same windows takes, and copying them flipped, when they are known and nothing but NumPy and OpenCV works. Of
a float batch: reading and converting, each alone, and both in two threads that hand nothing over.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import basicsr_ext

basicsr_ext.register()

import torch
from basicsr.data.paired_image_dataset import PairedImageDataset
from common.memory import keep_freed_memory
from torch.utils.data import DataLoader

from basicsr_ext.data.crop_geometry import copy_flipped
from basicsr_ext.data.paired_centroid_dataset import PairedCentroidDataset
from basicsr_ext.data.paired_store_dataset import PairedStoreDataset
from basicsr_ext.data.sample_id import SampleId
from basicsr_ext.functional.pixels import to_unit_range
from basicsr_ext.functional.resize import downsample
from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter
from basicsr_ext.trainer.prefetching import read_ahead

SIZE, STEP, SCALE, CROP, BATCH = 480, 240, 4, 192, 16
PHOTOGRAPHS = (
    'astronaut.png',
    'ihc.png',
    'motorcycle_left.png',
    'motorcycle_right.png',
    'hubble_deep_field.jpg',
    'retina.jpg',
)
GOALS = {
    'loading_four_images': 150,
    'loading_float_batch': 60,
    'loading_float_batch_nchw': 60,
    'loading_cold': 10,
    'loading_cold_whole': 10,
}
WHOLE_SIZE, WHOLE_IMAGES = (1356, 2040), 32
STORES = ('gt', 'lq', 'centroid', 'centroid_lq')


# ---- data ------------------------------------------------------------------------------------------------------------


def photographs(folder: Path | None) -> list[Path]:
    """Image files of a folder, or scikit-image's."""
    if folder is not None:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in ('.png', '.jpg', '.bmp'))
    import skimage.data

    return [Path(skimage.data.__file__).parent / name for name in PHOTOGRAPHS]


def subimages(files: list[Path]) -> Iterator[np.ndarray]:
    """480x480 pieces, as BasicSR's preparation cuts them."""
    for file in files:
        image = cv2.cvtColor(cv2.imread(str(file), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        starts = [
            sorted({*range(0, side - SIZE + 1, STEP), side - SIZE}) if side >= SIZE else [] for side in image.shape[:2]
        ]
        yield from (image[top : top + SIZE, left : left + SIZE] for top in starts[0] for left in starts[1])


def write_stores(root: Path, files: list[Path]) -> int:
    """Writes every image into BasicSR's LMDBs (PNG, level 1) and into raw stores; returns how many there are."""
    images: dict[str, list[np.ndarray]] = {name: [] for name in STORES}
    for gt in islice(subimages(files), 200):
        lq = downsample(np.ascontiguousarray(gt), SCALE)
        centroid = cv2.resize(lq, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)  # smooth, as networks' images are
        for name, image in zip(STORES, (gt, lq, centroid, downsample(centroid, SCALE)), strict=True):
            images[name].append(image)
    for name in STORES:
        with (
            BasicSRLmdbWriter(root / f'basicsr_{name}.lmdb') as stock,
            RawLmdbWriter(root / f'raw_{name}.lmdb', channels=3, dtype=np.uint8) as raw,
        ):
            for number, image in enumerate(images[name]):
                stock.put(f'{number:04}', image)
                raw.put(f'{number:04}', image)
    return len(images['gt'])


def write_whole_stores(root: Path, files: list[Path]) -> int:
    """Writes raw stores of images as large as DIV2K's, put together from sub-images; returns how many there are."""
    pieces, order, (height, width) = list(islice(subimages(files), 200)), np.random.default_rng(0), WHOLE_SIZE
    root.mkdir()
    with ExitStack() as stack:
        writers = [
            stack.enter_context(RawLmdbWriter(root / f'raw_{name}.lmdb', channels=3, dtype=np.uint8)) for name in STORES
        ]
        for number in range(WHOLE_IMAGES):
            rows = [
                np.concatenate([pieces[piece] for piece in order.integers(len(pieces), size=-(-width // SIZE))], axis=1)
                for _ in range(-(-height // SIZE))
            ]
            gt = np.concatenate(rows)[:height, :width]
            lq = np.ascontiguousarray(gt[::SCALE, ::SCALE])
            for writer, image in zip(writers, (gt, lq, gt, lq), strict=True):
                writer.put(f'{number:04}', image)
    return WHOLE_IMAGES


# ---- both sides ------------------------------------------------------------------------------------------------------


def stock_dataset(root: Path, prefix: str) -> PairedImageDataset:
    """BasicSR's pairs of (gt, lq), or of their centroids."""
    names = ('gt', 'lq') if prefix == '' else ('centroid', 'centroid_lq')
    roots = {
        f'dataroot_{key}': str(root / f'basicsr_{name}.lmdb') for key, name in zip(('gt', 'lq'), names, strict=True)
    }
    flips = {'use_hflip': True, 'use_rot': True}
    return PairedImageDataset(
        {'phase': 'train', 'scale': SCALE, 'gt_size': CROP, 'io_backend': {'type': 'lmdb'}, **flips, **roots}
    )


def our_dataset(root: Path, cls: type) -> Any:
    """Ours, as the option files use it."""
    names = STORES if cls is PairedCentroidDataset else STORES[:2]
    roots = {f'dataroot_{name}': str(root / f'raw_{name}.lmdb') for name in names}
    return cls({'name': 'bench', 'phase': 'train', 'scale': SCALE, 'gt_size': CROP, 'output': 'uint8', **roots})


def sample_ids(images: int) -> Iterator[SampleId]:
    """An endless order of samples, as of an epoch of an enlarged dataset."""
    order = np.random.default_rng(0)
    shuffled = (index for _ in count() for index in order.permutation(images).tolist())
    return (SampleId(index, 0, position, 1, 0) for position, index in enumerate(shuffled))


class StockReader:
    """Reads four images a sample by two of BasicSR's datasets."""

    def __init__(self, root: Path, images: int):
        self.datasets = [stock_dataset(root, prefix) for prefix in ('', 'centroid')]
        self.ids = sample_ids(images)
        self.read(1)

    def read(self, samples: int) -> None:
        for sample in islice(self.ids, samples):
            for dataset in self.datasets:
                dataset[sample.index]

    def close(self) -> None:
        for dataset in self.datasets:
            for environment in dataset.file_client.client._client.values():
                environment.close()


class OurReader:
    """Reads four images a sample, batch by batch."""

    def __init__(self, root: Path, images: int):
        self.dataset = our_dataset(root, PairedCentroidDataset)
        self.ids = sample_ids(images)
        self.read(1)

    def read(self, samples: int) -> None:
        while chunk := list(islice(self.ids, min(samples, BATCH))):
            self.dataset.__getitems__(chunk)
            samples -= len(chunk)

    def close(self) -> None:
        del self.dataset
        gc.collect()


# ---- measuring -------------------------------------------------------------------------------------------------------


def seconds(function: Callable[[int], None], samples: int) -> float:
    """Time of one sample."""
    start = time.perf_counter()
    function(samples)
    return (time.perf_counter() - start) / samples


def four_images(root: Path, images: int, repeats: int) -> tuple[float, float]:
    """Median seconds of a sample, BasicSR's first."""
    sides = StockReader(root, images), OurReader(root, images)
    sides[1].read(4 * images)
    times = [(seconds(sides[0].read, BATCH), seconds(sides[1].read, 40 * BATCH)) for _ in range(repeats)]
    for side in sides:
        side.close()
    return medians(times)


def steady(batches: Iterator[Any]) -> float:
    """Seconds of a sample from the second batch on: two workers have their first batches ready at the same time."""
    next(batches), next(batches)
    start = time.perf_counter()
    number = sum(1 for _ in batches)
    return (time.perf_counter() - start) / number / BATCH


def float_batches(root: Path, images: int, repeats: int, nchw: bool = False) -> tuple[float, float]:
    """Median seconds of a sample, BasicSR's first."""

    def stock() -> Iterator[Any]:
        dataset = stock_dataset(root, '')
        numbers = [sample.index for sample in islice(sample_ids(images), 12 * BATCH)]
        return iter(DataLoader(dataset, BATCH, sampler=numbers, num_workers=2, drop_last=True))

    def ours() -> Iterator[Any]:
        loader = DataLoader(dataset, BATCH, sampler=list(islice(sample_ids(images), 150 * BATCH)), drop_last=True)
        for batch in read_ahead(iter(loader), 2):
            tensors = {key: value for key, value in batch.items() if torch.is_tensor(value)}
            yield {key: to_unit_range(value.contiguous() if nchw else value) for key, value in tensors.items()}

    dataset = our_dataset(root, PairedStoreDataset)
    return medians([(steady(stock()), steady(ours())) for _ in range(repeats)])


def float_batches_nchw(root: Path, images: int, repeats: int) -> tuple[float, float]:
    """Like :func:`float_batches`, with channels first in memory."""
    return float_batches(root, images, repeats, nchw=True)


def cold(root: Path, images: int, repeats: int, whole: bool = False) -> tuple[float, float] | None:
    """Median seconds of a sample that is not in the page cache, BasicSR's first; ``None`` if the cache keeps the files."""
    times = []
    sides = (
        (StockReader, root, images),
        (OurReader, root / 'whole', WHOLE_IMAGES) if whole else (OurReader, root, images),
    )
    for _ in range(repeats):
        taken = []
        for side, folder, number in sides:
            if not dropped(sorted(folder.glob('*.lmdb/data.mdb'))):
                return None
            reader = side(folder, number)
            taken.append(seconds(reader.read, min(BATCH, images - 1)))
            reader.close()
        times.append(tuple(taken))
    return medians(times)


def cold_whole(root: Path, images: int, repeats: int) -> tuple[float, float] | None:
    """Like :func:`cold`, with whole images on our side."""
    return cold(root, images, repeats, whole=True)


def floor(root: Path, images: int, repeats: int) -> dict[str, float]:
    """Median seconds of the processor for a sample: its windows copied, copied and flipped, and all that reading takes."""
    reader = OurReader(root, images)
    reader.read(4 * images)
    slots = {
        scale: np.empty((2, BATCH, CROP * scale // SCALE, CROP * scale // SCALE, 3), np.uint8) for scale in (1, SCALE)
    }

    def copies() -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
        """Window, place in a batch and flips of each image of the next samples."""
        geometries, found = reader.dataset._geometries(list(islice(reader.ids, BATCH))), []
        for number, source in enumerate(reader.dataset.sources.values()):
            places = [(source.keys[g[0]], *(start * source.scale // SCALE for start in g[1:3])) for g in geometries]
            side = CROP * source.scale // SCALE
            windows = source.store.windows(places, side, side)
            found += zip(windows, slots[source.scale][number % 2], [g[5:] for g in geometries], strict=True)
        return found

    def lap() -> float:
        """Seconds of this thread since the last call: other work on the machine counts less than in a clock's."""
        nonlocal last
        before, last = last, time.thread_time()
        return (last - before) / BATCH

    last, times = 0.0, {'copied': [], 'copied and flipped': [], 'read': []}
    for _ in range(40 * repeats):
        plain, flipped = copies(), copies()
        lap()
        for window, place, _ in plain:
            np.copyto(place, window)
        times['copied'].append(lap())
        for window, place, flips in flipped:
            copy_flipped(window, place, *flips)
        times['copied and flipped'].append(lap())
        reader.read(BATCH)
        times['read'].append(lap())
    return {name: statistics.median(found) for name, found in times.items()}


def float_floor(root: Path, images: int, repeats: int) -> dict[str, float]:
    """Median seconds of a sample of a float batch: read, converted, and both at once."""
    dataset, ids = our_dataset(root, PairedStoreDataset), sample_ids(images)
    orders = [list(islice(ids, BATCH)) for _ in range(150)]
    batches = [dataset.__getitems__(order)[0] for order in orders[:20]]

    def read() -> None:
        for order in orders:
            dataset.__getitems__(order)

    def convert() -> None:
        for number in range(len(orders)):
            _ = [to_unit_range(value) for value in batches[number % len(batches)].values() if torch.is_tensor(value)]

    def both() -> None:
        reader = Thread(target=read)
        reader.start()
        convert()
        reader.join()

    times: dict[str, list[float]] = {'read': [], 'converted': [], 'both at once': []}
    for _ in range(repeats):
        for name, function in zip(times, (read, convert, both), strict=True):
            start = time.perf_counter()
            function()
            times[name].append((time.perf_counter() - start) / len(orders) / BATCH)
    return {name: statistics.median(found) for name, found in times.items()}


def dropped(files: list[Path]) -> bool:
    """Drops files from the page cache; says whether they are gone."""
    resident = pages = 0
    for path in files:
        with open(path, 'rb') as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
                content = np.frombuffer(view, np.uint8)
                states = np.zeros(-(-len(content) // mmap.PAGESIZE), np.uint8)
                address = ctypes.c_void_p(content.ctypes.data)
                ctypes.CDLL(None).mincore(address, ctypes.c_size_t(len(content)), ctypes.c_void_p(states.ctypes.data))
                del content
        resident += int((states & 1).sum())
        pages += len(states)
    return resident < 0.02 * pages


def medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    """Median of each side."""
    theirs, ours = zip(*times, strict=True)
    return statistics.median(theirs), statistics.median(ours)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--images', type=Path, help='folder of photographs of at least 480x480')
    parser.add_argument('--quick', action='store_true', help='three repeats, for a smoke test')
    parser.add_argument('--floor', action='store_true', help='print where the time goes, and nothing else')
    args = parser.parse_args()
    repeats = 3 if args.quick else 9

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        images = write_stores(Path(folder), photographs(args.images))
        print(f'{images} sub-images of {SIZE}x{SIZE}')
        if args.floor:
            for name, found in floor(Path(folder), images, repeats).items():
                print(f'four images of a sample {name}: {found * 1e6:.0f} us')
            for name, found in float_floor(Path(folder), images, repeats).items():
                print(f'a sample of a float batch {name}: {found * 1e6:.0f} us')
            return
        write_whole_stores(Path(folder) / 'whole', photographs(args.images))
        measures = (four_images, float_batches, float_batches_nchw, cold, cold_whole)
        for (figure, goal), measure in zip(GOALS.items(), measures, strict=True):
            found = measure(Path(folder), images, repeats)
            if found is None:
                lines.append(f'{figure} not measured: the page cache keeps the files (goal {goal}x)')
                continue
            print(f'{figure}: BasicSR {1 / found[0]:.0f} samples/s, this package {1 / found[1]:.0f} samples/s')
            lines.append(f'{figure} {found[0] / found[1]:.1f}x (goal {goal}x)')
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
