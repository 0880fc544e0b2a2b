"""The command line of ``basicsr prepare``."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize('command', [[], ['lr'], ['lmdb'], ['store'], ['centroids']])
def test_help_imports_nothing_heavy(command):
    program = (
        'import argparse, sys\n'
        'from basicsr_ext.prepare.arguments import add_arguments\n'
        'parser = argparse.ArgumentParser()\n'
        'add_arguments(parser)\n'
        'try:\n'
        f'    parser.parse_args({[*command, "--help"]!r})\n'
        'except SystemExit as end:\n'
        '    assert end.code == 0\n'
        'heavy = {"torch", "basicsr", "numpy", "cv2", "lmdb", "tqdm", "yaml"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert 'usage' in result.stdout


@pytest.fixture
def calls(monkeypatch):
    """What the commands pass to the functions behind them."""
    calls = {}
    for module, name in [('lr', 'make_lr'), ('stores', 'make_store'), ('centroids', 'make_centroids')]:
        monkeypatch.setattr(
            f'basicsr_ext.prepare.{module}.{name}',
            lambda *args, _name=name, **kwargs: calls.update({_name: (args, kwargs)}) or 7,
        )
    return calls


def test_lr_options(prepare, calls, capsys):
    prepare('lr', '-i', 'HR', '-o', 'LR', '--scale', 4)
    assert calls['make_lr'] == (
        ('HR', 'LR', 4),
        {'double': False, 'noise_sigma': 0.0, 'noise_seed': 0, 'suffix': ''},
    )
    assert capsys.readouterr().out == 'LR: 7 LR images\n'
    prepare('lr', '--input=a', '--output=b', '-s2', '--double', '--noise-sigma=.01', '--noise-seed=3', '--suffix=x2')
    assert calls['make_lr'] == (
        ('a', 'b', 2),
        {'double': True, 'noise_sigma': 0.01, 'noise_seed': 3, 'suffix': 'x2'},
    )


def test_lmdb_options(prepare, calls):
    prepare('lmdb', '-i', 'HR', '-o', 'HR.lmdb')
    assert calls['make_store'] == (('HR', 'HR.lmdb'), {'layout': 'raw', 'channels': None, 'compress_level': 1})
    prepare('store', '-i', 'a', '-o', 'b', '--layout', 'basicsr', '--channels', 1, '--compress-level', 9)
    assert calls['make_store'] == (('a', 'b'), {'layout': 'basicsr', 'channels': 1, 'compress_level': 9})


def test_centroid_options(prepare, calls, tmp_path):
    common = ['centroids', '-i', 'LR', '-o', 'mu.lmdb', '--output-lq', 'low.lmdb', '--weights', 'w.pth']
    defaults = {
        'weights': 'w.pth',
        'param_key': None,
        'tile': None,
        'overlap': 16,
        'batch_size': 1,
        'precision': 'fp32',
        'self_ensemble': False,
        'dtype': 'uint8',
        'device': 'auto',
    }
    prepare(*common, '--network', '{type: EDSR, num_in_ch: 3}', '--scale', 2)
    network = {'type': 'EDSR', 'num_in_ch': 3}
    assert calls['make_centroids'] == (('LR', 'mu.lmdb', 'low.lmdb'), {'network': network, 'scale': 2, **defaults})

    option_file = tmp_path / 'train.yml'
    option_file.write_text('scale: 3\nnetwork_g:\n  type: RCAN\n  upscale: 3\n')
    changed = {
        'param_key': 'params',
        'tile': 64,
        'overlap': 8,
        'batch_size': 4,
        'precision': 'bf16',
        'self_ensemble': True,
        'dtype': 'uint16',
        'device': 'cpu',
    }
    flags = [f'--{name.replace("_", "-")}={value}' for name, value in changed.items() if value is not True]
    prepare(*common, '-opt', option_file, '--self-ensemble', *flags)
    expected = {'network': {'type': 'RCAN', 'upscale': 3}, 'scale': 3, 'weights': 'w.pth', **changed}
    assert calls['make_centroids'][1] == expected


@pytest.mark.parametrize(
    'arguments',
    [
        [],
        ['lr', '-i', 'a', '-o', 'b'],
        ['lmdb', '-i', 'a'],
        ['lmdb', '-i', 'a', '-o', 'b', '--channels', '2'],
        ['centroids', '-i', 'a', '-o', 'b', '--output-lq', 'c', '--weights', 'w'],
        ['centroids', '-i', 'a', '-o', 'b', '--output-lq', 'c', '--weights', 'w', '-opt', 'f', '--network', '{}'],
        ['centroids', '-i', 'a', '-o', 'b', '--output-lq', 'c', '--weights', 'w', '-opt', 'f', '--precision', 'half'],
    ],
)
def test_incomplete_or_wrong_command_lines_end_with_status_2(prepare, calls, arguments, capsys):
    with pytest.raises(SystemExit) as end:
        prepare(*arguments)
    assert end.value.code == 2
    assert 'usage' in capsys.readouterr().err
    assert not calls
