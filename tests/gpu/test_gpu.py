"""Runs on a CUDA device."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from run_helpers import eco_options, final_state, log_text, sr_options, write_options, write_pairs

from basicsr_ext.trainer.metrics_log import read_metrics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device'),
]


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def bf16_options(root: Path) -> dict:
    """RCAN in bf16 and channels_last, with EMA, guard and the online parts of a run."""
    options = eco_options(root, objective='vanilla', noise_sigma=0.01)
    train = options['datasets']['train']
    train.update(type='PairedStoreDataset', prefetch_mode='cuda', pin_memory=True, num_worker_per_gpu=1)
    del train['dataroot_centroid'], train['dataroot_centroid_lq']
    options['network_g'] = {'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 1, 'num_block': 1,
                            'upscale': 2}  # fmt: skip
    options.update(num_gpu=1, deterministic=True)
    options['train'].update(total_iter=7, precision='bf16', channels_last=True, ema_decay=0.9, guard={})
    options['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3, 'fused': True}
    options['val']['val_freq'] = 3
    return options


def command(path: Path, *arguments: str) -> list[str]:
    return [sys.executable, '-m', 'basicsr_ext', 'train', '-opt', str(path), *arguments]


def start(root: Path, line: list[str]) -> subprocess.CompletedProcess:
    """Runs a command in a process of its own: one that has used cuBLAS cannot be made deterministic any more."""
    environment = {**os.environ, 'PYTHONPATH': str(Path(basicsr_ext.__file__).parents[1]), 'OMP_NUM_THREADS': '1'}
    result = subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=300, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return result


def test_bf16_trains_and_resumes_to_the_bit(root):
    path = write_options(root / 'o.yml', bf16_options(root))
    start(root, command(path))
    whole = final_state(root)
    losses = [
        line['l_pix'] for line in read_metrics(root / 'experiments/run/metrics.jsonl') if line['event'] == 'train'
    ]
    assert len(losses) == 7 and all(map(math.isfinite, losses))
    networks = torch.load(root / 'experiments/run/models/net_g_7.pth', weights_only=True)
    assert networks.keys() == {'params', 'params_ema'}
    assert all(v.dtype == torch.float32 and v.isfinite().all() for net in networks.values() for v in net.values())

    again = root / 'again'
    again.mkdir()
    start(again, command(path, '--force_yml', 'train:total_iter=4'))
    start(again, command(path, '--auto_resume'))
    resumed = final_state(again)
    # the first run of two ended, and was validated, at iteration 4
    resumed['metrics'] = [
        line for line in resumed['metrics'] if (line['event'], line['iteration']) != ('validation', 4)
    ]
    for state in (whole, resumed):
        state['state'].pop('best_metric_results')
        for line in state['metrics']:
            line.pop('best', None)
    assert resumed == whole


def test_one_rank_over_nccl(root):
    options = sr_options(root, num_gpu=1)
    path = write_options(root / 'o.yml', options)
    launcher = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '1']
    start(root, [*launcher, *command(path, '--launcher', 'pytorch')[1:]])
    assert 'Validation val' in log_text(root / 'experiments/run')
    state = torch.load(root / 'experiments/run/training_states/4.state', weights_only=True)
    assert state['world_size'] == 1 and 'cuda' in state['ranks'][0]['generators']
