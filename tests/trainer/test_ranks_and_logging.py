"""Shared validation, launching, and what a run leaves for tools."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import argparse
import importlib
import json
import signal
import sys
from pathlib import Path

import cv2
import pytest
import torch
from run_helpers import forked, gan_options, log_text, on_ranks, sr_options, write_options, write_pairs, write_weights

from basicsr_ext.cli.main import _parser, main
from basicsr_ext.trainer.launching import rank_command
from basicsr_ext.trainer.metrics_log import MetricsLog, read_metrics


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


@pytest.mark.parametrize('command', ['train', 'test'])
def test_a_damaged_image_of_validation_does_not_hang(root, capfd, command):
    """Where BasicSR's prefetch thread dies, its loader waits for ever."""
    options = sr_options(root)
    for part in ('hr', 'lr'):
        (root / f'val_{part}').mkdir()
        for path in sorted((root / part).iterdir()):
            (root / f'val_{part}' / path.name).write_bytes(path.read_bytes())
    victim = root / 'val_hr' / 'rocket.png'
    victim.write_bytes(victim.read_bytes()[:200])
    val = options['datasets']['val']
    val.pop('io_backend')
    val.update(type='PairedStoreDataset', dataroot_gt='val_hr', dataroot_lq='val_lr', prefetch_mode='cpu')
    val['num_prefetch_queue'] = 1
    if command == 'test':
        options['datasets'] = {'test_1': val}
        options['path'] = {'pretrain_network_g': write_weights(root / 'a.pth')}
        options['val'].pop('val_freq')
        for key in ('train', 'logger'):
            options.pop(key)
    path = write_options(root / 'o.yml', options)

    def limited() -> int:
        signal.alarm(60)
        return main([command, '-opt', str(path)])

    assert forked(limited) == 2
    error = capfd.readouterr().err.partition(f'basicsr {command}: error: ')[2]
    assert 'rocket' in error and 'Traceback' not in error


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


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--nproc', '0'], '--nproc: expected a number of ranks from 1 on, found 0.'),
        (['--nproc', '2', '--launcher', 'pytorch'], '--nproc starts the ranks itself: leave out --launcher pytorch'),
        (['--nproc', '5000'], '--nproc: expected at most'),
        (['--nproc', '2', '--force_yml', 'nam=x'], '--force_yml nam=x: nam: unknown option'),
        (['--nproc', '6'], '2 samples on each of 6 ranks are more than an epoch of 5 x 2'),
    ],
)
def test_nproc_tells_mistakes_once_and_starts_nothing(root, capfd, monkeypatch, arguments, message):
    def start(*_, **__):
        raise AssertionError('ranks were started')

    monkeypatch.setattr('basicsr_ext.trainer.launching.subprocess.Popen', start)
    options = sr_options(root)
    if '5000' in arguments:
        options['datasets']['train']['dataset_enlarge_ratio'] = 10_000
    write_options(root / 'o.yml', options)
    assert main(['train', '-opt', 'o.yml', *arguments]) == 2
    error = capfd.readouterr().err
    assert message in error and 'Traceback' not in error and error.count('\n') == 1


def test_the_launcher_keeps_the_tracebacks_of_torchrun_to_itself(monkeypatch):
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    from basicsr_ext.trainer import torchrun

    importlib.import_module('torch.distributed.run')

    def ends_with(error):
        def run(arguments):
            assert arguments == ['--standalone', 'x']
            if error:
                raise error

        return run

    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file='<N/A>')
    killed = ProcessFailure(local_rank=0, pid=1, exitcode=-9, error_file='<N/A>')
    followed = [ProcessFailure(local_rank=0, pid=1, exitcode=code, error_file='<N/A>') for code in (-15, 3)]
    for error, status in (
        (None, 0),
        (ChildFailedError('train', {0: followed[0], 1: followed[1], 2: failure}), 2),
        (ChildFailedError('train', {0: followed[0], 1: killed}), 137),
        (ChildFailedError('train', {0: failure}), 2),
        (ChildFailedError('train', {0: killed}), 137),
        (SignalException('stopped', sigval=15), 143),
    ):
        monkeypatch.setattr(sys.modules['torch.distributed.run'], 'main', ends_with(error))
        assert torchrun.main(['--standalone', 'x']) == status


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


