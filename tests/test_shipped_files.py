"""Option files and recipes that come with the package: found, listed, copied, built upon, run."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from basicsr_ext import UserError
from basicsr_ext import shipped_files as shipped
from basicsr_ext.cli.main import main
from basicsr_ext.options.source import read_source

ROOT = Path(__file__).parents[1]
NAME = 'train_vanilla_EDSR_x2'


def test_a_clone_reads_its_own_files_and_an_installed_package_those_within_it(tmp_path, monkeypatch):
    assert shipped.shipped_folder('options') == ROOT / 'options'
    assert set(shipped.shipped_options()) == {path.stem for path in (ROOT / 'options').glob('*.yml')}
    monkeypatch.setattr(shipped, '__file__', str(tmp_path / 'basicsr_ext/shipped_files.py'))
    with pytest.raises(UserError, match='expected the folder shipped/options, found none'):
        shipped.shipped_folder('options')
    for folder in ('options', 'basicsr_ext/shipped/options'):  # one that lies beside an installed package is another's
        (tmp_path / folder).mkdir(parents=True)
    assert shipped.shipped_folder('options') == tmp_path / 'basicsr_ext/shipped/options'


def test_all_are_listed_with_what_they_are(capsys):
    assert main(['options', 'list']) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(path.stem for path in (ROOT / 'options').glob('*.yml'))
    assert all(len(line.split()) > 2 for line in lines)
    assert main(['recipe']) == 0
    recipes = capsys.readouterr().out
    assert 'div2k' in recipes and 'common' not in recipes and '#!' not in recipes
    assert all(len(line.split()) > 2 for line in recipes.splitlines())


def test_copies_work_where_they_are_put(tmp_path, monkeypatch, capsys):
    """All are copied; one alone comes with those that it is based on."""
    monkeypatch.chdir(tmp_path)
    assert main(['options', 'copy', 'train_CriaCL_NTIRE2020_x4_sum.yml', NAME]) == 0
    assert capsys.readouterr().out.split() == [
        'options/train_CriaCL_NTIRE2020_x4.yml',
        'options/train_CriaCL_NTIRE2020_x4_sum.yml',
        'options/train_CriaCL_RealSR_x4.yml',  # the base of the base
        f'options/{NAME}.yml',
    ]
    assert main(['options', 'copy', *shipped.shipped_options(), '-o', 'all/of them']) == 0
    for name, path in shipped.shipped_options().items():
        assert read_source(f'all/of them/{name}.yml').values == read_source(path).values
    for name in ('options', 'all/of them'):
        assert main(['options', 'copy', NAME, '-o', name]) == 0  # what is there, and equal, stays


def test_a_copy_replaces_no_file_and_nothing_is_copied_by_halves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / 'options/train_CriaCL_NTIRE2020_x4_sum.yml'
    mine.parent.mkdir()
    mine.write_text('name: mine\n')
    assert main(['options', 'copy', 'train_CriaCL_NTIRE2020_x4_sum', NAME]) == 2
    assert 'options/train_CriaCL_NTIRE2020_x4_sum.yml is there already, and differs' in capsys.readouterr().err
    assert os.listdir('options') == [mine.name] and mine.read_text() == 'name: mine\n'
    assert main(['options', 'copy', NAME, 'train_vanilla_EDSR_X2', '-o', 'other']) == 2
    assert 'called "train_vanilla_EDSR_X2"; did you mean "train_vanilla_EDSR_x2"?' in capsys.readouterr().err
    assert not Path('other').exists()
    assert main(['options', 'copy', NAME, '-o', str(mine)]) == 2
    assert 'writing failed' in capsys.readouterr().err


@pytest.mark.parametrize('suffix', ['', '.yml'])
def test_a_shipped_file_is_a_base_by_its_name(tmp_path, suffix):
    (tmp_path / 'mine.yml').write_text(f'_base_: basicsr_ext:{NAME}{suffix}\nname: mine\ntrain: {{total_iter: 9}}\n')
    plain = read_source(ROOT / f'options/{NAME}.yml').values
    expected = {**plain, 'name': 'mine', 'train': {**plain['train'], 'total_iter': 9}}
    source = read_source(tmp_path / 'mine.yml')
    assert source.values == expected
    assert f'options/{NAME}.yml' in str(source.place(('network_g', 'type')))
    assert read_source(f'basicsr_ext:{NAME}{suffix}').values == plain
    mapping = {'_base_': f'basicsr_ext:{NAME}{suffix}', 'name': 'mine', 'train': {'total_iter': 9}}
    assert read_source(mapping).values == expected and '_base_' in mapping


def test_a_mapping_is_based_on_files_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'one.yml').write_text('name: one\ntrain: {total_iter: 1, ema_decay: 0.5}\n')
    (tmp_path / 'two.yml').write_text('train: {_replace_: true, total_iter: 2}\n')
    assert read_source({'_base_': ['one.yml', Path('two.yml')], 'scale': 4}).values == {
        'name': 'one',
        'train': {'total_iter': 2},
        'scale': 4,
    }
    assert read_source({'_base_': tmp_path / 'one.yml', 'train': {'ema_decay': 0}}, ['train:total_iter=3']).values == {
        'name': 'one',
        'train': {'total_iter': 3, 'ema_decay': 0},
    }


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('basicsr_ext:train_vanila_EDSR_x2', 'did you mean "train_vanilla_EDSR_x2"'),
        ('basicsr_ext:../options/train_vanilla_EDSR_x2.yml', 'No option file that comes with basicsr_ext'),
        ('basicsr_ext:', '"basicsr options list" names them'),
        ('nowhere.yml', 'nowhere.yml: cannot be read'),
    ],
)
def test_a_base_that_is_not_there_is_told_where_it_was_written(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.yml').write_text(f'name: mine\n_base_: {name!r}\n')
    with pytest.raises(UserError) as error:
        read_source('mine.yml')
    assert message in str(error.value) and 'mine.yml' in str(error.value) and '2' in str(error.value)
    for given in ({'_base_': name}, name):
        with pytest.raises(UserError) as error:
            read_source(given)
        assert message in str(error.value)


def test_a_recipe_calls_the_command_of_this_python(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(shipped, 'shipped_recipes', lambda: {'own': tmp_path / 'own.sh'})
    (tmp_path / 'own.sh').write_text('echo "$# $1"; ${BASICSR:-basicsr} --version; exit 7\n')
    scripts = tmp_path / 'scripts of mine'
    monkeypatch.setattr(shipped.sysconfig, 'get_path', lambda name: str(scripts))
    monkeypatch.setenv('PYTHONPATH', str(ROOT))
    monkeypatch.delenv('BASICSR', raising=False)
    with pytest.raises(SystemExit) as end:
        main(['recipe', 'own', '--scale', 'two words'])
    assert end.value.code == 7
    assert capfd.readouterr().out.splitlines()[0] == '2 --scale'
    scripts.mkdir()
    (scripts / 'basicsr').write_text(f'#!{sys.executable}\nprint("the command of this Python")\n')
    (scripts / 'basicsr').chmod(0o755)
    assert shipped.run_recipe('own.sh', []) == 7
    assert 'the command of this Python' in capfd.readouterr().out


def test_recipes_that_are_unknown_or_called_wrongly_explain_themselves(capfd):
    assert main(['recipe', 'div3k']) == 2
    assert 'No recipe that comes with basicsr_ext is called "div3k"; did you mean "div2k"?' in capfd.readouterr().err
    with pytest.raises(SystemExit) as end:
        main(['recipe', 'div2k'])
    assert end.value.code == 2 and 'Where to get it:' in capfd.readouterr().err
