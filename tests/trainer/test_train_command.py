"""`basicsr train` and `basicsr test` as users run them, on the CPU, with stock models."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from run_helpers import (
    assert_same_weights,
    forked,
    gan_options,
    log_text,
    network_weights,
    on_ranks,
    real_esrgan_options,
    sr_options,
    write_options,
    write_pairs,
)

import basicsr_ext
from basicsr_ext.cli.main import main

basicsr_ext.register()


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    """Working directory with a tiny image set."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def train(root: Path, options: dict, *arguments: str) -> None:
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options)), *arguments]) == 0


def test_stock_model_trains_validates_and_saves(root):
    options = sr_options(root)
    options['train']['ema_decay'] = 0.9
    train(root, options)
    experiment = root / 'experiments' / 'run'
    log = log_text(experiment)
    assert 'iter:       4' in log and 'Validation val' in log and 'psnr' in log
    assert {p.name for p in (experiment / 'models').iterdir()} == {'net_g_2.pth', 'net_g_4.pth', 'net_g_latest.pth'}
    assert {p.name for p in (experiment / 'training_states').iterdir()} == {'2.state', '4.state'}
    first, last = network_weights(root, iteration=2), network_weights(root)
    assert set(last) == {'params', 'params_ema'}
    assert any(not torch.equal(first['params'][key], last['params'][key]) for key in last['params'])


def test_written_options_repeat_the_run(root):
    options = sr_options(root)
    options['manual_seed'] = None
    train(root, options, '--force_yml', 'train:total_iter=3', 'train:optim_g:lr=5e-4')
    written = yaml.safe_load((root / 'experiments/run/o.yml').read_text())
    assert written['train']['total_iter'] == 3 and written['train']['optim_g']['lr'] == 5e-4
    assert isinstance(written['manual_seed'], int)
    first = network_weights(root)
    train(root, written)
    assert_same_weights(first, network_weights(root))


