"""Published students before and after AIL, and their teacher, on all test images: x2, x3 and x4.

    export BASICSR_EXT_BENCH_DIR=FOLDER
    python bench/results/published.py --device cuda --root results

FOLDER holds the weights that came with AIL (``weights/ail_*.pth``: VDSR with 13 features, and its teacher with 64). Nothing is
trained: one pair of weights is no more than a trial of the method, on many images. Luminance as the papers have it: shrunk and
enlarged in double precision.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import study
from study import Settings

from basicsr_ext.errors import UserError

NAME = 'published'
SCALES = (2, 3, 4)
WEIGHTS = {
    'before AIL': ('ail_pre_vdsr_f13.pth', 13),
    'after AIL': ('ail_ours_ail_r9_f13_s{scale}.pth', 13),
    'teacher': ('ail_tea_vdsr.pth', 64),
}


def main(arguments: list[str] | None = None) -> int:
    """Scores what is not scored yet; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='(cpu)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='processes that make the stores (1)')
    parser.add_argument('--root', default='results', metavar='FOLDER', help='where everything is written (results)')
    args = parser.parse_args(arguments)
    try:
        settings = Settings(Path(args.root).resolve(), study.bench_folder(), args.device, 0, 1, args.jobs)
        folder = settings.root / 'json' / NAME
        folder.mkdir(parents=True, exist_ok=True)
        study.write_json(folder / 'images.json', study.images_of(settings))
        for scale in SCALES:
            with study.locked(settings.root / 'datasets.lock'):
                study.make_stores(settings, scale, luminance=True, sets=study.test_sets(settings))
            for arm, (name, _) in WEIGHTS.items():
                if (settings.bench / 'weights' / name.format(scale=scale)).exists():
                    score(arm, scale, settings, folder)
                else:
                    print(f'{NAME}: {name.format(scale=scale)} is not there.')
    except UserError as error:
        print(f'{NAME}: error: {error}', file=sys.stderr)
        return 2
    return 0


def score(arm: str, scale: int, settings: Settings, folder: Path) -> None:
    """Writes the scores of one network at one scale."""
    import torch

    import basicsr_ext

    basicsr_ext.register()
    from basicsr.archs import build_network

    from basicsr_ext.storage.weights import load_weights

    file = folder / f'{arm.replace(" ", "_")}_x{scale}.json'
    if file.exists():
        return
    name, features = WEIGHTS[arm]
    options = {'scale': scale, 'network_g': {'type': 'VDSR', 'num_feat': features, 'upscale': scale}}
    network = build_network(options['network_g'])
    load_weights(network, settings.bench / 'weights' / name.format(scale=scale))
    network.to(settings.device).eval()
    with study.exact_convolutions():
        scores = {
            of_set: study.score(
                network, study.test_images(settings.root, of_set, scale, True, settings.device), scale, with_ssim=True
            )
            for of_set in study.test_sets(settings)
        }
    content = {'experiment': NAME, 'arm': f'x{scale}, {arm}', 'seed': 0, 'options': options, 'scores': scores}
    study.write_json(file, {**content, **study.circumstances(settings)})
    print(
        f'{NAME}: {arm}, x{scale}: {", ".join(f"{k} {study.mean_psnr(v):.2f}" for k, v in scores.items())}', flush=True
    )
    if settings.device == 'cuda':
        torch.cuda.empty_cache()


if __name__ == '__main__':
    sys.exit(main())
