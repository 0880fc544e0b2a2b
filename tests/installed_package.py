"""What a user of the installed package does, away from any clone: from photographs to an enlarged image.

    python tests/installed_package.py PYTHON FOLDER

runs it with the Python of an environment in which the package is installed, with ECO on two ranks.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png')
SMALL = """
num_gpu: 0
datasets:
  train:
    dataroot_gt: datasets/benchmark/Set5_HR.lmdb
    dataroot_lq: datasets/benchmark/Set5_LR_x2.lmdb
    gt_size: 32
    batch_size_per_gpu: 2
  val: {dataroot_gt: datasets/benchmark/Set5_HR.lmdb, dataroot_lq: datasets/benchmark/Set5_LR_x2.lmdb}
network_g: {num_feat: 4, num_block: 1}
train: {total_iter: 10, scheduler: {periods: [10]}}
val: {val_freq: 10}
logger: {print_freq: 5, save_checkpoint_freq: 10, use_tb_logger: false}
"""
ECO = """
datasets: {train: {dataroot_centroid: datasets/centroid.lmdb, dataroot_centroid_lq: datasets/centroid_LR.lmdb}}
"""


def use_package(python: Path, folder: Path, with_eco: bool) -> Path:
    """Makes stores, trains from option files that come with the package, and enlarges an image.

    Args:
        python: Of the environment in which the package is installed.
        folder: Where all of it goes; empty.
        with_eco: Go on with ECO, on two ranks, from centroids that the first network makes.

    Returns:
        The enlarged image.
    """

    def run(*command: str | Path) -> str:
        print('$', *command, flush=True)
        environment = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'BASICSR')}
        environment.update(OMP_NUM_THREADS='1', SCALES='2')
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800)
        if done.returncode:
            raise RuntimeError(f'{command} failed: {done.stdout}\n{done.stderr}')
        return done.stdout

    basicsr = python.parent / 'basicsr'
    origin = run(python, '-c', 'import basicsr_ext; basicsr_ext.register(); print(basicsr_ext.__file__)').split()[-1]
    if not Path(origin).is_relative_to(python.parents[1]):
        raise RuntimeError(f'expected the installed package, found {origin}')
    images = run(python, '-c', 'import skimage; print(skimage.__path__[0])').split()[-1]
    (folder / 'photographs').mkdir()
    for name in PHOTOGRAPHS:
        (folder / 'photographs' / name).write_bytes(Path(images, 'data', name).read_bytes())
    run(basicsr, 'recipe', 'benchmark', 'Set5', 'photographs')
    plain = '_base_: basicsr_ext:train_vanilla_EDSR_x2.yml\nname: plain'
    (folder / 'plain.yml').write_text(plain + SMALL)
    run(basicsr, 'train', '-opt', 'plain.yml')
    weights = 'experiments/plain/models/net_g_latest.pth'
    if with_eco:
        lq = 'datasets/benchmark/Set5_LR_x2.lmdb'
        stores = ('-o', 'datasets/centroid.lmdb', '--output_lq', 'datasets/centroid_LR.lmdb')
        run(basicsr, 'prepare', 'centroids', '-i', lq, '-opt', 'plain.yml', '--weights', weights, *stores)
        run(basicsr, 'options', 'copy', 'train_ECO_EDSR_x2')
        (folder / 'small.yml').write_text(SMALL)
        (folder / 'eco.yml').write_text('_base_: [options/train_ECO_EDSR_x2.yml, small.yml]\nname: eco\n' + ECO)
        run(basicsr, 'train', '-opt', 'eco.yml', '--nproc', '2')
        weights = 'experiments/eco/models/net_g_latest.pth'
    run(basicsr, 'upscale', '-i', f'photographs/{PHOTOGRAPHS[0]}', '-o', 'enlarged', '--weights', weights)
    return folder / 'enlarged' / PHOTOGRAPHS[0]


if __name__ == '__main__':
    print(use_package(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute(), with_eco=True))
