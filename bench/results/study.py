"""What the experiments of this folder share: their rules, held by code.

An experiment is a list of runs, in the order in which they are done: all arms of the first seed, then those of the
next, so that what fits into the time is whole comparisons. For every run:

- all arms of a seed see the same patches in the same order, since they read the same stores with the same seed;
- the learning rate is annealed to 0, and the number that counts is that of the last weights, never of the best validation;
- BasicSR's trainer runs it, from options that are written beside its scores, with seed, versions and device;
- a JSON appears when the run is over; what has one is not done again, and what was stopped goes on from its checkpoint.

Scores are PSNR and SSIM on luminance in floating point, without a border of ``scale`` pixels. RGB networks are scored on
images of 8 bits, as they would be saved; networks of one channel on the luminance that they make, not rounded.

BASICSR_EXT_BENCH_DIR names a folder with any of ``train/T91``, ``train/BSDS500_train``, ``train/BSDS500_test`` and
``train/photos_560`` to train on, and any of ``Set14``, ``BSD100``, ``Urban100`` and ``Set5`` (each with images or a folder
``HR``) to test on. ``json/<experiment>/images.json`` says which were there.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from basicsr_ext.errors import Stopped, UserError

TRAIN_SETS = ('T91', 'BSDS500_train', 'BSDS500_test', 'photos_560')
TEST_SETS = ('Set14', 'BSD100', 'Urban100')
FURTHER_SET = 'Set5'  # for the eye, since published numbers are on it; in no comparison
SMALLEST = 100  # pixels along the shorter side of a training image: every experiment's patches fit
MARKS = (0.1, 0.25, 0.5, 1.0)  # parts of a training after which every test image is scored
LEAVE_SECONDS = 60  # that a stopped run has for its last iteration and its checkpoint


class Settings(NamedTuple):
    """What the command line says.

    Attributes:
        root: Where everything is written.
        bench: Folder of images and weights.
        device: ``cpu`` or ``cuda``.
        iterations: Of a usual run.
        seeds: Number of seeds.
        jobs: Processes side by side.
    """

    root: Path
    bench: Path
    device: str
    iterations: int
    seeds: int
    jobs: int


class Run(NamedTuple):
    """One training.

    Attributes:
        arm: What is compared.
        seed: Of patches and weights.
        options: For ``basicsr_ext.train``; paths are seen from ``root``. Without ``train`` nothing is trained, and the weights
            of ``path`` are scored.
        after: Name of a run that must be over.
        finish: Called in the process of the run after its training; importable by name.
    """

    arm: str
    seed: int
    options: dict[str, Any]
    after: str = ''
    finish: Callable[[Settings], None] | None = None

    @property
    def name(self) -> str:
        """Of the run, its folder and its file."""
        return self.options['name']


class Study(NamedTuple):
    """An experiment.

    Attributes:
        name: Of its folder of JSON.
        summary: For ``--help``.
        iterations: Of a usual run, unless ``--iterations`` says otherwise.
        seeds: Likewise.
        points: Checkpoints of a run; ``--iterations`` is a multiple.
        prepare: Makes the stores that runs read.
        runs: All of them, in order.
        register: Puts further classes into BasicSR's registries, in every process that trains.
    """

    name: str
    summary: str
    iterations: int
    seeds: int
    points: int
    prepare: Callable[[Settings], None]
    runs: Callable[[Settings], list[Run]]
    register: Callable[[], None] | None = None


# ---- command ---------------------------------------------------------------------------------------------------------


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
    """Does what fits into the time; returns the exit status: 0, 1 where a run failed, 2 where something must be changed."""
    parser = argparse.ArgumentParser(description=study.summary)
    parser.add_argument('--minutes', type=float, default=60, metavar='M', help='after which runs are stopped (60)')
    parser.add_argument('--seeds', type=int, default=study.seeds, metavar='N', help=f'of each arm ({study.seeds})')
    parser.add_argument('--iterations', type=int, default=study.iterations, metavar='N', help=f'({study.iterations})')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu', help='(cpu)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='processes side by side (1)')
    parser.add_argument('--root', default='results', metavar='FOLDER', help='where everything is written (results)')
    args = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * args.minutes
    try:
        if args.iterations < study.points or args.iterations % study.points:
            raise UserError(f'--iterations: expected a multiple of {study.points}, found {args.iterations}.')
        if min(args.seeds, args.jobs) < 1:
            raise UserError('--seeds, --jobs: expected at least 1.')
        root = Path(args.root).resolve()
        settings = Settings(root, bench_folder(), args.device, args.iterations, args.seeds, args.jobs)
        return do_runs(study, settings, deadline)
    except UserError as error:
        print(f'{study.name}: error: {error}', file=sys.stderr)
        return 2


def bench_folder() -> Path:
    """Folder of images and weights, from the environment.

    Raises:
        UserError: It is not set, or nothing of use is there.
    """
    folder = Path(os.environ.get('BASICSR_EXT_BENCH_DIR') or '.').resolve()
    for sets, place in ((TRAIN_SETS, folder / 'train'), (TEST_SETS, folder)):
        if not any((place / name).is_dir() for name in sets):
            raise UserError(
                f'BASICSR_EXT_BENCH_DIR: expected a folder with one of {", ".join(sets)} in {place}, found none.'
            )
    return folder


def do_runs(study: Study, settings: Settings, deadline: float) -> int:
    """Hands runs to processes until all are done or the time is over; returns the exit status."""
    folder = settings.root / 'json' / study.name
    folder.mkdir(parents=True, exist_ok=True)
    runs = study.runs(settings)
    done = {run.name for run in runs if is_done(folder, run)}
    waiting = [run for run in runs if run.name not in done]
    print(f'{study.name}: {len(runs)} runs, {len(done)} done before.', flush=True)
    failed: set[str] = set()
    with workers(study, settings, min(settings.jobs, len(waiting))) as idle:
        study.prepare(settings)
        write_json(folder / 'images.json', images_of(settings))
        busy: dict[Connection, Run] = {}
        while (left := deadline - time.monotonic()) > 0:
            for run in list(waiting):
                if idle and (not run.after or run.after in done):
                    waiting.remove(run)
                    connection = idle.pop()
                    connection.send(run)
                    busy[connection] = run
            if not busy:
                break
            for connection in wait(list(busy), timeout=left):
                run = busy.pop(connection)
                try:
                    error, seconds = connection.recv()
                    idle.append(connection)
                except EOFError:
                    error, seconds = 'the process died; see logs', 0.0
                (failed if error else done).add(run.name)
                what = f'failed: {error}' if error else f'{seconds:.0f} s'
                print(f'{study.name}: {run.name}, {what} ({len(done)} of {len(runs)})', flush=True)
    open_runs = len(runs) - len(done) - len(failed)
    print(f'{study.name}: {len(done)} of {len(runs)} runs are done, {len(failed)} failed, {open_runs} are open.')
    return 1 if failed else 0


def is_done(folder: Path, run: Run) -> bool:
    """Whether a run has its JSON.

    Raises:
        UserError: It has, of other options.
    """
    file = folder / f'{run.name}.json'
    if not file.exists():
        return False
    if json.loads(file.read_text(encoding='utf-8'))['options'] != json.loads(json.dumps(run.options)):
        raise UserError(f'{file}: was made with other options than are asked for now. Choose another --root.')
    return True


@contextmanager
def workers(study: Study, settings: Settings, count: int) -> Iterator[list[Connection]]:
    """Starts processes that train; those that are still busy in the end are asked to save and leave."""
    context = get_context('spawn')  # CUDA does not survive a fork
    processes, connections = [], []
    (settings.root / 'logs').mkdir(exist_ok=True)
    try:
        for number in range(count):
            ours, theirs = context.Pipe()
            log = settings.root / 'logs' / f'{study.name}_{number}.log'
            process = context.Process(
                target=work, args=(theirs, study.name, study.register, settings, log), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            connections.append(ours)
        yield list(connections)
    finally:
        for process in processes:
            process.terminate()
        leave = time.monotonic() + LEAVE_SECONDS
        for process in processes:
            process.join(max(0.0, leave - time.monotonic()))
            if process.is_alive():
                process.kill()


def work(
    connection: Connection, study: str, register: Callable[[], None] | None, settings: Settings, log: Path
) -> None:
    """Trains what comes, in a process of its own, until it is ended; what it says goes into a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its processes in order
    with log.open('a', encoding='utf-8') as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    os.chdir(settings.root)
    import basicsr_ext

    basicsr_ext.register()
    if register is not None:
        register()
    while True:
        try:
            run = connection.recv()
        except EOFError:
            return
        start, error = time.perf_counter(), ''
        try:
            do_run(run, study, settings)
        except Stopped:
            return
        except Exception as reason:
            traceback.print_exc()
            error = f'{type(reason).__name__}: {reason}'
        connection.send((error, time.perf_counter() - start))


