"""Shared validation, launching, and what a run leaves for tools."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

from pathlib import Path

import cv2
import pytest
import torch
from run_helpers import gan_options, log_text, on_ranks, sr_options, write_options, write_pairs

from basicsr_ext.cli import _parser, main
from basicsr_ext.trainer.launching import rank_command
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def _train(path: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', *arguments]) == 0


def validations(root: Path, name: str) -> list[dict]:
    lines = read_metrics(root / 'experiments' / name / 'metrics.jsonl')
    return [line for line in lines if line['event'] == 'validation']


@pytest.mark.parametrize('world_size', [2, 3])
def test_shared_validation_gives_the_numbers_of_one_rank(root, world_size):
    """The same weights scored by one rank and by several; 5 images do not divide evenly. Networks are not trained."""
    options = sr_options(root, name='one')
    options['train']['optim_g']['lr'] = 0.0
    options['datasets']['train'].update(batch_size_per_gpu=1)
    options['val'].update(save_img=True)
    options['val']['metrics']['ssim'] = {'type': 'calculate_ssim', 'crop_border': 2, 'test_y_channel': True}
    options['datasets']['val_2'] = {**options['datasets']['val'], 'name': 'again'}
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 0
    start = str(root / 'experiments/one/models/net_g_latest.pth')
    options['path']['pretrain_network_g'] = start
    options['name'] = 'several'
    on_ranks(world_size, _train, str(write_options(root / 's.yml', options)))
    one, several = validations(root, 'one'), validations(root, 'several')
    assert [v['dataset'] for v in one] == [v['dataset'] for v in several] == ['val', 'again']
    for first, second in zip(one, several, strict=True):
        for metric in ('psnr', 'ssim'):
            assert abs(first['metrics'][metric] - second['metrics'][metric]) < 1e-9
        assert second['best'] == {
            metric: {'value': pytest.approx(value, abs=1e-9), 'iteration': 4}
            for metric, value in first['metrics'].items()
        }
    pictures = [
        sorted(p.name for p in (root / f'experiments/{n}/visualization').rglob('*.png')) for n in ('one', 'several')
    ]
    assert pictures[0] == pictures[1] and len(pictures[0]) == 5


def test_stock_swinir_with_buffers_validates_on_two_ranks(root):
    """It has a test() of its own, which runs the wrapped network."""
    options = sr_options(root, model_type='SwinIRModel')
    options['network_g'] = {'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 8, 'window_size': 4, 'img_range': 1.0,
                            'depths': [2], 'embed_dim': 8, 'num_heads': [2], 'mlp_ratio': 2,
                            'upsampler': 'pixelshuffledirect', 'resi_connection': '1conv'}  # fmt: skip
    on_ranks(2, _train, str(write_options(root / 'o.yml', options)))
    assert len(validations(root, 'run')) == 1


@pytest.mark.parametrize('prefetch_mode', [None, 'cpu'])
def test_a_damaged_image_is_one_message_with_workers_too(root, capsys, prefetch_mode):
    options = sr_options(root)
    train = options['datasets']['train']
    train.pop('io_backend')
    train.update(type='PairedStoreDataset', num_worker_per_gpu=2, prefetch_mode=prefetch_mode)
    victim = root / 'hr' / 'coffee.png'
    victim.write_bytes(victim.read_bytes()[:200])  # the header stays
    options['train']['total_iter'] = 20
    options.pop('val')
    options['datasets'].pop('val')
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    error = capsys.readouterr().err.partition('basicsr train: error: ')[2]
    assert 'coffee' in error and 'Traceback' not in error and len(error.splitlines()) <= 2


def test_more_ranks_than_validation_images(root):
    options = gan_options(root)
    for folder in ('hr', 'lr'):
        (root / f'val_{folder}').mkdir()
        image = next(iter(sorted((root / folder).iterdir())))
        cv2.imwrite(str(root / f'val_{folder}' / image.name), cv2.imread(str(image)))
    options['datasets']['val'].update(dataroot_gt=str(root / 'val_hr'), dataroot_lq=str(root / 'val_lr'))
    on_ranks(2, _train, str(write_options(root / 'o.yml', options)))
    assert len(validations(root, 'run')) == 1


def test_nproc_starts_the_ranks(root):
    path = write_options(root / 'o.yml', sr_options(root))
    assert main(['train', '-opt', str(path), '--nproc', '2', '--force_yml', 'train:total_iter=2']) == 0
    assert '2 ranks' in log_text(root / 'experiments/run')


@pytest.mark.parametrize('arguments', [['--nproc', '0'], ['--nproc', '2', '--launcher', 'pytorch']])
def test_nproc_refuses(root, capsys, arguments):
    assert main(['train', '-opt', 'o.yml', *arguments]) == 2
    assert '--nproc: expected a number from 1 on, without --launcher' in capsys.readouterr().err


def test_nproc_passes_everything_on():
    line = ['train', '-opt', 'a.yml', '--nproc', '4', '--auto_resume', '--debug', '--force_yml', 'a:b=1', 'c=2']
    command = rank_command(_parser().parse_args(line))
    assert command[command.index('--nproc_per_node') + 1] == '4'
    rest = command[command.index('basicsr_ext') + 1 :]
    args = _parser().parse_args(rest)
    assert (args.opt, args.launcher, args.auto_resume, args.debug, args.force_yml, args.nproc) == (
        'a.yml', 'pytorch', True, True, ['a:b=1', 'c=2'], None
    )  # fmt: skip


def documented_commands() -> list[str]:
    """Commands of the README that start our command on several ranks, continued lines joined."""
    text = (Path(__file__).parents[2] / 'README.md').read_text().replace('\\\n', ' ')
    return [line for line in text.splitlines() if '-m basicsr_ext train' in line and not line.startswith('#')]


def test_documented_launch_commands_are_understood():
    """torchrun's on one machine and on several, and SLURM's."""
    commands = documented_commands()
    assert any('--nnodes' in c for c in commands) and any('srun' in c for c in commands) and len(commands) >= 3
    for command in commands:
        launcher, _, ours = command.partition('-m basicsr_ext ')
        args = _parser().parse_args(ours.strip().split())
        assert args.launcher == ('slurm' if 'srun' in launcher else 'pytorch')
        if 'torchrun' in launcher:
            from torch.distributed.run import get_args_parser

            get_args_parser().parse_args([*launcher.split()[1:], 'script'])


def test_slurm_environment_becomes_a_rendezvous(monkeypatch):
    from basicsr_ext.trainer import ranks

    given = {'SLURM_PROCID': '3', 'SLURM_NTASKS': '8', 'SLURM_NODELIST': 'node[1-2]', 'SLURM_LOCALID': '1'}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    for name in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.setenv(name, 'x')
    monkeypatch.setattr(ranks.subprocess, 'run', lambda *a, **k: type('Done', (), {'stdout': 'node1\nnode2\n'}))
    ranks._read_slurm(port=1234)
    import os

    assert [os.environ[k] for k in ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT')] == [
        '3', '8', '1', 'node1', '1234'
    ]  # fmt: skip


def test_tensorboard_has_scalars_and_pictures_and_is_purged_on_resume(root):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    options = sr_options(root)
    options['logger']['use_tb_logger'] = True
    path = str(write_options(root / 'o.yml', options))
    assert main(['train', '-opt', path]) == 0
    assert main(['train', '-opt', path, '--auto_resume', '--force_yml', 'train:total_iter=6']) == 0
    events = EventAccumulator(str(root / 'tb_logger/run'))
    events.Reload()
    assert [e.step for e in events.Scalars('losses/l_pix')] == [1, 2, 3, 4, 5, 6]
    assert [e.step for e in events.Scalars('metrics/val/psnr')] == [4, 6]
    assert {f'val/{i}' for i in range(3)} == set(events.Tags()['images'])


def test_metrics_lines_are_what_was_printed(root):
    assert main(['train', '-opt', str(write_options(root / 'o.yml', sr_options(root)))]) == 0
    lines = read_metrics(root / 'experiments/run/metrics.jsonl')
    assert [(line['event'], line['iteration']) for line in lines] == [
        *(('train', i) for i in range(1, 5)), ('validation', 4)
    ]  # fmt: skip
    assert lines[0].keys() == {'event', 'iteration', 'epoch', 'lrs', 'l_pix', 'wall'}
    assert lines[-1]['metrics'].keys() == {'psnr'}
