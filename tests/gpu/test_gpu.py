"""All methods on a CUDA device.

Skipped where there is none. With ``BASICSR_EXT_GPU_DRY=1`` everything runs on the CPU instead, which tries the tests.
"""

from __future__ import annotations

import os

# cuBLAS repeats its sums only with a workspace of fixed size, which it reads at its first use in this process.
os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', ':4096:8')

import basicsr_ext

basicsr_ext.register()

import math
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from run_helpers import TINY_EDSR, eco_options, final_state, log_text, sr_options, write_centroids, write_options

sys.path.insert(0, str(Path(__file__).parents[1] / 'models'))
from ail_runs import ail_options, write_ail_images
from criacl_runs import criacl_options
from criacl_runs import make_images as write_vgg_and_pairs
from lfcsr_runs import lfcsr_options, with_all_losses

from basicsr_ext.functional.ssim_map import SSIMSettings, ssim_map
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.prepare.centroids import make_centroids
from basicsr_ext.storage import open_store
from basicsr_ext.trainer.metrics_log import read_metrics

CUDA = torch.cuda.is_available()
DRY = os.environ.get('BASICSR_EXT_GPU_DRY') == '1' and not CUDA
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (CUDA or DRY), reason='needs a CUDA device'),
]
only_on_gpu = pytest.mark.skipif(not CUDA, reason='says nothing without a CUDA device')
DEVICE = 'cuda' if CUDA else 'cpu'

METHODS: dict[str, Callable[[Path], dict[str, Any]]] = {
    'eco': lambda images: eco_options(images, objective='eco'),
    'pspl': lambda images: with_loss(sr_options(images, model_type='TrainingModel'), {'type': 'PSPLLoss', 'criterion': 'l1',
                                                                                       'step_iters': 1}),
    'ail': ail_options,
    'lfcsr': lambda images: with_all_losses(lfcsr_options(images), images),
    'criacl': criacl_options,
}  # fmt: skip


def with_loss(options: dict[str, Any], loss: dict[str, Any]) -> dict[str, Any]:
    options['train']['pixel_opt'] = loss
    return options


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos) -> Path:
    """Pairs of images, centroids, a teacher and weights of VGG-19."""
    root = tmp_path_factory.mktemp('images')
    write_vgg_and_pairs(root, photos)
    write_ail_images(root, photos)
    write_centroids(root)
    return root


@pytest.fixture(autouse=True)
def _settings_of_one_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    torch.use_deterministic_algorithms(False)


def options_of(method: str, images: Path, *, on_gpu: bool = True, **train: Any) -> dict[str, Any]:
    """Six iterations of a method, printed each, without a validation before the last."""
    options = METHODS[method](images)
    options['num_gpu'] = int(CUDA and on_gpu)
    options['train'].update(total_iter=6, **train)
    if method == 'lfcsr':
        options['train']['lfcsr']['admm_start_iter'] = 2
    options['val']['val_freq'] = 6
    options['logger'].update(print_freq=1, save_checkpoint_freq=3)
    return options


def losses_of(root: Path, name: str = 'run') -> list[dict[str, float]]:
    """What each printed line said of losses."""
    lines = read_metrics(root / 'experiments' / name / 'metrics.jsonl')
    return [{k: v for k, v in line.items() if k.startswith('l_')} for line in lines if line['event'] == 'train']


def trained(root: Path, options: dict[str, Any], **arguments: Any) -> list[dict[str, float]]:
    """Trains, and returns the losses of every iteration; each must be finite."""
    root.mkdir(exist_ok=True)
    basicsr_ext.train(deepcopy(options), root=root, **arguments)
    lines = losses_of(root)
    assert all(line and all(v is not None and math.isfinite(v) for v in line.values()) for line in lines)
    return lines


# ---- all methods ------------------------------------------------------------------------------------------------------