def do_run(run: Run, study: str, settings: Settings) -> None:
    """Trains, scores, and writes the JSON of a run."""
    import basicsr_ext

    experiment = settings.root / 'experiments' / run.name
    resumed, start = any((experiment / 'training_states').glob('*.state')), time.perf_counter()
    trains = 'train' in run.options
    if trains:
        basicsr_ext.train(run.options, auto_resume=True, root=settings.root)
    seconds = time.perf_counter() - start
    if run.finish is not None:
        run.finish(settings)
    content = {
        'experiment': study,
        'arm': run.arm,
        'seed': run.seed,
        'seconds': round(seconds, 1) if trains and not resumed else None,
        **circumstances(settings),
        'options': run.options,
        **evaluate(run.options, settings),
    }
    write_json(settings.root / 'json' / study / f'{run.name}.json', content)


def circumstances(settings: Settings) -> dict[str, Any]:
    """Device, versions, and which images there were."""
    import torch

    from basicsr_ext.trainer.checkpoints import versions

    return {
        'device': torch.cuda.get_device_name() if settings.device == 'cuda' else 'CPU',
        'versions': {**versions(), 'basicsr': version('basicsr'), 'python': sys.version.split()[0]},
        'images': digest(images_of(settings)),
    }


def write_json(file: Path, content: Any) -> None:
    """Writes a file that appears whole."""
    partial = file.with_name(f'{file.name}.{os.getpid()}.partial')
    partial.write_text(json.dumps(content, ensure_ascii=False) + '\n', encoding='utf-8')
    partial.replace(file)


