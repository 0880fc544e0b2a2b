"""``deterministic: true``, and what a run sets for the whole process."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os

import pytest
import torch
from run_helpers import eco_options, sr_options, write_options, write_pairs

from basicsr_ext.cli.main import main

_CUBLAS = 'CUBLAS_WORKSPACE_CONFIG'


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(_CUBLAS, raising=False)
    write_pairs(tmp_path, photos)
    return tmp_path


def settings() -> dict:
    return {
        'benchmark': torch.backends.cudnn.benchmark,
        'deterministic': torch.backends.cudnn.deterministic,
        'strict': torch.are_deterministic_algorithms_enabled(),
        'warn_only': torch.is_deterministic_algorithms_warn_only_enabled(),
        'precision': torch.get_float32_matmul_precision(),
        'cublas': os.environ.get(_CUBLAS),
    }


@pytest.fixture
def seen(monkeypatch):
    """Settings at each forward of the network."""
    from basicsr.archs.edsr_arch import EDSR

    found, original = [], EDSR.forward

    def forward(self, images):
        found.append(settings())
        return original(self, images)

    monkeypatch.setattr(EDSR, 'forward', forward)
    return found


@pytest.mark.parametrize('deterministic', [True, False, None])
@pytest.mark.parametrize('benchmark', [True, False])
def test_a_training_is_as_asked_for_and_leaves_the_process_as_it_was(root, seen, monkeypatch, deterministic, benchmark):
    """BasicSR turns cuDNN's benchmark on in between; TF32 is of another option, and put back too."""
    monkeypatch.setattr(torch.backends.cudnn, 'benchmark', benchmark)
    options = eco_options(root, objective='vanilla')
    train = options['datasets']['train']
    train['type'] = 'PairedStoreDataset'
    del train['dataroot_centroid'], train['dataroot_centroid_lq']
    options['train']['precision'] = 'tf32'
    if deterministic is not None:
        options['deterministic'] = deterministic
    before = settings()
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 0
    assert settings() == before
    seen[:] = seen[-(4 + 5) :]  # iterations, and images of the validation; the check of the options ran some before
    assert len(seen) == 4 + 5
    on = bool(deterministic)
    expected = {
        'benchmark': not on,
        'deterministic': on,
        'strict': on,
        'warn_only': False,
        'precision': 'high',
        'cublas': ':4096:8' if on else None,
    }
    assert seen[:4] == [expected] * 4
    assert seen[4:] == [{**expected, 'precision': 'highest'}] * 5  # what is reported is computed without TF32


def test_a_test_is_deterministic_too(root, seen):
    options = sr_options(root, deterministic=True)
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 0
    options['datasets'] = {'test': options['datasets']['val']}
    options['path'] = {'pretrain_network_g': 'experiments/run/models/net_g_latest.pth', 'strict_load_g': True}
    options['val'] = {'save_img': False, 'metrics': options['val']['metrics']}
    for key in ('train', 'logger'):
        options.pop(key)
    seen.clear()
    assert main(['test', '-opt', str(write_options(root / 't.yml', options))]) == 0
    seen[:] = seen[-5:]  # images; the check of the options ran some before
    assert len(seen) == 5 and all(found['strict'] and not found['benchmark'] for found in seen)
    assert not settings()['strict']


def test_what_is_not_deterministic_ends_the_run_with_one_message(root, monkeypatch, capsys):
    def forward(self, pred, target, weight=None):
        chosen = torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))
        return (pred - target).abs().mean() + chosen.sum()

    monkeypatch.setattr('basicsr.losses.basic_loss.L1Loss.forward', forward)
    path = str(write_options(root / 'o.yml', sr_options(root)))
    assert main(['train', '-opt', path, '--force_yml', 'deterministic=true']) == 2
    error = capsys.readouterr().err.partition('basicsr train: error: ')[2]
    assert error.startswith('deterministic: true cannot be kept: put_') and 'set deterministic: false' in error
    assert len(error.splitlines()) == 1 and not settings()['strict']
    assert main(['train', '-opt', path]) == 0


def test_cublas_that_was_used_before_is_named():
    from basicsr_ext.trainer.determinism import refusal

    text = (
        'Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or ..., but this '
        'operation is not deterministic because it uses CuBLAS and you have CUDA >= 10.2.'
    )
    assert f'set the environment variable {_CUBLAS}' in str(refusal(RuntimeError(text)))
    assert refusal(RuntimeError('shape mismatch')) is None


def test_a_workspace_of_the_environment(root, seen, monkeypatch, capsys):
    path = str(write_options(root / 'o.yml', sr_options(root, deterministic=True)))
    monkeypatch.setenv(_CUBLAS, ':0:0')
    assert main(['train', '-opt', path]) == 2
    assert f'{_CUBLAS} is :0:0; expected :4096:8 or :16:8' in capsys.readouterr().err
    assert not (root / 'experiments').exists()
    monkeypatch.setenv(_CUBLAS, ':16:8')
    assert main(['train', '-opt', path]) == 0
    assert seen[-1]['cublas'] == ':16:8' == os.environ[_CUBLAS]


def test_the_option_is_checked_and_may_change_on_resume(root, capsys):
    path = str(write_options(root / 'o.yml', sr_options(root)))
    assert main(['train', '-opt', path, '--force_yml', 'deterministic=7']) == 2
    assert 'deterministic: expected true or false, found 7' in capsys.readouterr().err
    assert main(['train', '-opt', path, '--force_yml', 'deterministc=true']) == 2
    assert 'did you mean "deterministic"?' in capsys.readouterr().err
    assert main(['train', '-opt', path]) == 0
    arguments = ['--auto_resume', '--force_yml', 'deterministic=true', 'train:total_iter=6']
    assert main(['train', '-opt', path, *arguments]) == 0
