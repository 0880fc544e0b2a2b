"""Images/s of "basicsr prepare centroids" with RCAN x4 (published size, random weights), in fp32 and bf16.

    python bench/gpu/centroids.py [--out DIR] [--minutes 1] [--small]

LR images are of 510x339 pixels, as most of DIV2K's at x4, put together from photographs. A whole call is measured: reading,
the network, MATLAB's bicubic, writing both stores; both precisions in turn, medians, after a warm-up.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from images import photographs
from measuring import CUDA, Figures, meets, parse_arguments, profile, seconds_of

import basicsr_ext

basicsr_ext.register()

import cv2
import numpy as np
import torch
from basicsr.archs import build_network

from basicsr_ext.prepare.centroids import make_centroids

RCAN = {
    'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_group': 10, 'num_block': 20, 'squeeze_factor': 16,
    'upscale': 4,
}  # fmt: skip
SMALL = {'num_feat': 8, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 4}
PRECISIONS = ('fp32', 'bf16')
SIZE, SMALL_SIZE = (339, 510), (24, 32)


def lr_images(count: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """BGR images of a size, each of four photographs."""
    pieces = [image for _, image in photographs(4 * count)]
    half = [-(-side // 2) for side in size]
    for number in range(count):
        four = [
            cv2.resize(pieces[(4 * number + i) % len(pieces)], half[::-1], interpolation=cv2.INTER_AREA)
            for i in range(4)
        ]
        yield np.concatenate([np.concatenate(four[:2], 1), np.concatenate(four[2:], 1)])[: size[0], : size[1]]


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0])
    logging.disable(logging.INFO)
    figures = Figures('centroids', args.out, args.minutes, args.small)
    network = {**RCAN, **(SMALL if args.small else {})}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / 'lr').mkdir()
        images = list(lr_images(3 if args.small else 16, SMALL_SIZE if args.small else SIZE))
        for number, image in enumerate(images):
            cv2.imwrite(str(root / 'lr' / f'{number:03}.png'), image)
        torch.manual_seed(0)
        torch.save({'params': build_network(dict(network)).state_dict()}, root / 'teacher.pth')

        def make(precision: str) -> None:
            stores = [root / 'mu.lmdb', root / 'mu_lq.lmdb']
            for store in stores:
                shutil.rmtree(store, ignore_errors=True)
            make_centroids(
                root / 'lr', *stores, network=network, weights=root / 'teacher.pth', scale=4,
                precision=precision, num_workers=1,
            )  # fmt: skip

        taken: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
        with figures.attempt('centroids', 20) as there_is_time:
            if not there_is_time:
                return
            make('fp32')
            for _ in range(1 if args.small else 2):
                for precision in PRECISIONS:
                    if figures.seconds_left() > 1.5 * max([0, *taken[precision]]):
                        taken[precision].append(seconds_of(lambda precision=precision: make(precision)))
            seconds = {precision: statistics.median(values) for precision, values in taken.items()}
            for precision, value in seconds.items():
                lq = 'x'.join(map(str, images[0].shape[:2]))
                figures.write(f'centroids_{precision}', len(images) / value, 'images/s', images=len(images), lq=lq)
            ratio = seconds['fp32'] / seconds['bf16']
            figures.write('centroids_bf16_over_fp32', ratio, 'x', '>= 3')
            if not meets(ratio, '>= 3'):
                profile(lambda: make('bf16'), 'centroids_bf16', args.out, 1)
                if CUDA:
                    profile(lambda: make('fp32'), 'centroids_fp32', args.out, 1)


if __name__ == '__main__':
    main()