# ---- images ----------------------------------------------------------------------------------------------------------


def folder_of(bench: Path, name: str) -> Path | None:
    """Folder of the images of a set, or ``None``."""
    folder = bench / 'train' / name if name in TRAIN_SETS else bench / name
    folder = folder / 'HR' if (folder / 'HR').is_dir() else folder
    return folder if folder.is_dir() else None


@cache
def files_of(bench: Path) -> dict[str, list[Path]]:
    """Set -> its image files, of those sets that are there; training images that are too small are left out."""
    from PIL import Image

    from basicsr_ext.storage.folder import EXTENSIONS

    found = {}
    for name in (*TRAIN_SETS, *TEST_SETS, FURTHER_SET):
        if (folder := folder_of(bench, name)) is None:
            continue
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS)
        if name in TRAIN_SETS:
            files = [file for file in files if min(Image.open(file).size) >= SMALLEST]
        found[name] = files
    return found


def images_of(settings: Settings) -> dict[str, dict[str, dict[str, int]]]:
    """``train`` and ``test`` -> set -> file -> its bytes."""
    sets = {
        name: {file.name: file.stat().st_size for file in files} for name, files in files_of(settings.bench).items()
    }
    return {
        'train': {name: files for name, files in sets.items() if name in TRAIN_SETS},
        'test': {name: files for name, files in sets.items() if name not in TRAIN_SETS},
    }


