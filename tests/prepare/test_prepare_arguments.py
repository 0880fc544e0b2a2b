"""The command line of ``basicsr prepare``."""

from __future__ import annotations

import subprocess
import sys

import pytest
from waiting import LIMIT


@pytest.mark.parametrize(
    'command', [[], ['lr'], ['lmdb'], ['store'], ['subimages'], ['centroids'], ['luma'], ['check']]
)
def test_help_imports_nothing_heavy(command):
    program = (
        'import argparse, sys\n'
        'from basicsr_ext.cli.prepare import add_arguments\n'
        'parser = argparse.ArgumentParser()\n'
        'add_arguments(parser)\n'
        'try:\n'
        f'    parser.parse_args({[*command, "--help"]!r})\n'
        'except SystemExit as end:\n'
        '    assert end.code == 0\n'
        'heavy = {"torch", "basicsr", "spandrel", "numpy", "cv2", "lmdb", "tqdm", "yaml"} & set(sys.modules)\n'
        'assert not heavy, heavy\n'
    )
    result = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=False, timeout=LIMIT)
    assert result.returncode == 0, result.stderr
    assert 'usage' in result.stdout


@pytest.fixture
def calls(monkeypatch):
    """What the commands pass to the functions behind them."""
    calls = {}
    functions = {
        'lr': 'make_lr',
        'stores': 'make_store',
        'subimages': 'make_subimages',
        'centroids': 'make_centroids',
        'luma': 'make_luma',
    }
    for module, name in functions.items():
        monkeypatch.setattr(
            f'basicsr_ext.prepare.{module}.{name}',
            lambda *args, _name=name, **kwargs: calls.update({_name: (args, kwargs)}) or 7,
        )
    return calls


def test_lr_options(prepare, calls, capsys):
    prepare('lr', '-i', 'HR', '-o', 'LR', '--scale', 4)
    assert calls['make_lr'] == (
        ('HR', 'LR', 4),
        {
            'double': False,
            'noise_sigma': 0.0,
            'noise_seed': 0,
            'suffix': '',
            'dtype': None,
            'enlarge': False,
            'resizer': 'matlab',
            'output_hr': None,
            'compress_level': 1,
            'num_workers': None,
        },
    )
    assert capsys.readouterr().out == 'LR: 7 LR images\n'
    prepare(
        'lr',
        '--input=a',
        '--output=b',
        '-s2',
        '--double',
        '--noise-sigma=.01',
        '--noise-seed=3',
        '--suffix=x2',
        '--dtype=float32',
        '--enlarge',
        '--compress_level=0',
        '--num-workers=3',
    )
    assert calls['make_lr'] == (
        ('a', 'b', 2),
        {
            'double': True,
            'noise_sigma': 0.01,
            'noise_seed': 3,
            'suffix': 'x2',
            'dtype': 'float32',
            'enlarge': True,
            'resizer': 'matlab',
            'output_hr': None,
            'compress_level': 0,
            'num_workers': 3,
        },
    )


def test_lmdb_options(prepare, calls):
    prepare('lmdb', '-i', 'HR', '-o', 'HR.lmdb')
    defaults = {'layout': 'raw', 'channels': None, 'compress_level': 1, 'num_workers': None}
    assert calls['make_store'] == (('HR', 'HR.lmdb'), defaults)
    prepare(
        'store', '-i', 'a', '-o', 'b', '--layout', 'basicsr', '--channels', 1, '--compress-level', 9, '--num_workers=2'
    )
    changed = {'layout': 'basicsr', 'channels': 1, 'compress_level': 9, 'num_workers': 2}
    assert calls['make_store'] == (('a', 'b'), changed)


def test_subimages_options(prepare, calls, capsys):
    prepare('subimages', '-i', 'HR', '-o', 'sub')
    pairs = {'input_lq': None, 'output_lq': None, 'scale': None, 'filename_tmpl': None}
    defaults = {'size': 480, 'step': 240, 'threshold': 0, 'skip_small': False, 'compress_level': 3, 'num_workers': None}
    defaults |= pairs
    assert calls['make_subimages'] == (('HR', 'sub'), defaults)
    assert capsys.readouterr().out == 'sub: 7 sub-images\n'
    arguments = ['--crop_size=120', '--step=60', '--thresh_size=2', '--compress_level=1', '--skip_small']
    prepare('subimages', '-i', 'a', '-o', 'b', *arguments)
    changed = {'size': 120, 'step': 60, 'threshold': 2, 'skip_small': True, 'compress_level': 1, 'num_workers': None}
    changed |= pairs
    assert calls['make_subimages'] == (('a', 'b'), changed)
    pairs = {'input_lq': 'LR', 'output_lq': 'lq', 'scale': 3, 'filename_tmpl': '{}x3'}
    arguments += ['--input_lq=LR', '--output_lq=lq', '--scale=3', '--filename_tmpl={}x3']
    prepare('subimages', '-i', 'a', '-o', 'b', *arguments)
    assert calls['make_subimages'] == (('a', 'b'), changed | pairs)


def test_luma_options(prepare, calls):
    prepare('luma', '-i', 'T91', 'BSD200', '-o', 'a', '--output_lq', 'b', '-s', 2, 3, 4)
    defaults = {
        'factors': (1.0, 0.7, 0.5),
        'patch_size': 41,
        'output_small': None,
        'round_luma': False,
        'num_workers': None,
    }
    assert calls['make_luma'] == ((['T91', 'BSD200'], 'a', 'b', [2, 3, 4]), defaults)
    prepare(
        'luma',
        '-i',
        'T91',
        '-o',
        'a',
        '--output-lq',
        'b',
        '-s2',
        '--factors',
        1,
        0.9,
        '--patch_size=31',
        '--output_small=s',
    )
    changed = {**defaults, 'factors': [1.0, 0.9], 'patch_size': 31, 'output_small': 's'}
    assert calls['make_luma'] == ((['T91'], 'a', 'b', [2]), changed)


def test_centroid_options(prepare, calls, tmp_path):
    common = ['centroids', '-i', 'LR', '-o', 'mu.lmdb', '--output-lq', 'low.lmdb', '--weights', 'w.pth']
    defaults = {
        'weights': 'w.pth',
        'param_key': None,
        'tile': None,
        'overlap': None,
        'batch_size': 1,
        'precision': 'fp32',
        'self_ensemble': False,
        'dtype': 'uint8',
        'device': 'auto',
        'launcher': None,
        'num_workers': None,
    }
    prepare(*common, '--network', '{type: EDSR, num_in_ch: 3}', '--scale', 2)
    network = {'type': 'EDSR', 'num_in_ch': 3}
    assert calls['make_centroids'] == (('LR', 'mu.lmdb', 'low.lmdb'), {'network': network, 'scale': 2, **defaults})

    prepare(*common)
    assert calls['make_centroids'][1] == {'network': None, 'scale': None, **defaults}

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
        'launcher': 'none',
        'num_workers': 2,
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
        ['centroids', '-i', 'a', '-o', 'b', '--output-lq', 'c'],
        ['subimages', '-i', 'a'],
        ['luma', '-i', 'a', '-o', 'b', '-s', '2'],
        ['check', '--lq', 'a', '--scale', '2'],
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