def test_the_documented_srun_command_makes_the_ranks_that_torchrun_makes():
    (srun,) = [command for command in documented_commands() if command.startswith('srun ')]
    parser = argparse.ArgumentParser()
    for option in ('--nodes', '--ntasks-per-node', '--gres'):
        parser.add_argument(option, required=True)
    parser.add_argument('program')
    args = parser.parse_args(srun.partition(' -m basicsr_ext')[0].split()[1:])
    torchrun = next(command for command in documented_commands() if '--nnodes' in command)
    assert f'--nnodes {args.nodes} ' in torchrun and f'--nproc_per_node {args.ntasks_per_node} ' in torchrun
    assert args.gres == f'gpu:{args.ntasks_per_node}' and args.program == 'python'


def test_slurm_environment_becomes_a_rendezvous(monkeypatch):
    from basicsr_ext import distributed as ranks

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


@pytest.mark.parametrize('script', [None, 'echo no >&2; exit 1', 'sleep 60'], ids=['missing', 'failing', 'hanging'])
def test_nodes_that_slurm_does_not_name_are_told(monkeypatch, tmp_path, script):
    from basicsr_ext import distributed as ranks

    for name, value in {
        'SLURM_PROCID': '3',
        'SLURM_NODELIST': 'node[1-2]',
        'PATH': f'{tmp_path}:/usr/bin:/bin',
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, '_NAMING', 0.3 if script and 'sleep' in script else 60)
    if script:
        (tmp_path / 'scontrol').write_text(f'#!/bin/sh\n{script.replace("sleep", "exec sleep")}\n')
        (tmp_path / 'scontrol').chmod(0o755)
    with pytest.raises(
        basicsr_ext.UserError, match=r'^--launcher slurm: expected the names of the nodes .*node\[1-2\]'
    ):
        ranks._read_slurm(port=None)


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


def test_wandb_is_started_as_basicsr_does(root, monkeypatch):
    """Before TensorBoard's writer, from which it takes everything; once, with the options."""
    (root / 'site').mkdir()
    (root / 'site/wandb.py').write_text('class util:\n    generate_id = staticmethod(lambda: "abc")\n')
    monkeypatch.syspath_prepend(root / 'site')
    order = []
    monkeypatch.setitem(sys.modules, 'wandb', None)  # and out again at the end
    del sys.modules['wandb']
    monkeypatch.setattr('wandb.init', lambda **arguments: order.append(('wandb', arguments)), raising=False)
    from torch.utils import tensorboard

    class Writer(tensorboard.SummaryWriter):
        def __init__(self, *arguments, **named):
            order.append(('tensorboard', named))
            super().__init__(*arguments, **named)

    monkeypatch.setattr(tensorboard, 'SummaryWriter', Writer)
    options = sr_options(root)
    options['logger'].update(use_tb_logger=True, wandb={'project': 'tiny', 'resume_id': None})
    path = str(write_options(root / 'o.yml', options))
    assert main(['train', '-opt', path]) == 0
    assert [name for name, _ in order] == ['wandb', 'tensorboard']
    given = order[0][1]
    config = given.pop('config')
    assert given == {'id': 'abc', 'resume': 'never', 'name': 'run', 'project': 'tiny', 'sync_tensorboard': True}
    assert config['train']['total_iter'] == 4 and config['manual_seed'] == 7
    resumed = ['--auto_resume', '--force_yml', 'train:total_iter=5', 'logger:wandb:resume_id=abc']
    assert main(['train', '-opt', path, *resumed]) == 0
    assert (order[2][1]['id'], order[2][1]['resume']) == ('abc', 'allow')
    assert order[3] == ('tensorboard', {'purge_step': 5})


def test_numbers_that_json_does_not_have_are_null(tmp_path):
    path = tmp_path / 'metrics.jsonl'
    MetricsLog(path).write('train', 1, l_pix=float('nan'), lrs=[float('inf'), 0.5], best={'psnr': -float('inf')})

    def refuse(name):
        raise AssertionError(name)

    line = json.loads(path.read_text(), parse_constant=refuse)
    assert line == {'event': 'train', 'iteration': 1, 'l_pix': None, 'lrs': [None, 0.5], 'best': {'psnr': None}}
    assert read_metrics(path) == [line]


def test_metrics_lines_are_what_was_printed(root):
    assert main(['train', '-opt', str(write_options(root / 'o.yml', sr_options(root)))]) == 0
    lines = read_metrics(root / 'experiments/run/metrics.jsonl')
    assert [(line['event'], line['iteration']) for line in lines] == [
        *(('train', i) for i in range(1, 5)), ('validation', 4)
    ]  # fmt: skip
    assert lines[0].keys() == {'event', 'iteration', 'epoch', 'lrs', 'l_pix', 'wall'}
    assert lines[-1]['metrics'].keys() == {'psnr'}