@only_on_gpu
@pytest.mark.parametrize('method', METHODS)
def test_losses_agree_with_the_cpu(method, images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    here = trained(tmp_path / 'gpu', options_of(method, images))
    there = trained(tmp_path / 'cpu', options_of(method, images, on_gpu=False))
    assert len(here) == len(there) == 6
    for ours, theirs in zip(here[:2], there[:2], strict=True):
        assert ours == pytest.approx(theirs, rel=2e-3, abs=1e-6)


@pytest.mark.parametrize('method', METHODS)
def test_resumes_to_the_bit(method, images, tmp_path):
    options = {**options_of(method, images), 'deterministic': True}
    if method == 'eco':  # its alpha falls over the whole training
        options['train']['eco']['schedule'] = {'type': 'linear', 'end': 6}
    if method == 'ail':
        options['train']['ail'].update(rounds=1, round_iterations=2)
    trained(tmp_path / 'whole', options)
    first = deepcopy(options)
    first['train']['total_iter'] = 3
    trained(tmp_path / 'parts', first)
    basicsr_ext.train(deepcopy(options), root=tmp_path / 'parts', auto_resume=True)
    whole, parts = (final_state(tmp_path / name, 6) for name in ('whole', 'parts'))
    parts['metrics'] = [line for line in parts['metrics'] if (line['event'], line['iteration']) != ('validation', 3)]
    for state in (whole, parts):  # the first part was validated at its end
        state['state'].pop('best_metric_results', None)
        for line in state['metrics']:
            line.pop('best', None)
    assert parts == whole


@pytest.mark.parametrize('precision', ['tf32', 'bf16', 'fp16'])
@pytest.mark.parametrize('method', METHODS)
def test_precisions(method, precision, images, tmp_path):
    options = options_of(method, images, precision=precision, channels_last=precision != 'tf32')
    fast = trained(tmp_path / 'fast', options)
    exact = trained(tmp_path / 'fp32', options_of(method, images))
    assert fast[0] == pytest.approx(exact[0], rel=0.1, abs=1e-3)
    for path in (tmp_path / 'fast/experiments/run/models').glob('net_g_6.pth'):
        content = torch.load(path, weights_only=True)
        weights = [v for key in ('params', 'params_ema') for v in content.get(key, {}).values()]
        assert weights and all(v.dtype == torch.float32 and v.isfinite().all() for v in weights)


@pytest.mark.timeout(300)
@pytest.mark.parametrize('method', ['eco', pytest.param('lfcsr', marks=only_on_gpu)])
def test_compiled(method, images, tmp_path):
    compiled = trained(tmp_path / 'compiled', options_of(method, images, compile=True))
    eager = trained(tmp_path / 'eager', options_of(method, images))
    assert compiled[0] == pytest.approx(eager[0], rel=1e-2, abs=1e-5)


@only_on_gpu
@pytest.mark.parametrize('method', METHODS)
def test_replayed_as_cuda_graphs(method, images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    for precision in ('fp32', 'bf16'):
        runs = [
            trained(
                tmp_path / f'{precision}_{graph}', options_of(method, images, precision=precision, cuda_graph=graph)
            )
            for graph in (False, True)
        ]
        for eager, replayed in zip(*runs, strict=True):
            assert replayed == pytest.approx(eager, rel=2e-3 if precision == 'fp32' else 0.05, abs=1e-6)
    states = []
    for name in ('first', 'second'):
        trained(tmp_path / name, {**options_of(method, images, cuda_graph=True), 'deterministic': True})
        states.append(final_state(tmp_path / name, 6)['net_g_6.pth'])
    assert states[0] == states[1]


@only_on_gpu
def test_micro_batches_beside_a_cuda_graph(images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    runs = [trained(tmp_path / str(g), options_of('eco', images, accumulate=2, cuda_graph=g)) for g in (False, True)]
    for eager, replayed in zip(*runs, strict=True):
        assert replayed == pytest.approx(eager, rel=2e-3)


@pytest.mark.parametrize('method', ['eco', 'pspl'])
def test_micro_batches_are_one_step(method, images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    whole = trained(tmp_path / 'whole', options_of(method, images))
    parts = trained(tmp_path / 'parts', options_of(method, images, accumulate=2))
    for first, second in zip(whole, parts, strict=True):
        assert first == pytest.approx(second, rel=1e-3)


@pytest.mark.parametrize('method', METHODS)
def test_nothing_waits_for_the_device_between_printed_lines(method, images, tmp_path, monkeypatch):
    options = options_of(method, images)
    options['datasets']['train'].update(prefetch_mode='cuda' if CUDA else None, pin_memory=CUDA)
    options['logger'].update(print_freq=6, save_checkpoint_freq=6)
    options['train']['lfcsr' if method == 'lfcsr' else 'total_iter'] = (
        {'admm_start_iter': 1} if method == 'lfcsr' else 6
    )
    if method == 'ail':
        options['train']['ail'].update(rounds=1, round_iterations=3)  # a round begins at iteration 4, and may wait
    original = TrainingModel.optimize_parameters
    allowed = {'ail': (2, 3)}.get(method, (3, 5))
    seen = []

    def watched(model: Any, iteration: int) -> None:
        if CUDA:
            torch.cuda.set_sync_debug_mode('error' if iteration == allowed[0] else torch.cuda.get_sync_debug_mode())
        original(model, iteration)
        if CUDA and iteration == allowed[1]:
            torch.cuda.set_sync_debug_mode('default')
        seen.append(iteration)

    monkeypatch.setattr(TrainingModel, 'optimize_parameters', watched)
    try:
        basicsr_ext.train(options, root=tmp_path)
    finally:
        if CUDA:
            torch.cuda.set_sync_debug_mode('default')
    assert seen == [1, 2, 3, 4, 5, 6]


# ---- data, ranks, processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize('workers', [0, 1])
def test_copying_ahead_changes_nothing(workers, images, tmp_path):
    weights = []
    for prefetch in (True, False):
        options = options_of('eco', images)
        options['deterministic'] = True
        options['datasets']['train'].update(
            num_worker_per_gpu=workers,
            prefetch_mode='cuda' if prefetch and CUDA else None,
            pin_memory=prefetch and CUDA,
        )
        trained(tmp_path / str(prefetch), options)
        weights.append(final_state(tmp_path / str(prefetch), 6)['net_g_6.pth']['params'])
    assert weights[0] == weights[1]


def command(path: Path, *arguments: str) -> list[str]:
    return [sys.executable, '-m', 'basicsr_ext', 'train', '-opt', str(path), *arguments]


def start(root: Path, line: list[str]) -> None:
    """Runs a command in a process of its own."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(Path(basicsr_ext.__file__).parents[1]),
                   os.environ.get('PYTHONPATH', '')]), 'OMP_NUM_THREADS': '1'}  # fmt: skip
    environment.pop('CUBLAS_WORKSPACE_CONFIG', None)
    result = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=100, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]


def test_the_command_trains_rcan_and_resumes_to_the_bit(images, tmp_path):
    """RCAN in bf16 and channels_last, with EMA, guard and the online parts of a run, in three processes."""
    options = options_of('eco', images, precision='bf16', channels_last=True, ema_decay=0.9, guard={})
    options['train']['eco'] = {'objective': 'vanilla', 'noise_sigma': 0.01}
    train = options['datasets']['train']
    train.update(type='PairedStoreDataset', num_worker_per_gpu=1)
    train.update(prefetch_mode='cuda', pin_memory=True)
    del train['dataroot_centroid'], train['dataroot_centroid_lq']
    options['network_g'] = {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 1, 'num_block': 1,
                            'upscale': 2}  # fmt: skip
    options['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3, 'fused': CUDA}
    options['deterministic'] = True
    path = write_options(tmp_path / 'o.yml', options)
    for name in ('whole', 'parts'):
        (tmp_path / name).mkdir()
    start(tmp_path / 'whole', command(path))
    start(tmp_path / 'parts', command(path, '--force_yml', 'train:total_iter=3'))
    start(tmp_path / 'parts', command(path, '--auto_resume'))
    networks = [final_state(tmp_path / name, 6)['net_g_6.pth'] for name in ('whole', 'parts')]
    assert networks[0] == networks[1] and {'params', 'params_ema'} <= networks[0].keys()


def test_one_rank_over_nccl(images, tmp_path):
    options = sr_options(images, num_gpu=int(CUDA))
    path = write_options(tmp_path / 'o.yml', options)
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '1']
    start(tmp_path, [*launcher, *command(path, '--launcher', 'pytorch')[1:]])
    assert 'Validation val' in log_text(tmp_path / 'experiments/run')
    state = torch.load(tmp_path / 'experiments/run/training_states/4.state', weights_only=True)
    assert state['world_size'] == 1 and ('cuda' in state['ranks'][0]['generators']) == CUDA


# ---- without training --------------------------------------------------------------------------------------------------


def test_centroids_agree_with_the_cpu(images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)
    stores = {}
    for device in (DEVICE, 'cpu'):
        output = tmp_path / f'{device}.lmdb'
        if not output.exists():
            make_centroids(images / 'lr', output, tmp_path / f'{device}_lq.lmdb', network=TINY_EDSR,
                           weights=images / 'teacher.pth', scale=2, device=device)  # fmt: skip
        stores[device] = open_store(output)
        for key in stores[device].keys():
            difference = stores[device].read(key).astype(int) - stores[DEVICE].read(key)
            assert np.abs(difference).max() <= 1
    assert stores[DEVICE].keys()


def test_tiles_make_the_whole_image(images, tmp_path):
    from basicsr_ext.evaluation.upscale import upscale

    weights = tmp_path / 'edsr.pth'
    torch.manual_seed(0)
    torch.save({'params': build_network(dict(TINY_EDSR)).state_dict()}, weights)
    options = write_options(tmp_path / 'o.yml', {'scale': 2, 'network_g': dict(TINY_EDSR)})
    for name, tile in (('whole', None), ('tiles', 16)):
        upscale(images / 'lr', tmp_path / name, weights=weights, options=options, tile=tile, overlap=8, device=DEVICE)
    files = sorted((tmp_path / 'whole').iterdir())
    assert len(files) == 5
    for file in files:
        whole, tiles = (cv2.imread(str(tmp_path / name / file.name)).astype(int) for name in ('whole', 'tiles'))
        assert np.abs(whole - tiles).max() <= 1


def test_ssim_on_the_device_agrees_with_float64(images):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(2))
    for settings in (SSIMSettings(1.0), SSIMSettings(1 / 255)):
        exact = ssim_map(x.double(), y.double(), settings)
        assert (ssim_map(x.to(DEVICE), y.to(DEVICE), settings).cpu() - exact).abs().max() < 1e-3


def test_lpips_on_the_device_agrees_with_the_cpu(bench_dir, images):
    pytest.importorskip('lpips')
    from basicsr_ext.metrics.lpips_metric import LPIPS

    weights = bench_dir / 'weights/lpips'
    if not (weights / 'squeeze.pth').exists():
        pytest.skip('no weights of LPIPS')
    first, second = (cv2.imread(str(file)) for file in sorted((images / 'hr').iterdir())[:2])
    paths = {'backbone_path': str(weights / 'squeeze.backbone.pth'), 'linear_path': str(weights / 'squeeze.pth')}
    here, there = (LPIPS(first, second, net='squeeze', device=device, **paths) for device in (DEVICE, 'cpu'))
    assert here == pytest.approx(there, rel=1e-3) and here > 0