def test_training_from_a_mapping_and_in_another_root(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp('elsewhere')
    options = sr_options(root)
    basicsr_ext.train(options, root=elsewhere, force_yml=['train:total_iter=2'])
    assert options == sr_options(root)
    assert network_weights(elsewhere) and not (root / 'experiments').exists()
    assert (elsewhere / 'experiments/run/options.yml').is_file()


def test_each_run_of_a_process_writes_its_own_log(root):
    for name in ('first', 'second'):
        basicsr_ext.train(sr_options(root, name=name), root=root)
        assert log_text(root / 'experiments' / name).count('End of training') == 1


def test_total_iter_is_reached_whatever_the_batch(root):
    """BasicSR counts an epoch with its dropped last batch, and then ends early."""
    options = sr_options(root)
    options['datasets']['train'].update(batch_size_per_gpu=3, dataset_enlarge_ratio=1)  # 5 images: 1 iteration an epoch
    options['train']['total_iter'] = 7
    options['logger']['save_checkpoint_freq'] = 7
    train(root, options)
    assert (root / 'experiments/run/training_states/7.state').is_file()


def test_resuming_goes_on_with_iteration_and_optimizer(root):
    train(root, sr_options(root))
    train(root, sr_options(root), '--auto_resume', '--force_yml', 'train:total_iter=6')
    log = log_text(root / 'experiments/run')
    assert 'Resuming training from epoch: 0, iter: 4' in log
    state = torch.load(root / 'experiments/run/training_states/6.state', weights_only=True)
    assert state['iter'] == 6 and state['optimizers'][0]['state'][0]['step'].item() == 6
    assert not list((root / 'experiments').glob('*archived*'))


def test_resuming_without_a_state_starts_anew_and_stray_files_are_passed_over(root):
    train(root, sr_options(root), '--auto_resume')
    stray = root / 'experiments/run/training_states/notes.state'
    stray.write_text('mine')
    train(root, sr_options(root), '--auto_resume', '--force_yml', 'train:total_iter=5')
    assert stray.exists() and 'iter: 4' in log_text(root / 'experiments/run')


@pytest.mark.parametrize('damage', ['missing', 'damaged'])
def test_a_state_that_cannot_be_resumed(root, capsys, damage):
    options = sr_options(root)
    options['path']['resume_state'] = str(root / '9.state')
    if damage == 'damaged':
        (root / '9.state').write_bytes(b'no state')
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    assert 'path.resume_state: expected a training state' in capsys.readouterr().err
    assert not (root / 'experiments').exists()


def test_the_test_command_scores_saved_weights(root):
    train(root, sr_options(root))
    options = sr_options(root, name='scored')
    options['datasets'] = {'test_1': options['datasets']['val']}
    options['path'] = {'pretrain_network_g': 'experiments/run/models/net_g_latest.pth', 'strict_load_g': True}
    options['val'] = {'save_img': True, 'metrics': options['val']['metrics']}
    for key in ('train', 'logger'):
        options.pop(key)
    assert main(['test', '--opt', str(write_options(root / 't.yml', options))]) == 0
    assert '# psnr' in log_text(root / 'results/scored')
    assert len(list((root / 'results/scored/visualization/val').glob('*.png'))) == 5


def test_one_option_file_serves_training_and_test(root):
    options = sr_options(root, name='both')
    options['val']['save_img'] = True
    path = str(write_options(root / 'both.yml', options))
    assert main(['train', '-opt', path]) == 0
    weights = root / 'experiments/both/models/net_g_latest.pth'
    assert main(['test', '-opt', path, '--weights', str(weights)]) == 0
    scores = json.loads(next((root / 'results/both').rglob('metrics.json')).read_text())
    assert 'psnr' in json.dumps(scores)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_test_at_once(root, capfd, number):
    train(root, sr_options(root), '--force_yml', 'train:total_iter=1')
    options = sr_options(root, name='scored')
    options['datasets'] = {'test_1': options['datasets']['val']}
    options['path'] = {'pretrain_network_g': 'experiments/run/models/net_g_latest.pth'}
    options['val'] = {'save_img': False, 'metrics': options['val']['metrics']}
    for key in ('train', 'logger'):
        options.pop(key)
    path = str(write_options(root / 't.yml', options))

    def signalled() -> int:
        from basicsr.models.sr_model import SRModel

        original = SRModel.feed_data

        def feed_data(self, data):
            os.kill(os.getpid(), number)
            original(self, data)

        SRModel.feed_data = feed_data
        return main(['test', '-opt', path])

    # Python answers Ctrl-C itself, and leaves SIGTERM to the system
    assert forked(signalled) == (130 if number == signal.SIGINT else -signal.SIGTERM)
    error = capfd.readouterr().err
    assert 'Traceback' not in error and ('basicsr test: interrupted' in error) == (number == signal.SIGINT)


def test_debug_mode_uses_a_name_of_its_own(root):
    train(root, sr_options(root), '--debug')
    assert (root / 'experiments/debug_run').is_dir()


@pytest.mark.parametrize('model_type', ['SRGANModel', 'ESRGANModel'])
def test_stock_adversarial_models_train(root, model_type):
    train(root, gan_options(root, model_type))
    experiment = root / 'experiments/run'
    assert 'l_d_real' in log_text(experiment)
    assert set(network_weights(root)) == {'params', 'params_ema'} and network_weights(root, label='net_d')


def test_stock_real_esrgan_model_trains_on_the_cpu(root, photos):
    write_pairs(root, photos, size=96)
    options = gan_options(root, 'RealESRGANModel')
    options['datasets']['train']['gt_size'] = 64
    options.update(l1_gt_usm=True, percep_gt_usm=True, gan_gt_usm=False, high_order_degradation=False)
    train(root, options)
    assert 'l_d_real' in log_text(root / 'experiments/run')
    assert torch.Tensor.cuda is not None and torch.Tensor.cuda.__name__ == 'cuda'  # the original is back


def test_stock_real_esrgan_degrades_on_the_cpu(root, photos):
    """The second-order degradation of its own dataset, on the CPU."""
    write_pairs(root, photos, size=96)
    options = real_esrgan_options(root, gt_size=64)
    train(root, options, '--force_yml', 'train:total_iter=3')
    assert network_weights(root)


# ---- ranks -----------------------------------------------------------------------------------------------------------


def _train_rank(path: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', '--local-rank', '0', *arguments]) == 0


def test_two_ranks_equal_one_with_twice_the_batch(root):
    """Weights after training agree to 1e-6, for a stock model; flips are off, since stock datasets draw them by rank."""
    options = sr_options(root)
    options['datasets']['train'].update(use_hflip=False, use_rot=False, gt_size=48, batch_size_per_gpu=4)
    for key in ('hr', 'lr'):  # whole images are the crops, so that no random crop remains
        for path in (root / key).iterdir():
            import cv2

            image = cv2.imread(str(path))
            cv2.imwrite(str(path), image[:, : image.shape[0]])
    options['train']['total_iter'] = 8
    train(root, options)
    one = network_weights(root)
    options['name'] = 'two'
    options['datasets']['train']['batch_size_per_gpu'] = 2
    on_ranks(2, _train_rank, str(write_options(root / 'two.yml', options)))
    assert_same_weights(one, network_weights(root, 'two'), tolerance=1e-6)


@pytest.mark.parametrize('make_options', [sr_options, gan_options])
def test_stock_models_train_resume_and_validate_on_two_ranks(root, make_options):
    path = str(write_options(root / 'o.yml', make_options(root)))
    on_ranks(2, _train_rank, path)
    on_ranks(2, _train_rank, path, '--auto_resume', '--force_yml', 'train:total_iter=6')
    log = log_text(root / 'experiments/run')
    assert 'Resuming training from epoch: 1, iter: 4' in log
    assert 'Validation val' in log
    assert torch.load(root / 'experiments/run/training_states/6.state', weights_only=True)['iter'] == 6


# ---- errors ----------------------------------------------------------------------------------------------------------


def fails(root: Path, options: dict, capsys, *arguments: str) -> str:
    """Runs a training that must end with one error, before anything is made; returns its message."""
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options)), *arguments]) == 2
    error = capsys.readouterr().err  # below BasicSR's log lines, where a run got as far as that
    assert error.count('basicsr train: error: ') == 1 and 'Traceback' not in error
    return error.partition('basicsr train: error: ')[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason='a machine without CUDA is needed')
