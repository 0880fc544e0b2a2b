"""The demo, as a reader of the page runs it, with a handful of iterations."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml

from basicsr_ext.errors import UserError
from basicsr_ext.report.curves import read_scalars
from basicsr_ext.storage import open_store

SCRIPT = Path(__file__).resolve().parents[1] / 'demo' / 'run.py'


@pytest.fixture(scope='module')
def demo():
    spec = importlib.util.spec_from_file_location('demo_run', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    """Folder in which the demo ran, and what it printed."""
    folder = tmp_path_factory.mktemp('demo')
    run = subprocess.run(
        [sys.executable, str(SCRIPT), '--out', 'shown', '--iterations', '2'],
        cwd=folder,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': ''},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return folder, run.stdout


def scores(text):
    """The printed table: method -> numbers."""
    lines = text[text.index('PSNR (dB) on Y') :].splitlines()
    return {line.split()[0]: [float(cell) for cell in line.split()[1:]] for line in lines[1 : lines.index('')]}


def test_stays_in_its_folder(finished):
    assert [path.name for path in finished[0].iterdir()] == ['shown']


def test_prints_its_commands(finished):
    commands = [line for line in finished[1].splitlines() if line.startswith('$ ')]
    assert commands[0] == '$ cd shown'
    assert [' '.join(line.split()[1:3]) for line in commands[1:]] == [
        *['basicsr prepare'] * 4,
        'basicsr train',
        'basicsr prepare',
        *['basicsr train'] * 2,
    ]
    for file in re.findall(r'\S+train_\w+\.yml', finished[1]):
        assert (finished[0] / 'shown' / file).is_file(), 'a printed path must be one that a reader can use'


def test_stores_are_there(finished):
    stores = finished[0] / 'shown' / 'datasets'
    held_back, training = open_store(stores / 'HR_val.lmdb'), open_store(stores / 'HR_train.lmdb')
    assert len(held_back) == 3
    assert not set(held_back.keys()) & set(training.keys())
    for name in ('LR_train_x2', 'centroid_train', 'centroid_train_x2'):
        assert open_store(stores / f'{name}.lmdb').keys() == training.keys()


def test_table_is_what_the_runs_logged(finished):
    table = scores(finished[1])
    assert list(table) == ['bicubic', 'teacher', 'vanilla', 'ECO']
    assert all(len(row) == 4 for row in table.values())
    assert 30 < table['bicubic'][-1] < 36
    for run in ('teacher', 'vanilla', 'ECO'):
        curve = read_scalars(finished[0] / 'shown' / 'tb_logger' / run, 'metrics/held_back/psnr')
        assert table[run][-1] == pytest.approx(curve.values[-1], abs=0.006)
        assert curve.values[0] < curve.values[-1] < table['bicubic'][-1], 'two iterations help, and are few'


def test_the_networks_are_three(finished):
    assert len({tuple(row) for row in scores(finished[1]).values()}) == 4


def test_last_lines_name_time_and_picture(finished):
    folder, text = finished
    *_, seconds, picture = text.splitlines()
    assert re.fullmatch(r'\d+ seconds in all', seconds)
    assert picture == 'picture: shown/demo.png'
    image = cv2.imread(str(folder / 'shown' / 'demo.png'))
    assert image.shape[1] > 1000 and image.shape[0] > 300
    assert (folder / 'shown' / 'demo.png').stat().st_size < 400_000


def options(run):
    return yaml.safe_load((SCRIPT.parent / f'train_{run}.yml').read_text())


def differing(first, second, where=''):
    """Key paths at which two blocks of options differ."""
    paths = set()
    for key in first.keys() | second.keys():
        one, other = first.get(key), second.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            paths |= differing(one, other, f'{where}{key}:')
        elif one != other:
            paths.add(f'{where}{key}')
    return paths


def test_option_files_differ_only_in_what_is_compared():
    assert differing(options('vanilla'), options('teacher')) == {'name', 'manual_seed'}
    assert differing(options('vanilla'), options('ECO')) == {
        'name',
        'datasets:train:type',
        'datasets:train:dataroot_centroid',
        'datasets:train:dataroot_centroid_lq',
        'train:eco:objective',
        'train:eco:schedule',
    }
    train = options('ECO')['train']
    assert train['scheduler']['periods'] == [train['total_iter']]
    assert train['total_iter'] % options('ECO')['val']['val_freq'] == 0


def test_its_own_folder_is_replaced(demo, tmp_path):
    out = demo.make_folder(tmp_path / 'out')
    (out / 'experiments').mkdir()
    assert demo.make_folder(out) == out
    assert not (out / 'experiments').exists()


def test_other_folders_are_left_alone(demo, tmp_path):
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('a')
    own = demo.make_folder(tmp_path / 'out')
    (tmp_path / 'link').symlink_to(own)
    for name in ('mine', 'mine/thesis.txt', 'link'):
        with pytest.raises(UserError, match='expected nothing there'):
            demo.make_folder(tmp_path / name)
    assert (tmp_path / 'mine' / 'thesis.txt').read_text() == 'a'
    assert demo.main(['--out', str(tmp_path / 'mine')]) == 2


def test_an_empty_folder_is_taken(demo, tmp_path):
    assert demo.make_folder(tmp_path) == tmp_path


@pytest.mark.parametrize('count', ['0', '-3'])
def test_bad_number_of_iterations(demo, tmp_path, capsys, count):
    assert demo.main(['--out', str(tmp_path / 'out'), '--iterations', count]) == 2
    assert 'expected at least 1' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_a_failing_command_ends_the_demo(demo, tmp_path, capsys):
    with pytest.raises(UserError, match='failed'):
        demo.basicsr('prepare', 'lmdb', '-i', str(tmp_path / 'missing'), '-o', str(tmp_path / 'a.lmdb'))
    assert 'basicsr prepare lmdb' in capsys.readouterr().out


def test_missing_photographs_are_named(demo, tmp_path):
    with pytest.raises(UserError, match=r'photograph coffee\.png'):
        demo.copy_photographs(tmp_path, tmp_path / 'photographs')


@pytest.mark.parametrize(
    ('vanilla', 'eco', 'found'),
    [(33.5, 33.62, '0.12 dB above'), (33.62, 33.5, '0.12 dB below'), (33.5, 33.503, 'end alike')],
)
def test_verdict_says_what_came_out(demo, vanilla, eco, found):
    assert found in demo.verdict(vanilla, eco)
