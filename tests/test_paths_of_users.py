"""Whatever a path leads to, a command ends with a sentence: a named pipe, links in a circle, homes of nobody, bytes."""

from __future__ import annotations

import os

import cv2
import numpy as np
import pytest
import yaml
from run_helpers import TINY_EDSR, sr_options, write_options, write_pairs

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.files import expand_home, follow_links, open_file, read_file
from basicsr_ext.storage import open_store

NOBODY = '~nosuchuser/x'


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    """Working directory with pairs, a pipe, a circle of links, and options."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    os.mkfifo('pipe')
    os.symlink('there', 'back')
    os.symlink('back', 'there')
    write_options(tmp_path / 'good.yml', sr_options(tmp_path))
    return tmp_path


def says(arguments: list[str], capfd, status: int = 2) -> str:
    """Runs a command; returns what it says."""
    try:
        found = main(arguments)
    except SystemExit as end:
        found = end.code
    printed = capfd.readouterr()
    assert found == status and 'Traceback' not in printed.err, printed.err
    return printed.err + printed.out


def test_pipes_as_files(root):
    for open_it in (open_file, read_file):
        with pytest.raises(OSError, match='it is a named pipe, not a file'):
            open_it('pipe')
        with pytest.raises(IsADirectoryError):
            open_it(root)
        with pytest.raises(FileNotFoundError):
            open_it('nothing')
        with pytest.raises(OSError, match='it is a device'):
            open_it('/dev/null')
    assert read_file('good.yml') == (root / 'good.yml').read_bytes()


def test_a_pipe_for_an_option_file(root, capfd):
    (root / 'on_pipe.yml').write_text('_base_: pipe\n')
    for options in ('pipe', 'on_pipe.yml'):
        assert 'Option file pipe: cannot be read (it is a named pipe, not a file)' in says(
            ['check', '-opt', options], capfd
        )


def test_a_pipe_for_an_image(root, capfd):
    os.mkfifo('hr/x.png')
    steps = (['lmdb', '-i', 'hr', '-o', 'o.lmdb'], ['lr', '-i', 'hr', '-o', 'o', '-s', '2'])
    for step in steps:
        assert 'hr/x.png: cannot be read: it is a named pipe' in says(['prepare', *step, '--num_workers', '1'], capfd)
    assert 'it is a named pipe' in says(['prepare', 'check', '--gt', 'hr', '--num_workers', '1'], capfd, 1)


def test_a_pipe_for_an_image_to_enlarge(root, capfd):
    import torch

    import basicsr_ext

    basicsr_ext.register()
    from basicsr.archs import build_network

    os.mkfifo('lr/x.png')
    torch.save({'params': build_network(dict(TINY_EDSR)).state_dict()}, 'net.pth')
    arguments = ['-i', 'lr', '-o', 'out', '--weights', 'net.pth', '-opt', 'good.yml', '--device', 'cpu']
    assert 'lr/x.png: cannot be read: it is a named pipe' in says(['upscale', *arguments], capfd, 1)


@pytest.mark.parametrize('path', [NOBODY, 'there', 'pipe'])
def test_paths_that_lead_nowhere(root, capfd, path):
    """Each place that takes a path, one after the other."""
    good = sr_options(root)

    def with_option(change) -> list[str]:
        options = yaml.safe_load(yaml.safe_dump(good))
        change(options)
        write_options(root / 'o.yml', options)
        return ['check', '-opt', 'o.yml']

    train = 'datasets', 'train'
    changes = {
        'base': lambda o: o.update(_base_=path),
        'root': lambda o: o.setdefault('path', {}).update(root=path),
        'weights': lambda o: o.setdefault('path', {}).update(pretrain_network_g=path),
        'state': lambda o: o.setdefault('path', {}).update(resume_state=path),
        'stock data': lambda o: o[train[0]][train[1]].update(dataroot_gt=path),
        'data': lambda o: o[train[0]][train[1]].update(dataroot_gt=path, type='PairedStoreDataset', io_backend=None),
    }
    for change in changes.values():
        assert path in says(with_option(change), capfd)
    for command in (
        ['check', '-opt', path],
        ['train', '-opt', path],
        ['test', '-opt', 'good.yml', '--weights', path],
        ['upscale', '-i', 'lr', '-o', 'out', '--weights', path],
        ['upscale', '-i', path, '-o', 'out', '--weights', 'good.yml'],
        ['evaluate', '--gt', 'hr', '--sr', path, '-o', 'scores'],
        ['evaluate', '--gt', path, '--sr', 'hr', '-o', 'scores'],
        ['prepare', 'lmdb', '-i', path, '-o', 'o.lmdb'],
        ['prepare', 'check', '--gt', path],
        ['prepare', 'subimages', '-i', 'hr', '-o', 'o', '--input_lq', path, '--output_lq', 'p', '--scale', '2'],
    ):
        assert path.partition('/')[0] in says(command, capfd)
    with pytest.raises(UserError):
        open_store(path)


def test_links_in_a_circle_among_images(root, capfd):
    os.symlink('x.png', 'hr/x.png')
    for step in (['lmdb', '-i', 'hr', '-o', 'o.lmdb'], ['check', '--gt', 'hr']):
        assert 'hr/x.png' in says(['prepare', *step], capfd)


def test_a_name_of_bytes(root, capfd):
    """Enlarging works, and says so; what needs names that are text refuses it."""
    image = cv2.imencode('.png', np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    os.mkdir('bytes')
    with open(b'bytes/\xff.png', 'wb') as file:
        file.write(image)
    assert "image '\\udcff'" in says(['evaluate', '--gt', 'bytes', '--sr', 'hr', '-o', 'scores'], capfd)
    with open(b'\xff.pth', 'wb') as file:
        file.write(b'nothing')
    name = os.fsdecode(b'\xff.pth')
    assert '\\udcff.pth' in says(['test', '-opt', 'good.yml', '--weights', name], capfd)
    with open(b'\xff.yml', 'wb') as file:
        file.write(b'a: [')
    assert '\\udcff.yml' in says(['check', '-opt', os.fsdecode(b'\xff.yml')], capfd)


def test_paths_are_never_an_error_by_themselves(root):
    assert str(expand_home(NOBODY)) == NOBODY
    assert follow_links('there').parent == follow_links(root)


def test_a_pipe_for_a_training_state(root, capfd):
    states = root / 'experiments/run/training_states'
    states.mkdir(parents=True)
    os.mkfifo(states / '3.state')
    printed = says(['train', '-opt', 'good.yml', '--auto_resume'], capfd)
    assert 'found only damaged ones' in printed and 'it is a named pipe, not a file' in printed


def test_images_are_not_written_among_those_that_are_read(root, capfd):
    commands = {
        'lr': ['--scale', '2'],
        'subimages': ['--size', '24', '--step', '12'],
    }
    for step, further in commands.items():
        for output in ('hr', 'hr/sub'):
            printed = says(['prepare', step, '-i', 'hr', '-o', output, *further], capfd)
            assert '--output: expected ' in printed
    assert len(open_store(root / 'hr').keys()) == 5 and not (root / 'hr/sub').exists()
    assert main(['prepare', 'lr', '-i', 'hr', '-o', 'hr_x2', '--scale', '2', '--num_workers', '0']) == 0
