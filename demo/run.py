"""ECO against plain training, in minutes on a CPU, with photographs that scikit-image carries.

    python demo/run.py [--out demo_out] [--iterations N]

Builds image stores, trains a tiny teacher, makes centroids with it, trains one tiny network twice (plainly and with ECO: same
seed, same crops, same number of iterations), prints the PSNR of both on photographs that none of them was trained on, and
draws a picture. Every command is printed before it runs. All that is written goes into the output folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import shutil
import sys
import time
from contextlib import chdir
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from basicsr_ext.cli.main import main as command
from basicsr_ext.errors import UserError
from basicsr_ext.report.crops import Window, highest_window, squared_error
from basicsr_ext.report.curves import Curve, read_scalars
from basicsr_ext.report.tables import format_scores
from basicsr_ext.storage import open_store

OPTIONS = Path(__file__).resolve().parent
SCALE = 2
PHOTOGRAPHS = {
    # The two motorcycles are one scene: they must be on one side.
    'train': ('coffee.png', 'ihc.png', 'motorcycle_left.png', 'motorcycle_right.png'),
    'val': ('astronaut.png', 'chelsea.png', 'rocket.jpg'),
}
RUNS = ('teacher', 'vanilla', 'ECO')  # names of the option files, and of the runs
COMPARED = ('vanilla', 'ECO')
CROP = 80  # HR pixels
PICTURE = 'demo.png'
MARKER = '.made_by_the_demo'
Images = dict[str, np.ndarray]


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; returns the exit status."""
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument(
        '--out', default='demo_out', metavar='FOLDER', help='where everything is written (default: demo_out)'
    )
    parser.add_argument(
        '--iterations', type=int, metavar='N', help='of each of the three trainings (default: as their files say)'
    )
    args = parser.parse_args(arguments)
    try:
        if args.iterations is not None and args.iterations < 1:
            raise UserError(f'--iterations: expected at least 1, found {args.iterations}.')
        out = make_folder(Path(args.out))
        print(f'$ cd {shlex.quote(args.out)}')
        with chdir(out):
            copy_photographs(photograph_folder(), Path('photographs'))
            build_everything(args.iterations)
            summary = compare()
    except UserError as error:
        print(f'demo: error: {error}', file=sys.stderr)
        return 2
    print(f'\n{summary}\n')
    print(f'{time.perf_counter() - start:.0f} seconds in all')
    print(f'picture: {Path(args.out, PICTURE)}')
    return 0


# ---- making: what a user would do with the command -----------------------------------------------------------------------


def build_everything(iterations: int | None) -> None:
    """Makes the stores, the teacher, its centroids, and the two networks to compare, in the working directory."""
    options = {run: os.path.relpath(OPTIONS / f'train_{run}.yml') for run in RUNS}
    shorter = forced_options(iterations)
    for part in PHOTOGRAPHS:
        basicsr('prepare', 'lmdb', '-i', f'photographs/{part}', '-o', f'datasets/HR_{part}.lmdb')
        basicsr(
            'prepare', 'lr', '-i', f'datasets/HR_{part}.lmdb', '-o', f'datasets/LR_{part}_x2.lmdb', '-s', str(SCALE)
        )
    basicsr('train', '-opt', options['teacher'], *shorter)
    basicsr(
        *('prepare', 'centroids', '-i', 'datasets/LR_train_x2.lmdb', '-opt', options['teacher']),
        *('--weights', 'experiments/teacher/models/net_g_latest.pth'),
        *('-o', 'datasets/centroid_train.lmdb', '--output-lq', 'datasets/centroid_train_x2.lmdb'),
    )
    basicsr('train', '-opt', options['vanilla'], *shorter)
    basicsr('train', '-opt', options['ECO'], *shorter)


def basicsr(*arguments: str) -> None:
    """Prints a ``basicsr`` command and runs it in this process: BasicSR takes seconds to import."""
    print(f'\n$ {shlex.join(("basicsr", *arguments))}', flush=True)
    if command(arguments) != 0:
        raise UserError('the command above failed.')


def forced_options(iterations: int | None) -> tuple[str, ...]:
    """Arguments that give a training another length, with a dozen validations."""
    if iterations is None:
        return ()
    return (
        '--force_yml',
        f'train:total_iter={iterations}',
        f'train:scheduler:periods=[{iterations}]',
        f'val:val_freq={max(1, iterations // 12)}',
    )


