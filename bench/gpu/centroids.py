"""Images/s of "basicsr prepare centroids" with RCAN x4 (published size, random weights), in fp32 and bf16.

    python bench/gpu/centroids.py [--out DIR] [--minutes 1] [--small]

LR images are photographs shrunk to a quarter, of one size where they are of one size, in batches of 8. A whole call is
measured: reading, the network, MATLAB's bicubic, writing both stores; both precisions in turn, medians, after a warm-up.
"""

from __future__ import annotations

import logging
import shutil
import statistics
import tempfile
from pathlib import Path

from images import photographs
from measuring import CUDA, Figures, meets, parse_arguments, profile, seconds_of

import basicsr_ext

basicsr_ext.register()

import cv2
import torch
from basicsr.archs import build_network

from basicsr_ext.functional.resize import downsample, mod_crop
from basicsr_ext.prepare.centroids import make_centroids

RCAN = {
    'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 64, 'num_group': 10, 'num_block': 20, 'squeeze_factor': 16,
    'upscale': 4,
}  # fmt: skip
SMALL = {'num_feat': 8, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 4}
PRECISIONS = ('fp32', 'bf16')


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0])
    logging.disable(logging.INFO)
    figures = Figures('centroids', args.out, args.minutes, args.small)
    network = {**RCAN, **(SMALL if args.small else {})}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / 'lr').mkdir()
        images = list(photographs(3 if args.small else 80))
        for name, image in images:
            cv2.imwrite(str(root / 'lr' / f'{name}.png'), downsample(mod_crop(image, 4), 4))
        torch.manual_seed(0)
        torch.save({'params': build_network(dict(network)).state_dict()}, root / 'teacher.pth')

        def make(precision: str) -> None:
            stores = [root / 'mu.lmdb', root / 'mu_lq.lmdb']
            for store in stores:
                shutil.rmtree(store, ignore_errors=True)
            make_centroids(
                root / 'lr', *stores, network=network, weights=root / 'teacher.pth', scale=4, batch_size=8,
                precision=precision, num_workers=1,
            )  # fmt: skip

        taken: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
        with figures.attempt('centroids', 20) as there_is_time:
            if not there_is_time:
                return
            make('fp32')
            for _ in range(1 if args.small else 3):
                for precision in PRECISIONS:
                    if figures.seconds_left() > 1.5 * max([0, *taken[precision]]):
                        taken[precision].append(seconds_of(lambda precision=precision: make(precision)))
            seconds = {precision: statistics.median(values) for precision, values in taken.items()}
            for precision, value in seconds.items():
                lq = '140x140 for most'
                figures.write(f'centroids_{precision}', len(images) / value, 'images/s', images=len(images), lq=lq)
            ratio = seconds['fp32'] / seconds['bf16']
            figures.write('centroids_bf16_over_fp32', ratio, 'x', '>= 3')
            if not meets(ratio, '>= 3'):
                profile(lambda: make('bf16'), 'centroids_bf16', args.out, 1)
                if CUDA:
                    profile(lambda: make('fp32'), 'centroids_fp32', args.out, 1)


if __name__ == '__main__':
    main()
