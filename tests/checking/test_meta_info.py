"""Lists of images that option files name: every line is looked at before a run, and blank lines are fine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from run_helpers import real_esrgan_options, sr_options, write_options, write_pairs

import basicsr_ext
from basicsr_ext.cli.main import main

basicsr_ext.register()

from basicsr_ext.checking.dataset_building import build_dataset


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    """Working directory with image pairs."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def names() -> list[str]:
    return sorted(os.listdir('hr'))


def options_of(kind: str, root: Path) -> dict:
    """Options whose training set reads list.txt."""
    if kind == 'RealESRGANDataset':
        options = real_esrgan_options(root)
        options['datasets']['train']['meta_info'] = 'list.txt'
        return options
    options = sr_options(root, model_type='SRModel')
    key = 'meta_info' if kind == 'RealESRGANPairedDataset' else 'meta_info_file'
    options['datasets']['train'].update({'type': kind, key: 'list.txt', 'io_backend': {'type': 'disk'}})
    return options


def lines_of(kind: str) -> list[str]:
    if kind == 'RealESRGANPairedDataset':
        return [f'{name}, {name}' for name in names()]
    return [f'{name} (32,48,3)' for name in names()]


def check(root: Path, kind: str, content: str | bytes, capsys, command: str = 'check') -> tuple[int, str]:
    Path('list.txt').write_bytes(content if isinstance(content, bytes) else content.encode())
    status = main([command, '-opt', str(write_options(root / 'o.yml', options_of(kind, root)))])
    printed = capsys.readouterr()
    return status, printed.err + printed.out


KINDS = ['PairedImageDataset', 'RealESRGANPairedDataset', 'RealESRGANDataset']


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('ending', ['\n', '\r\n'])
def test_blank_lines_and_their_endings_are_fine(root, kind, ending, capsys):
    first, *rest = lines_of(kind)
    content = ending.join(['\ufeff' + first, '', *rest, '   ', ''])
    status, printed = check(root, kind, content, capsys)
    assert status == 0 and 'Warning' not in printed.replace('Warning: num_gpu', '')
    options = options_of(kind, root)['datasets']['train']
    dataset = build_dataset({**options, 'phase': 'train', 'scale': 2})
    assert (
        len(dataset) == len(names()) and dataset.opt.get('meta_info', dataset.opt.get('meta_info_file')) == 'list.txt'
    )
    for entry in dataset.paths:
        assert all(map(os.path.isfile, entry.values() if isinstance(entry, dict) else [entry]))


def test_a_list_with_blank_lines_trains(root, capsys):
    status, _ = check(root, 'PairedImageDataset', '\n\n'.join([*lines_of('PairedImageDataset'), '']), capsys, 'train')
    assert status == 0
    assert 'File client error' not in next(Path('experiments').rglob('train_*.log')).read_text()


@pytest.mark.parametrize('command', ['check', 'train'])
@pytest.mark.parametrize('kind', KINDS)
def test_what_is_not_there_is_named_with_its_line(root, kind, command, capsys):
    lines = [*lines_of(kind)[:2], '', lines_of(kind)[0].replace(names()[0], 'lost.png')]
    status, printed = check(root, kind, '\n'.join(lines), capsys, command)
    assert status == 2 and 'list.txt: line 4: expected an image at ' in printed and 'lost.png, found none' in printed
    assert not Path('experiments').exists()


def test_names_with_spaces_pipes_and_links_to_nothing(root, capsys):
    Path('hr/my photo.png').write_bytes(Path('hr', names()[0]).read_bytes())
    os.mkfifo('hr/pipe.png')
    os.symlink('nothing.png', 'hr/link.png')
    content = f'{names()[0]}\nmy photo.png\npipe.png\nlink.png\n'
    status, printed = check(root, 'RealESRGANDataset', content, capsys)
    assert status == 2
    assert (
        'line 2: expected an image at ' in printed and 'hr/my, found none (a name ends at its first space)' in printed
    )
    assert 'line 3: ' in printed and 'line 4: ' in printed


def test_the_lq_image_of_a_line(root, capsys):
    Path('lr', names()[1]).rename('lr/other.png')
    status, printed = check(root, 'PairedImageDataset', '\n'.join(names()), capsys)
    assert status == 2 and f'line 2: expected an image at {root}/lr/{names()[1]}, found none' in printed


def test_names_that_occur_twice_are_a_warning(root, capsys):
    status, printed = check(root, 'RealESRGANDataset', '\n'.join([*names(), names()[0]]), capsys)
    assert status == 0
    assert f'list.txt: names occur more than once: line {len(names()) + 1}: {names()[0]} as in line 1.' in printed


@pytest.mark.parametrize(
    ('kind', 'content', 'message'),
    [
        ('RealESRGANDataset', '\n \n', 'expected names of images, found a list without any'),
        ('RealESRGANDataset', b'\xff\xfe', 'expected a text file in UTF-8'),
        (
            'RealESRGANPairedDataset',
            'a.png b.png',
            'line 1: expected the names of a GT and an LQ image with ", " between',
        ),
    ],
)
def test_lists_that_are_none(root, kind, content, message, capsys):
    status, printed = check(root, kind, content, capsys)
    assert status == 2 and message in printed


def test_lists_of_clips(root, capsys):
    os.makedirs('hr/000')
    os.makedirs('lr/000')
    options = sr_options(root, model_type='SRModel')
    options['datasets']['train'] = {
        'name': 'REDS', 'type': 'REDSDataset', 'dataroot_gt': 'hr', 'dataroot_lq': 'lr', 'dataroot_flow': None,
        'meta_info_file': 'list.txt', 'val_partition': 'REDS4', 'io_backend': {'type': 'disk'}, 'num_frame': 5, 'gt_size': 32,
        'interval_list': [1], 'random_reverse': False, 'use_hflip': True, 'use_rot': True, 'num_worker_per_gpu': 0,
        'batch_size_per_gpu': 2,
    }  # fmt: skip
    Path('list.txt').write_text('000 100 (720,1280,3)\n\n001 100 (720,1280,3)\n002\n')
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    printed = capsys.readouterr().err
    assert 'line 3: expected the folder of a clip at hr/001, found none' in printed
    assert 'line 4: expected 3 columns' in printed