def make_folder(folder: Path) -> Path:
    """Makes the output folder anew.

    Raises:
        UserError: There is something at that path which no earlier demo made.
    """
    if folder.is_dir() and not folder.is_symlink() and (folder / MARKER).is_file():
        shutil.rmtree(folder)
    elif folder.is_symlink() or folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(
            f'--out {folder}: expected nothing there, or an earlier output of this demo, found something else.'
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text('The demo replaces this folder when it runs again.\n', encoding='utf-8')
    return folder


def photograph_folder() -> Path:
    """Folder of the images that scikit-image brings along, found without importing it."""
    package = importlib.util.find_spec('skimage')
    if package is None:
        raise UserError('expected scikit-image, a requirement of BasicSR, found none: pip install scikit-image')
    return Path(package.submodule_search_locations[0], 'data')


def copy_photographs(source: Path, target: Path) -> None:
    """Copies the photographs for training and validation into a folder each."""
    for part, names in PHOTOGRAPHS.items():
        (target / part).mkdir(parents=True)
        for name in names:
            if not (source / name).is_file():
                raise UserError(
                    f'{source}: expected the photograph {name} of scikit-image: install scikit-image again.'
                )
            shutil.copyfile(source / name, target / part / name)


# ---- comparing: what came out --------------------------------------------------------------------------------------------


def compare() -> str:
    """Draws the picture and returns the table of PSNRs, with a sentence on which is better."""
    from basicsr_ext.functional.resize import mod_crop, upsample

    real, low = read_images('datasets/HR_val.lmdb'), read_images('datasets/LR_val_x2.lmdb')
    real = {name: mod_crop(image, SCALE) for name, image in real.items()}
    results = {'bicubic': {name: upsample(image, SCALE) for name, image in low.items()}}
    results |= {run: {name: last_validation(run, name) for name in real} for run in RUNS}
    scores = {method: [psnr(images[name], real[name]) for name in real] for method, images in results.items()}
    curves = {run: read_scalars(f'tb_logger/{run}', 'metrics/held_back/psnr') for run in COMPARED}
    draw(real, low, results, scores, curves)
    table = format_scores('PSNR (dB) on Y', list(real), scores)
    return f'{table}\n\n{verdict(np.mean(scores["vanilla"]), np.mean(scores["ECO"]))}'


def verdict(vanilla: float, eco: float) -> str:
    """Says which of two mean PSNRs is higher, and by how much."""
    difference = eco - vanilla
    if abs(difference) < 0.005:
        found = 'ECO and vanilla training end alike here'
    else:
        found = f'ECO ends {abs(difference):.2f} dB {"above" if difference > 0 else "below"} vanilla training here'
    return f'{found}: one short run of each on a handful of photographs, an illustration and no evidence.'


def psnr(image: np.ndarray, reference: np.ndarray) -> float:
    """PSNR on Y with a border of the scale removed, of uint8 RGB images, in dB."""
    from basicsr.metrics import calculate_psnr

    return float(calculate_psnr(image[..., ::-1], reference[..., ::-1], crop_border=SCALE, test_y_channel=True))


def read_images(path: str) -> Images:
    """Reads a whole store."""
    store = open_store(path)
    return {key: store.read(key) for key in store.keys()}


def last_validation(run: str, name: str) -> np.ndarray:
    """Reads what a run made of a photograph in its last validation, that of its final weights."""
    saved = Path('experiments', run, 'visualization', name).glob('*.png')
    path = max(saved, key=lambda path: int(path.stem.rpartition('_')[2]))
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def draw(
    real: Images, low: Images, results: dict[str, Images], scores: dict[str, list[float]], curves: dict[str, Curve]
) -> None:
    """Draws curves and crops."""
    from basicsr_ext.report.pictures import Panel, draw_comparison

    name, window = telling_crop(real, results)
    of_photograph = {method: values[list(real).index(name)] for method, values in scores.items()}
    panels = [Panel(f'LR (bicubic: {of_photograph["bicubic"]:.2f} dB)', window.of(low[name], SCALE))]
    panels += [Panel(f'{run}: {of_photograph[run]:.2f} dB', window.of(results[run][name])) for run in COMPARED]
    panels.append(Panel('GT', window.of(real[name])))
    draw_comparison(
        PICTURE,
        curves,
        panels,
        quantity='PSNR (dB), mean of held-back photographs',
        level=('bicubic', float(np.mean(scores['bicubic']))),
        caption=f'{name}, where both networks together gain most over bicubic enlargement ({CROP}x{CROP} pixels); '
        'PSNR on Y of the whole photograph.',
    )


def telling_crop(real: Images, results: dict[str, Images]) -> tuple[str, Window]:
    """Chooses photograph and place without favouring one network: where both together gain most over bicubic."""
    crops = {}
    for name, reference in real.items():
        errors = {method: squared_error(images[name], reference) for method, images in results.items()}
        gain = errors['bicubic'] - sum(errors[run] for run in COMPARED) / len(COMPARED)
        crops[name] = highest_window(gain, CROP, step=SCALE)
    best = max(crops, key=lambda name: crops[name][1])
    return best, crops[best][0]


if __name__ == '__main__':
    sys.exit(main())
