"""Option files are loaded safely, based on one another, and changed by plain assignment; every key knows its line."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.options.complete import complete_options, load_yaml, read_options
from basicsr_ext.options.source import read_source


def write(folder: Path, **files: str) -> Path:
    """Writes ``name.yml`` files; returns the first."""
    for name, text in files.items():
        (folder / f'{name}.yml').write_text(text)
    return folder / f'{next(iter(files))}.yml'


def load(tmp_path: Path, text: str) -> dict:
    return load_yaml(write(tmp_path, options=text))


def refuses(source, *assignments: str) -> str:
    """Reads options that must be refused; returns the message."""
    with pytest.raises(UserError) as caught:
        read_source(source, assignments)
    return str(caught.value)


# ---- values ----------------------------------------------------------------------------------------------------------


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    loaded = load(tmp_path, 'a: 1e-4\nb: 2E3\nc: 1.5e-2\nd: -.5e+1\ne: !!float 1e-7\nf: "1e-4"\ng: 1e\n')
    assert loaded == {'a': 1e-4, 'b': 2000.0, 'c': 0.015, 'd': -5.0, 'e': 1e-7, 'f': '1e-4', 'g': '1e'}


def test_dates_are_text(tmp_path):
    assert load(tmp_path, 'name: 2020-01-01\nother: =\n') == {'name': '2020-01-01', 'other': '='}


def test_merge_keys_and_anchors_stay_usable(tmp_path):
    loaded = load(tmp_path, 'base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\nmost: {<<: [*base, {c: 4, a: 0}]}\n')
    assert loaded['more'] == {'a': 1, 'b': 3} and loaded['most'] == {'a': 1, 'b': 2, 'c': 4}


def test_every_key_knows_its_line(tmp_path):
    text = 'name: a\ntrain:\n  optim_g:\n    type: Adam\n    lr: 1\n\n  losses: [{x: 1},\n    {x: 2}]\n'
    source = read_source(write(tmp_path, options=text))
    lines = {path: place.line for path, place in source.places.items()}
    assert lines == {
        ('name',): 1, ('train',): 2, ('train', 'optim_g'): 3, ('train', 'optim_g', 'type'): 4, ('train', 'optim_g', 'lr'): 5,
        ('train', 'losses'): 7, ('train', 'losses', 0, 'x'): 7, ('train', 'losses', 1, 'x'): 8,
    }  # fmt: skip
    assert str(source.place(('train', 'optim_g', 'betas'))) == f'{tmp_path}/options.yml, line 3'
    assert str(source.place(('val',))) == f'{tmp_path}/options.yml'


# ---- files that are refused ------------------------------------------------------------------------------------------


def test_all_problems_are_named_with_their_lines(tmp_path):
    text = 'train:\n  a: 1\n  lr: 1\n  lr: 2\n  x: !!python/name:os.system\nyes: 1\n[a]: 2\nn: !!int many\n'
    error = refuses(write(tmp_path, options=text))
    file = tmp_path / 'options.yml'
    assert error.splitlines() == [
        '5 problems in the options:',
        f'  {file}, line 4: train.lr: the key "lr" appears twice in one block, in lines 3 and 4.',
        f'  {file}, line 5: train.x: expected a plain value, found the tag "!!python/name:os.system", which option files do '
        'not have.',
        f'  {file}, line 6: expected a name as key, found True; put it in quotes if it is one.',
        f'  {file}, line 7: expected a name as key, found a list or block; put it in quotes if it is one.',
        f"  {file}, line 8: n: expected a value of the kind !!int, found 'many'.",
    ]


@pytest.mark.parametrize(
    'text',
    [
        'a: !!python/object/apply:os.system ["touch {marker}"]',
        'a: !!python/object/new:os.system ["touch {marker}"]',
        'a: !!python/object/apply:subprocess.check_call [[touch, "{marker}"]]',
        'a: !!python/name:os.system',
        '!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ["{marker}"]]',
        '!!python/object/apply:os.system ["touch {marker}"]: 1',
        'a: !!set {{1, 2}}',
        'a: !!binary aGVsbG8=',
        'a: !own 1',
    ],
)
def test_yaml_never_runs_code(tmp_path, text):
    marker = tmp_path / 'marker'
    assert 'found the tag "!' in refuses(write(tmp_path, options=text.format(marker=marker)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('- 1\n- 2\n', 'found a list'),
        ('', 'found nothing'),
        ('just words', "found the text 'just words'"),
        ('x: 1\na: [1, 2', 'line 2: not valid YAML'),
        ('a: b: c', 'line 1: not valid YAML: mapping values are not allowed here'),
        ('a: 1\n\tb: 2', 'line 2: not valid YAML'),
        ('a: 1\n--- \nb: 2', 'line 2: not valid YAML'),
        ('a: *nowhere', 'line 1: not valid YAML: found undefined alias'),
        ('a: "\x00"', 'line 1: not valid YAML: the character #x0000 may not stand there'),
        ('a: "\\UFFFFFFFF"', 'not valid YAML'),
        ('a: &a [*a]', 'line 1: a[0]: expected plain values, found an anchor that contains itself'),
        ('a: &a {b: *a}', 'an anchor that contains itself'),
        ('a: ' + '[' * 100 + ']' * 100, 'nested deeper than 32'),
        ('a: ' + '[' * 5000, 'options.yml'),
        ('a: ' + '9' * 5000, 'expected a value of the kind !!int'),
        ('a: {<<: 3}', 'expected a block, or a list of them, after "<<"'),
    ],
)
def test_files_that_hold_no_options(tmp_path, text, message):
    error = refuses(write(tmp_path, options=text))
    assert message in error and len(error) < 500


def test_aliases_that_stand_for_billions_of_values(tmp_path):
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x]']
    lines += [f'a{i}: &a{i} [{", ".join([f"*a{i - 1}"] * 9)}]' for i in range(1, 12)]
    assert 'more than 20000 values' in refuses(write(tmp_path, options='\n'.join(lines)))
    lines = ['a0: &a0 {k0: 1}'] + [f'a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}' for i in range(1, 40)]
    assert 'nested deeper' in refuses(write(tmp_path, options='\n'.join(lines)))


def test_missing_file_and_other_bytes(tmp_path):
    assert 'nowhere.yml: cannot be read (No such file' in refuses(tmp_path / 'nowhere.yml')
    assert 'cannot be read (Is a directory' in refuses(tmp_path)
    error = refuses(tmp_path / 'options/train_vanilla_EDSR_x2.yml')
    assert 'basicsr_ext:train_vanilla_EDSR_x2.yml' in error and 'basicsr options copy train_vanilla_EDSR_x2' in error
    assert 'comes with the package' not in refuses(tmp_path / 'nowhere.yml')
    (tmp_path / 'image.yml').write_bytes(b'\x89PNG\xff\xfe')
    assert 'expected a text file in UTF-8' in refuses(tmp_path / 'image.yml')
    (tmp_path / 'large.yml').write_bytes(b'#' * 1_000_001)
    assert 'expected at most a megabyte' in refuses(tmp_path / 'large.yml')


def test_a_syntax_error_is_answered_without_importing_torch(tmp_path):
    path = write(tmp_path, options='train: [1, 2\n')
    code = (
        f'import sys\nfrom basicsr_ext.cli.main import main\nassert main(["train", "-opt", {str(path)!r}]) == 2\n'
        'heavy = {"torch", "basicsr", "cv2", "pydantic"} & set(sys.modules)\nassert not heavy, heavy'
    )
    environment = {'PYTHONPATH': str(Path(__file__).parents[2])}
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert 'not valid YAML' in result.stderr and [p.name for p in tmp_path.iterdir()] == ['options.yml']


# ---- _base_ ----------------------------------------------------------------------------------------------------------


def test_base_files_merge_deeply_and_later_ones_win(tmp_path):
    (tmp_path / 'deep').mkdir()
    write(tmp_path, root='train: {a: 1, b: {x: 1, y: [1, 2]}, c: {z: 1}}\nname: root\n')
    write(
        tmp_path / 'deep',
        middle='_base_: ../root.yml\ntrain: {b: {y: [3]}, c: ~}\n',
        other='train: {d: 4}\nname: other\n',
    )
    top = write(tmp_path, top='_base_: [deep/middle.yml, deep/other.yml]\ntrain:\n  a: 5\n')
    source = read_source(top)
    assert source.values == {'train': {'a': 5, 'b': {'x': 1, 'y': [3]}, 'c': None, 'd': 4}, 'name': 'other'}
    assert str(source.places['train', 'a']) == f'{tmp_path}/top.yml, line 3'
    assert str(source.places['train', 'b', 'x']) == f'{tmp_path}/deep/../root.yml, line 1'
    assert source.places['train', 'b', 'y'].source.endswith('middle.yml')


def test_a_block_can_be_replaced_whole(tmp_path):
    write(tmp_path, root='network_g: {type: EDSR, num_feat: 64}\n')
    top = write(tmp_path, top='_base_: root.yml\nnetwork_g: {_replace_: true, type: RCAN}\n')
    assert load_yaml(top) == {'network_g': {'type': 'RCAN'}}
    bad = write(tmp_path, bad='network_g: {_replace_: 1, type: RCAN}\n')
    assert 'network_g._replace_: expected true, found 1' in refuses(bad)


def test_base_files_that_cannot_be_used(tmp_path):
    first = write(tmp_path, first='a: 1\n_base_: second.yml\n', second='_base_: first.yml\n')
    assert f'{tmp_path}/second.yml, line 1: _base_: ' in refuses(first) and 'is based on itself' in refuses(first)
    own = write(tmp_path, own='_base_: own.yml\n')
    assert 'is based on itself' in refuses(own)
    lost = write(tmp_path, lost='a: 1\n_base_: nowhere.yml\n')
    assert f'{tmp_path}/lost.yml, line 2: _base_: Option file {tmp_path}/nowhere.yml: cannot be read' in refuses(lost)
    for value in ('3', '[1]', '{a: 1}', '""', '[[a.yml]]'):
        assert '_base_: expected the path of an option file' in refuses(write(tmp_path, wrong=f'_base_: {value}\n'))
    double = write(tmp_path, double='_base_: broken.yml\n', broken='a: 1\na: 2\n')
    assert 'broken.yml, line 2: a: the key "a" appears twice' in refuses(double)


def test_base_files_without_end(tmp_path):
    for i in range(12):
        write(tmp_path, **{f'f{i}': f'_base_: [f{i + 1}.yml, f{i + 1}.yml, f{i + 1}.yml]\n'})
    write(tmp_path, f12='a: 1\n')
    assert 'expected at most 50 files' in refuses(tmp_path / 'f0.yml')


# ---- --force_yml -----------------------------------------------------------------------------------------------------


def test_force_yml_assigns_typed_values(tmp_path):
    options = {'train': {'lr': 1, 'milestones': [1], 'name': 'x', 'flag': False, 'none': 3, 'text': ''}}
    assignments = [
        'train:lr=1e-4', 'train:milestones=[1, 2]', 'train:name=a=b', 'train:flag=true', 'train:none=~', 'train:text="1"',
        'train:new:block={a: 1}', 'val:x=1',
    ]  # fmt: skip
    source = read_source(options, assignments)
    assert source.values == {
        'train': {'lr': 1e-4, 'milestones': [1, 2], 'name': 'a=b', 'flag': True, 'none': None, 'text': '1',
                  'new': {'block': {'a': 1}}},
        'val': {'x': 1},
    }  # fmt: skip
    assert str(source.place(('train', 'lr'))) == '--force_yml train:lr=1e-4'
    assert options['train']['lr'] == 1


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('train:total_iter:x=3', 'expected the key of a block of options, but train.total_iter is 1'),
        ('train:total_iter', 'expected key:key=value'),
        ('=3', 'expected key:key=value'),
        ('train::x=3', 'expected key:key=value'),
        ('train:total_iter=!!python/name:os.system', 'found the tag "!!python/name:os.system"'),
        ('train.total_iter=3', 'expected ":" between keys, as in train:total_iter.'),
        ('train:_replace_=true', '_replace_ is for option files'),
        ('_base_=x.yml', '_base_ is for option files'),
        ('train:total_iter=[1', 'not valid YAML'),
        ('train:total_iter={a: 1, a: 2}', 'the key "a" appears twice'),
    ],
)
def test_force_yml_refuses(assignment, message):
    options = {'train': {'total_iter': 1}}
    error = refuses(options, assignment)
    assert error.startswith('--force_yml') and message in error
    assert options == {'train': {'total_iter': 1}}


@pytest.mark.parametrize('payload', ['__import__("os").mkdir("{}")', '[__import__("os").mkdir("{}")]'])
def test_force_yml_never_runs_code(tmp_path, payload):
    marker = tmp_path / 'marker'
    for assignment in (f'a={payload.format(marker)}', f'a"]+{payload.format(marker)}+["=1'):
        with contextlib.suppress(UserError):
            read_source({'a': 1}, [assignment])
    assert not marker.exists()


def test_a_mapping_is_copied_not_changed():
    given = {'train': {'total_iter': 1, 'periods': [1]}, 'path': {'root': Path('/x')}}
    read = read_options(given, ['train:total_iter=5'])
    read['train']['periods'].append(2)
    assert read['train']['total_iter'] == 5 and read['path']['root'] == '/x'
    assert given == {'train': {'total_iter': 1, 'periods': [1]}, 'path': {'root': Path('/x')}}


# ---- what BasicSR adds -----------------------------------------------------------------------------------------------


def test_completed_options_are_those_that_basicsr_expects(tmp_path, monkeypatch):
    """Against BasicSR's own parse_options, for training, testing and debug mode."""
    import basicsr_ext

    basicsr_ext.register()
    from basicsr.utils.options import parse_options
    from run_helpers import sr_options, write_options

    given = sr_options(Path('~/data'), name='run')
    given['path']['pretrain_network_g'] = '~/net.pth'
    given['datasets']['val_2'] = dict(given['datasets']['val'])
    path = write_options(tmp_path / 'o.yml', given)
    for is_train in (True, False):
        for debug in (False, True):
            monkeypatch.setattr(sys, 'argv', ['basicsr', '-opt', str(path), *(['--debug'] if debug else [])])
            theirs, _ = parse_options(str(tmp_path), is_train=is_train)
            ours = complete_options(load_yaml(path), tmp_path, is_train, debug)
            assert [block.pop('block') for block in ours['datasets'].values()] == list(ours['datasets'])  # ours
            added = ('dist', 'rank', 'world_size', 'auto_resume')
            assert ours == {key: value for key, value in theirs.items() if key not in added}


def test_datasets_that_are_null_are_left_out(tmp_path):
    from run_helpers import sr_options

    options = sr_options(tmp_path)
    options['datasets']['val'] = None
    assert set(complete_options(options, tmp_path, is_train=True, debug=False)['datasets']) == {'train'}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda o: o.pop('datasets'), 'lack datasets'),
        (lambda o: o.pop('train'), 'lack train'),
        (lambda o: o['datasets'].pop('train'), 'needs a block datasets.train'),
        (lambda o: o.update(datasets=[1]), 'expected a block of options for every dataset'),
    ],
)
def test_missing_sections(tmp_path, change, message):
    from run_helpers import sr_options

    options = sr_options(tmp_path)
    change(options)
    with pytest.raises(UserError, match=message):
        complete_options(options, tmp_path, is_train=True, debug=False)