def digest(content: Any) -> str:
    """A few digits that tell contents apart."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def test_sets(settings: Settings) -> list[str]:
    """Names of the sets that are tested on and there."""
    return [name for name in files_of(settings.bench) if name not in TRAIN_SETS]


def link_weights(settings: Settings, *needed: str) -> None:
    """Links the folder of published weights into the root, from where options name it.

    Raises:
        UserError: Weights that are needed are not there.
    """
    link, weights = settings.root / 'weights', settings.bench / 'weights'
    for name in needed:
        if not (weights / name).exists():
            raise UserError(f'BASICSR_EXT_BENCH_DIR: expected weights in {weights / name}, found none.')
    if not link.exists():
        link.symlink_to(weights)


def make_stores(settings: Settings, scale: int, *, luminance: bool = False, sets: Sequence[str] | None = None) -> None:
    """Makes stores of training and test images, or of some sets, that are not there yet: HR, and LR or luminance at a scale.

    ``datasets/<set>_HR.lmdb`` and ``<set>_LRx<scale>.lmdb``, where all training images are the set ``train``; or
    ``<set>_Yx<scale>.lmdb``, ``<set>_Yx<scale>_small.lmdb`` and ``<set>_Yx<scale>_enlarged.lmdb``.
    """
    from basicsr_ext.prepare.lr import make_lr
    from basicsr_ext.prepare.luma import make_luma
    from basicsr_ext.prepare.stores import make_store

    datasets, found = settings.root / 'datasets', files_of(settings.bench)
    images = {name: {file.stem: file for file in found[name]} for name in test_sets(settings)}
    images['train'] = {f'{name}_{file.stem}': file for name in TRAIN_SETS for file in found.get(name, ())}
    for name in sets or images:
        folder, hr = datasets / name, datasets / f'{name}_HR.lmdb'
        folder.mkdir(parents=True, exist_ok=True)
        with missing(hr) as is_missing:
            if is_missing:
                for stem, file in images[name].items():
                    link = folder / f'{stem}{file.suffix.lower()}'
                    if not link.exists():
                        link.symlink_to(file)
                make_store(folder, hr, channels=3, num_workers=settings.jobs)
        y = [datasets / f'{name}_Yx{scale}{kind}.lmdb' for kind in ('', '_enlarged', '_small')]
        lr = datasets / f'{name}_LRx{scale}.lmdb'
        with missing(y[0] if luminance else lr) as is_missing:
            if is_missing and luminance:
                make_luma([hr], *y[:2], scales=[scale], factors=[1.0], output_small=y[2], num_workers=settings.jobs)
            elif is_missing:
                make_lr(hr, lr, scale, num_workers=settings.jobs)


@contextmanager
def missing(store: Path) -> Iterator[bool]:
    """Says whether a store is to be made; experiments that share a root wait for the one that makes it."""
    with store.with_suffix('.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not store.exists()


# ---- options ---------------------------------------------------------------------------------------------------------


def common_options(name: str, seed: int, settings: Settings, points: int, length: int | None = None) -> dict[str, Any]:
    """What the options of all runs share; ``train`` and ``datasets`` are to be completed.

    Args:
        name: Of the run.
        seed: Of weights and patches.
        settings: Of the command line.
        points: Checkpoints.
        length: Iterations; default: those of the settings.
    """
    length = length or settings.iterations
    return {
        'name': name,
        'num_gpu': 1 if settings.device == 'cuda' else 0,
        'manual_seed': seed,
        'path': {},
        'train': {'total_iter': length, 'scheduler': annealed(length)},
        'logger': {'print_freq': length, 'save_checkpoint_freq': length // points, 'use_tb_logger': False},
    }


def annealed(length: int) -> dict[str, Any]:
    """Scheduler that takes the learning rate to 0 along a cosine."""
    return {'type': 'CosineAnnealingLR', 'T_max': length, 'eta_min': 0}


def train_set(gt_size: int, batch: int, gt: str, lq: str) -> dict[str, Any]:
    """Block of the training images.

    Args:
        gt_size: Sides of the patches, in HR pixels.
        batch: Their number in a batch.
        gt: Name of the HR store in ``datasets``.
        lq: Name of the LR store.
    """
    return {
        'name': 'train', 'type': 'PairedStoreDataset', 'dataroot_gt': f'datasets/{gt}.lmdb',
        'dataroot_lq': f'datasets/{lq}.lmdb', 'gt_size': gt_size, 'num_worker_per_gpu': 0, 'batch_size_per_gpu': batch,
        'dataset_enlarge_ratio': 1000,
    }  # fmt: skip


def edsr(blocks: int, features: int, scale: int) -> dict[str, Any]:
    """Network option of an EDSR."""
    return {
        'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': features, 'num_block': blocks, 'upscale': scale,
        'res_scale': 1, 'img_range': 255.0, 'rgb_mean': [0.4488, 0.4371, 0.4040],
    }  # fmt: skip


# ---- scores ----------------------------------------------------------------------------------------------------------


def evaluate(options: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Scores a run's checkpoints.

    Returns:
        ``scores``: set -> image -> PSNR and SSIM of the last weights; ``marks``: iteration -> set -> PSNR of its images, in
        their order; ``curve``: mean PSNR on the first set at every checkpoint, and that of bicubic enlargement. The latter two
        where it was trained.
    """
    from basicsr.archs import build_network

    from basicsr_ext.functional.resize import upsample
    from basicsr_ext.networks.weights import load_weights

    scale, luminance = options['scale'], options['network_g'].get('in_channels') == 1
    images = {name: test_images(settings.root, name, scale, luminance, settings.device) for name in test_sets(settings)}
    first = next(iter(images))
    network = build_network(options['network_g']).to(settings.device).eval()
    if 'train' not in options:
        load_weights(network, settings.root / options['path']['pretrain_network_g'])
        with exact_convolutions():
            return {'scores': {name: score(network, some, scale, with_ssim=True) for name, some in images.items()}}
    length, step = options['train']['total_iter'], options['logger']['save_checkpoint_freq']
    marks: dict[int, dict[str, list[float]]] = {}
    bicubic = mean_psnr(score(lambda low: upsample(low, scale), images[first], scale, with_ssim=False))
    curve: dict[str, Any] = {'set': first, 'bicubic': bicubic, 'iterations': [], 'psnr': []}
    with exact_convolutions():
        for iteration in range(step, length + 1, step):
            load_weights(network, settings.root / f'experiments/{options["name"]}/models/net_g_{iteration}.pth')
            marked = iteration in [round(part * length) for part in MARKS]
            found = {
                name: score(network, some, scale, with_ssim=iteration == length)
                for name, some in images.items()
                if marked or name == first
            }
            curve['iterations'].append(iteration)
            curve['psnr'].append(mean_psnr(found[first]))
            if marked:
                marks[iteration] = {
                    name: [values['psnr'] for values in of_set.values()] for name, of_set in found.items()
                }
    return {'scores': found, 'marks': marks, 'curve': curve}


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Networks run in float32, not TF32, and no time goes into trying algorithms for each size of image."""
    import torch

    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@cache
def test_images(root: Path, name: str, scale: int, luminance: bool, device: str) -> list[tuple[str, Any, Any]]:
    """Key, LR image and HR image of each image of a set, (1, channels, height, width) as stored, on the device."""
    import torch

    from basicsr_ext.storage import open_store

    kinds = (f'Yx{scale}_small', f'Yx{scale}') if luminance else (f'LRx{scale}', 'HR')
    lq, hr = (open_store(root / f'datasets/{name}_{kind}.lmdb') for kind in kinds)

    def tensor(image: Any) -> Any:
        return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].contiguous().to(device)

    images = []
    for key in hr.keys():
        low, high = lq.read(key), hr.read(key)
        high = high[: low.shape[0] * scale, : low.shape[1] * scale]
        images.append((key.rpartition('/')[2].removesuffix(f'_1_x{scale}'), tensor(low), tensor(high)))
    return images


def score(
    network: Callable[[Any], Any], images: Sequence[tuple[str, Any, Any]], scale: int, *, with_ssim: bool
) -> dict[str, dict[str, float]]:
    """Image -> PSNR in dB and, if asked for, SSIM of what the network makes of it."""
    import torch

    found = []
    with torch.inference_mode():
        for _, low, high in images:
            if low.dtype == torch.uint8:
                output = (network(low.float() / 255) * 255).clamp(0, 255).round()
                pair = (luminance_of(output), luminance_of(high))
            else:
                pair = (network(low).double() * 255, high.double() * 255)
            found.append(torch.stack(psnr_ssim(*pair, scale, with_ssim=with_ssim)))
    rows = torch.stack(found).tolist()
    names = ('psnr', 'ssim')[: len(rows[0])]
    digits = {'psnr': 4, 'ssim': 5}
    return {
        key: {name: round(value, digits[name]) for name, value in zip(names, row, strict=True)}
        for (key, _, _), row in zip(images, rows, strict=True)
    }


def mean_psnr(scores: dict[str, dict[str, float]]) -> float:
    """Mean PSNR of the images of a set."""
    return round(sum(values['psnr'] for values in scores.values()) / len(scores), 4)


def luminance_of(images: Any) -> Any:
    """Luminance (N, 1, H, W), float64 on [16, 235], of RGB images (N, 3, H, W) on [0, 255]."""
    from basicsr_ext.functional.ycbcr import rgb_to_ycbcr

    return rgb_to_ycbcr(images.double() / 255)[:, :1] * 255


def psnr_ssim(image: Any, reference: Any, border: int, *, with_ssim: bool) -> list[Any]:
    """PSNR and SSIM of luminance (1, 1, H, W) on [0, 255], on the device: the numbers of ``functional.psnr`` and ``ssim``."""
    from basicsr_ext.functional.ssim_map import SSIMSettings, ssim_map

    inside = (..., slice(border, image.shape[-2] - border), slice(border, image.shape[-1] - border))
    image, reference = image[inside], reference[inside]
    values = [10 * (255**2 / (image - reference).square().mean()).log10()]
    if with_ssim:
        settings = SSIMSettings(data_range=255)
        reach = settings.window_size // 2  # windows that leave the image do not count
        values.append(ssim_map(image, reference, settings)[..., reach:-reach, reach:-reach].mean())
    return values
