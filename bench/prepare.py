"""What large sets cost: processor time and memory of ``basicsr prepare`` and of the start of a training, by number of images.

    python bench/prepare.py [--sizes 1000 10000 100000] [--root FOLDER]

For each number a folder of PNGs of 64x64 pixels is made, and then measured, each in a process of its own:

- ``lmdb``, ``lr``: stores of the images and of LR images; ``check``: ``prepare check`` of the pairs, all with one worker;
- ``centroids``: of a small network;
- ``start stores``, ``start folders``: a training of one iteration, from the stores and from folders.

What they need for ten images is taken off, imports with it. Linear time has the same microseconds an image in every line; the
goal is at most 1 KB of memory an image, and at most 3 s of a start for 100,000. Everything is removed in the end.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SIDE, SCALE, FEW = 64, 2, 10
NETWORK = f'{{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: {SCALE}}}'


class Cost(NamedTuple):
    """Processor time in seconds, and the largest memory of a process in KB."""

    seconds: float
    memory: float


def main(arguments: list[str] | None = None) -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--sizes', type=int, nargs='+', default=[1000, 10_000, 100_000], metavar='N')
    parser.add_argument(
        '--root', type=Path, metavar='FOLDER', help='where the sets are made (default: a temporary one)'
    )
    args = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(dir=args.root))
    try:
        few = costs(folder / f'{FEW}', FEW)
        for size in args.sizes:
            for step, cost in costs(folder / f'{size}', size).items():
                seconds, memory = (max(0.0, a - b) for a, b in zip(cost, few[step], strict=True))
                each = f'{1e6 * seconds / size:7.1f} us and {memory / size:6.2f} KB an image'
                print(f'{step:14} {size:7,} images {seconds:7.2f} s {memory / 1024:7.1f} MB   {each}', flush=True)
            shutil.rmtree(folder / f'{size}')
    finally:
        shutil.rmtree(folder)


def costs(folder: Path, size: int) -> dict[str, Cost]:
    """Makes a set in a folder, and measures every step on it."""
    make_images(folder / 'HR', size)
    commands = {
        'lmdb': ['lmdb', '-i', 'HR', '-o', 'HR.lmdb'],
        'lr': ['lr', '-i', 'HR', '-o', 'LR.lmdb', '--scale', str(SCALE)],
        'check': ['check', '--gt', 'HR.lmdb', '--lq', 'LR.lmdb', '--scale', str(SCALE)],
    }
    found = {
        step: measured(folder, ['prepare', *arguments, '--num_workers', '1']) for step, arguments in commands.items()
    }
    measured(folder, ['prepare', 'lr', '-i', 'HR', '-o', 'LR', '--scale', str(SCALE)])
    for name in ('stores', 'folders'):
        ending = '.lmdb' if name == 'stores' else ''
        (folder / f'{name}.yml').write_text(options(name, f'{folder}/HR{ending}', f'{folder}/LR{ending}'))
        found[f'start {name}'] = measured(folder, ['train', '-opt', f'{name}.yml'])
    weights = str(folder / 'experiments/stores/models/net_g_latest.pth')
    stores = ['-i', 'LR.lmdb', '-o', 'C.lmdb', '--output_lq', 'C_LR.lmdb']
    network = ['-opt', 'stores.yml', '--weights', weights]
    found['centroids'] = measured(folder, ['prepare', 'centroids', *stores, *network, '--num_workers', '1'])
    return found


def make_images(folder: Path, size: int) -> None:
    """Writes PNGs of noise, each another."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for number in range(size):
        image = np.roll(noise, number, axis=number % 3) ^ np.uint8(number // 64 % 256)
        cv2.imwrite(str(folder / f'{number:06d}.png'), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])


def options(name: str, gt: str, lq: str) -> str:
    """An option file of one iteration."""
    return f"""
name: {name}
model_type: SRModel
scale: {SCALE}
num_gpu: 0
manual_seed: 0
datasets:
  train:
    {{name: a, type: PairedStoreDataset, dataroot_gt: {gt}, dataroot_lq: {lq}, gt_size: 32, batch_size_per_gpu: 4}}
network_g: {NETWORK}
path: {{}}
train:
  optim_g: {{type: Adam, lr: 1e-4}}
  scheduler: {{type: MultiStepLR, milestones: [10]}}
  total_iter: 1
  pixel_opt: {{type: L1Loss}}
logger: {{print_freq: 1, save_checkpoint_freq: 1, use_tb_logger: false}}
"""


def measured(folder: Path, arguments: list[str]) -> Cost:
    """Runs the command to its end, and says what it and its processes cost.

    Raises:
        RuntimeError: It ended otherwise than expected.
    """
    process = subprocess.Popen(
        [sys.executable, '-m', 'basicsr_ext', *arguments],
        cwd=folder,
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    if process.returncode != 0:
        raise RuntimeError(f'{" ".join(arguments)} ended with {process.returncode}')
    return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss)


if __name__ == '__main__':
    main()
