"""Published students before and after AIL, and their teacher, on all test images, x2, x3 and x4: nothing is trained.

    export BASICSR_EXT_BENCH_DIR=FOLDER
    python bench/results/published.py --device cuda --root results

FOLDER holds what there is of the weights that came with AIL (``weights/ail_*.pth``: VDSR with 13 features, and its teacher
with 64). One pair of weights is no more than a trial of the method, on many images. Luminance is shrunk and enlarged in double
precision, as the papers have it. Rules and data: ``study.py``.
"""

from __future__ import annotations

import sys

import study
from study import Run, Settings, Study

SCALES = (2, 3, 4)
WEIGHTS = {
    'before AIL': ('ail_pre_vdsr_f13.pth', 13),
    'after AIL': ('ail_ours_ail_r9_f13_s{scale}.pth', 13),
    'teacher': ('ail_tea_vdsr.pth', 64),
}


def runs(settings: Settings) -> list[Run]:
    """The networks whose weights are there."""
    found = []
    for scale in SCALES:
        for arm, (file, features) in WEIGHTS.items():
            name = file.format(scale=scale)
            if (settings.bench / 'weights' / name).exists():
                options = {
                    'name': f'published_{arm.replace(" ", "_")}_x{scale}',
                    'scale': scale,
                    'network_g': {'type': 'VDSR', 'in_channels': 1, 'num_feat': features, 'upscale': scale},
                    'path': {'pretrain_network_g': f'weights/{name}'},
                }
                found.append(Run(f'x{scale}, {arm}', 0, options))
    return found


def prepare(settings: Settings) -> None:
    """Makes the stores of test images, and links the weights."""
    study.link_weights(settings)
    for scale in SCALES:
        study.make_stores(settings, scale, luminance=True, sets=study.test_sets(settings))


STUDY = Study('published', __doc__.split('\n')[0], 1, 1, 1, prepare, runs)

if __name__ == '__main__':
    sys.exit(study.main(STUDY))