@pytest.mark.parametrize('num_gpu', [1, 4])
def test_gpus_without_cuda(root, capsys, num_gpu):
    error = fails(root, sr_options(root, num_gpu=num_gpu), capsys)
    assert f'num_gpu: {num_gpu} asks for a GPU' in error and '--force_yml num_gpu=0' in error
    assert not (root / 'experiments').exists()


def test_several_gpus_without_a_launcher(monkeypatch):
    from basicsr_ext.distributed import resolve_num_gpu

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    message = 'torchrun --nproc_per_node 4 -m basicsr_ext train -opt FILE --launcher pytorch'
    with pytest.raises(basicsr_ext.UserError, match=message):
        resolve_num_gpu(4, 'none')
    assert (resolve_num_gpu('auto', 'none'), resolve_num_gpu('auto', 'pytorch')) == (1, 4)
    assert (resolve_num_gpu(1, 'none'), resolve_num_gpu(0, 'none'), resolve_num_gpu(4, 'pytorch')) == (1, 0, 4)


def test_auto_means_the_cpu_where_there_is_no_gpu(root, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    train(root, sr_options(root, num_gpu='auto'))
    assert network_weights(root)


@pytest.mark.parametrize('num_gpu', [-1, 'two', 1.5, True])
def test_num_gpu_is_a_count(root, capsys, num_gpu):
    assert 'num_gpu: expected auto, or a number' in fails(root, sr_options(root, num_gpu=num_gpu), capsys)


def test_a_launcher_without_its_environment(root, capsys, monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    assert 'expected RANK, WORLD_SIZE' in fails(root, sr_options(root), capsys, '--launcher', 'pytorch')
    assert 'expected to run under srun' in fails(root, sr_options(root), capsys, '--launcher', 'slurm')


def test_a_batch_larger_than_an_epoch(root, capsys):
    options = sr_options(root)
    options['datasets']['train']['batch_size_per_gpu'] = 11
    assert 'batch_size_per_gpu: 11 samples on each of 1 ranks are more than an epoch of 5 x 2' in fails(
        root, options, capsys
    )


def test_unknown_optimizer_and_arguments(root, capsys):
    options = sr_options(root)
    options['train']['optim_g'] = {'type': 'Adan2', 'lr': 1e-3}
    assert 'Optimizer Adan2: expected a class of torch.optim or pytorch_optimizer' in fails(root, options, capsys)
    options['train']['optim_g'] = {'type': 'Adam', 'lr': 1e-3, 'beta': 1}
    assert 'train.optim_g.beta: unknown option of Adam; did you mean "betas"?' in fails(root, options, capsys)


def test_an_option_file_that_is_missing(capsys):
    assert main(['train', '-opt', 'nowhere.yml']) == 2
    assert 'Option file nowhere.yml: cannot be read' in capsys.readouterr().err


def test_cuda_prefetching_is_left_out_on_the_cpu(root):
    options = sr_options(root)
    options['datasets']['train'].update(prefetch_mode='cuda', pin_memory=False)
    train(root, options)


# ---- the command itself ----------------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    package = Path(basicsr_ext.__file__).parents[1]
    return {
        **os.environ,
        'PYTHONPATH': f'{package}{os.pathsep}{os.environ.get("PYTHONPATH", "")}',
        'OMP_NUM_THREADS': '1',
    }


def test_the_train_command_in_a_process_of_its_own(root):
    path = write_options(root / 'o.yml', sr_options(root))
    command = [sys.executable, '-m', 'basicsr_ext', 'train', '--opt', str(path), '--force_yml', 'train:total_iter=1']
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, env=_environment())
    assert result.returncode == 0, result.stderr[-2000:]
    assert network_weights(root)


def test_the_test_command_in_a_process_of_its_own(root):
    command = [sys.executable, '-m', 'basicsr_ext', 'test', '-opt', 'nowhere.yml']
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300, env=_environment())
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    assert result.stderr.strip().startswith('basicsr test: error: Option file nowhere.yml')


@pytest.mark.parametrize('command', [[], ['train'], ['test'], ['prepare'], ['prepare', 'centroids']])
def test_help_leaves_torch_and_basicsr_unimported(command):
    code = (
        'import sys\nfrom basicsr_ext.cli.main import main\n'
        f'try:\n    main({[*command, "--help"]!r})\nexcept SystemExit as end:\n    assert end.code == 0\n'
        'heavy = {"torch", "basicsr", "torchvision", "cv2"} & set(sys.modules)\nassert not heavy, heavy'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, env=_environment()
    )
    assert result.returncode == 0, result.stderr
    assert 'usage: basicsr' in result.stdout
