"""Option files are loaded safely and changed by plain assignment."""

from __future__ import annotations

from pathlib import Path

import pytest

from basicsr_ext.errors import UserError
from basicsr_ext.trainer.options import complete_options, force_options, load_yaml, read_options


def load(tmp_path: Path, text: str) -> dict:
    path = tmp_path / 'options.yml'
    path.write_text(text)
    return load_yaml(path)


def test_numbers_in_scientific_notation_are_numbers(tmp_path):
    loaded = load(tmp_path, 'a: 1e-4\nb: 2E3\nc: 1.5e-2\nd: -.5e+1\ne: !!float 1e-7\nf: "1e-4"\ng: 1e\n')
    assert loaded == {'a': 1e-4, 'b': 2000.0, 'c': 0.015, 'd': -5.0, 'e': 1e-7, 'f': '1e-4', 'g': '1e'}


def test_duplicate_keys_are_refused_with_their_lines(tmp_path):
    with pytest.raises(
        UserError, match=r'options\.yml, line 4: the key "lr" appears twice in one block, in lines 3 and 4'
    ):
        load(tmp_path, 'train:\n  a: 1\n  lr: 1\n  lr: 2\n')


def test_merge_keys_and_anchors_stay_usable(tmp_path):
    loaded = load(tmp_path, 'base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\n')
    assert loaded['more'] == {'a': 1, 'b': 3}


@pytest.mark.parametrize(
    'text',
    [
        'a: !!python/object/apply:os.system ["touch {marker}"]',
        'a: !!python/object/new:os.system ["touch {marker}"]',
        'a: !!python/name:os.system',
        '!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ["{marker}"]]',
    ],
)
def test_yaml_never_runs_code(tmp_path, text):
    marker = tmp_path / 'marker'
    with pytest.raises(UserError, match='could not determine a constructor'):
        load(tmp_path, text.replace('{marker}', str(marker)))
    assert not marker.exists()


@pytest.mark.parametrize(
    ('text', 'message'),
    [('- 1\n- 2\n', 'found list'), ('', 'found NoneType'), ('a: [1, 2', 'line 1'), ('a: b: c', 'line 1')],
)
def test_files_that_hold_no_options(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load(tmp_path, text)


def test_missing_file_and_other_bytes(tmp_path):
    with pytest.raises(UserError, match=r'nowhere\.yml: cannot be read \(No such file'):
        load_yaml(tmp_path / 'nowhere.yml')
    (tmp_path / 'image.yml').write_bytes(b'\x89PNG\xff\xfe')
    with pytest.raises(UserError, match='expected a text file in UTF-8'):
        load_yaml(tmp_path / 'image.yml')


def test_force_yml_assigns_typed_values():
    options = {'train': {'lr': 1, 'milestones': [1], 'name': 'x', 'flag': False, 'none': 3, 'text': ''}}
    force_options(
        options,
        [
            'train:lr=1e-4',
            'train:milestones=[1, 2]',
            'train:name=a=b',
            'train:flag=true',
            'train:none=~',
            'train:text="1"',
        ],
    )
    assert options['train'] == {
        'lr': 1e-4, 'milestones': [1, 2], 'name': 'a=b', 'flag': True, 'none': None, 'text': '1'
    }  # fmt: skip


@pytest.mark.parametrize(
    ('assignment', 'message'),
    [
        ('train:total_iterr=3', r'no key "train:total_iterr"; did you mean "total_iter"\?'),
        ('trian:total_iter=3', r'no key "trian"; did you mean "train"\?'),
        ('train:total_iter:x=3', '"train:total_iter" is no block'),
        ('train:total_iter', 'expected key:key=value'),
        ('=3', 'expected key:key=value'),
        ('train:total_iter=!!python/name:os.system', 'could not determine a constructor'),
    ],
)
def test_force_yml_refuses(assignment, message):
    options = {'train': {'total_iter': 1}}
    with pytest.raises(UserError, match=message):
        force_options(options, [assignment])
    assert options == {'train': {'total_iter': 1}}


@pytest.mark.parametrize('payload', ['__import__("os").mkdir("{}")', '[__import__("os").mkdir("{}")]'])
def test_force_yml_never_runs_code(tmp_path, payload):
    marker = tmp_path / 'marker'
    options = {'a': 1}
    try:
        force_options(options, [f'a={payload.format(marker)}'])
        force_options(options, [f'a"]+{payload.format(marker)}+["=1'])
    except UserError:
        pass
    assert not marker.exists()


def test_a_mapping_is_copied_not_changed():
    given = {'train': {'total_iter': 1}}
    assert read_options(given, ['train:total_iter=5'])['train']['total_iter'] == 5
    assert given == {'train': {'total_iter': 1}}


def test_completed_options_are_those_that_basicsr_expects(tmp_path, monkeypatch):
    """Against BasicSR's own parse_options, for training, testing and debug mode."""
    import sys

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
            added = ('dist', 'rank', 'world_size', 'auto_resume')
            assert ours == {key: value for key, value in theirs.items() if key not in added}


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
