"""Whatever is wrong with what a user gives: one line says so, the status is 2, and nothing half-written stays."""

from __future__ import annotations

import json
import os
import resource
import sys

import cv2
import numpy as np
import pytest
from waiting import status_of_child

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.prepare.png import write_png
from basicsr_ext.storage import open_store


@pytest.fixture
def folder(tmp_path, photos):
    """Three images as a folder in a folder of its own."""
    path = tmp_path / 'in'
    path.mkdir()
    for key in ('a', 'b', 'c'):
        cv2.imwrite(str(path / f'{key}.png'), photos['coffee'][: 40 + ord(key) % 2, :48, ::-1])
    return path


@pytest.fixture
def commands(folder, tmp_path, network_option, weights):
    """Arguments of every command that makes something, without the outputs, which must lie in a folder."""
    (tmp_path / 'out').mkdir()
    teacher = ['--network', json.dumps(network_option), '--scale', '2', '--weights', str(weights), '--device', 'cpu']

    def arguments(command: str, out=tmp_path / 'out', source=folder) -> list[str]:
        one = ['-i', str(source), '-o', f'{out}/one.lmdb', '--num_workers', '2']
        two = [*one, '--output_lq', f'{out}/two.lmdb']
        return ['prepare'] + {
            'lr': ['lr', *one, '-s', '2'],
            'lr_folder': ['lr', '-i', str(source), '-o', f'{out}/one', '-s', '2', '--num_workers', '1'],
            'lmdb': ['lmdb', *one],
            'basicsr': ['lmdb', *one, '--layout', 'basicsr'],
            'subimages': ['subimages', '-i', str(source), '-o', f'{out}/sub', '--size', '20', '--step', '20'],
            'centroids': ['centroids', *two, *teacher],
            'luma': ['luma', *two, '-s', '2', '--patch_size', '10'],
            'noise': ['noise', *one, '--size', '16', '--least', '0.01', '--most', '200', '--flatness', '10'],
        }[command]

    return arguments


COMMANDS = ['lr', 'lr_folder', 'lmdb', 'basicsr', 'subimages', 'centroids', 'luma', 'noise']


def garbage(folder):
    (folder / 'b.png').write_bytes(b'this is no image' * 20)
    return 'b.png'


def truncated(folder):
    file = folder / 'c.png'
    file.write_bytes(file.read_bytes()[:-200])
    return 'c.png'


def damaged_inside(folder):
    file = folder / 'c.png'
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    return 'c.png'


def mixed_depths(folder):
    image = cv2.imread(str(folder / 'b.png'))
    cv2.imwrite(str(folder / 'b.png'), image.astype(np.uint16) * 257)
    return 'same depth'


def no_images(folder):
    for file in folder.iterdir():
        file.unlink()
    return 'found none'


def no_folder(folder):
    no_images(folder)
    folder.rmdir()
    return 'there is nothing'


@pytest.mark.parametrize('fault', [garbage, truncated, damaged_inside, mixed_depths, no_images, no_folder])
@pytest.mark.parametrize('command', COMMANDS)
def test_bad_images(commands, folder, tmp_path, capfd, command, fault):
    named = fault(folder)
    assert main(commands(command)) == 2
    message = capfd.readouterr().err
    assert named in message and message.count('basicsr prepare: error:') == 1 and 'Traceback' not in message
    assert list((tmp_path / 'out').iterdir()) == []


def deep(image):
    return image.astype(np.uint16) * 257


def grey(image):
    return image[..., 0]


def alpha(image):
    return np.dstack([image, image[..., 0]])


@pytest.mark.parametrize('kind', [deep, grey, alpha])
@pytest.mark.parametrize('command', COMMANDS)
def test_kinds_of_images(commands, folder, tmp_path, capfd, command, kind):
    """Each works or says why not; depth and colours of what is made are those of the images where they can be."""
    for file in folder.iterdir():
        cv2.imwrite(str(file), kind(cv2.imread(str(file))))
    status, message = main(commands(command)), capfd.readouterr().err
    if command == 'centroids' and kind is grey:
        assert status == 2 and 'channels' in message and list((tmp_path / 'out').iterdir()) == []
        return
    assert status == 0
    assert ('3 of 3 images have alpha' in message) == (kind is alpha)
    store = open_store(min((tmp_path / 'out').iterdir()))
    made = {'centroids': np.uint8, 'luma': np.float32}.get(command, np.uint16 if kind is deep else np.uint8)
    assert store.dtype == made
    assert store.channels == (1 if kind is grey or command == 'luma' else 3)


@pytest.mark.parametrize('command', COMMANDS)
def test_places_that_cannot_be_written(commands, tmp_path, capfd, command):
    (tmp_path / 'file').touch()
    for place in (tmp_path / 'file', '/proc'):
        assert main(commands(command, out=place)) == 2
        message = capfd.readouterr().err
        assert (
            'writing failed' in message and message.count('basicsr prepare: error:') == 1 and 'Traceback' not in message
        )


@pytest.mark.parametrize('command', COMMANDS[:-1])  # windows of noise are small: what is done of them is kept
def test_a_full_disk(commands, tmp_path, capfd, photos, command):
    source = tmp_path / 'noise'
    source.mkdir()
    for key in 'ab':
        noise = np.random.default_rng(ord(key)).integers(0, 256, (180, 180, 3), dtype=np.uint8)
        cv2.imwrite(str(source / f'{key}.png'), noise)
    arguments = commands(command, source=source)
    if command == 'subimages':
        arguments[-3:] = ['150', '--step', '150']
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            os._exit(main(arguments))
        finally:
            os._exit(99)
    assert status_of_child(child) == 2
    message = capfd.readouterr().err
    assert 'writing failed' in message and message.count('basicsr prepare: error:') == 1 and 'Traceback' not in message
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize('command', COMMANDS)
def test_existing_outputs_stay(commands, tmp_path, capfd, command):
    assert main(commands(command)) == 0
    before = {path: path.read_bytes() for path in (tmp_path / 'out').rglob('*') if path.is_file()}
    capfd.readouterr()
    assert main(commands(command)) == 2
    message = capfd.readouterr().err
    assert 'exists' in message and message.count('basicsr prepare: error:') == 1
    assert before == {path: path.read_bytes() for path in (tmp_path / 'out').rglob('*') if path.is_file()}


def test_grey_images_for_a_colour_network(commands, folder, tmp_path, capfd):
    for file in folder.iterdir():
        cv2.imwrite(str(file), cv2.imread(str(file), cv2.IMREAD_GRAYSCALE))
    assert main(commands('centroids')) == 2
    assert 'channels' in capfd.readouterr().err
    assert list((tmp_path / 'out').iterdir()) == []


@pytest.mark.parametrize(
    ('command', 'option'),
    [
        ('lr', '--scale'),
        ('lr', '--noise_seed'),
        ('lmdb', '--num_workers'),
        ('subimages', '--size'),
        ('subimages', '--step'),
        ('subimages', '--threshold'),
        ('centroids', '--scale'),
        ('luma', '--scale'),
        ('luma', '--patch_size'),
        ('noise', '--size'),
    ],
)
def test_fractions_are_refused_in_one_line_that_names_the_option(commands, tmp_path, capfd, command, option):
    assert main([*commands(command), option, '2.5']) == 2
    printed = capfd.readouterr().err
    assert printed.startswith(f'basicsr prepare: error: {option}: expected ') and printed.count('\n') == 1
    assert '2.5' in printed and list((tmp_path / 'out').iterdir()) == []


def test_fractions_are_refused_by_the_check(folder, capfd):
    for option, more in (('--scale', ['--lq', str(folder)]), ('--distance', [])):
        assert main(['prepare', 'check', '--gt', str(folder), *more, option, '2.5']) == 2
        printed = capfd.readouterr().err
        assert printed.startswith(f'basicsr prepare: error: {option}: ') and printed.endswith('found 2.5.\n')


def test_one_image_is_not_several(commands, folder, capfd):
    for name in ('b', 'c'):
        (folder / f'{name}.png').unlink()
    for command, done in (('lmdb', '1 image'), ('lr', '1 LR image'), ('centroids', '1 centroid')):
        assert main(commands(command, out=folder.parent / command)) == 0
        assert capfd.readouterr().out.endswith(f': {done}\n')


def test_ctrl_c_is_one_line(commands, monkeypatch, capfd):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr('basicsr_ext.prepare.lr.make_lr', interrupted)
    with pytest.raises(SystemExit) as end:
        main(commands('lr'))
    assert end.value.code == 130
    assert capfd.readouterr().err == 'basicsr prepare lr: stopped; the same command goes on.\n'


def test_ctrl_c_of_the_check_promises_nothing(folder, monkeypatch, capfd):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr('basicsr_ext.prepare.check.check_sets', interrupted)
    assert main(['prepare', 'check', '--gt', str(folder)]) == 130
    assert capfd.readouterr().err == 'basicsr prepare: interrupted\n'


@pytest.mark.parametrize('suffix', ['/../../x', '\\x', '/'])
def test_a_suffix_does_not_lead_elsewhere(commands, tmp_path, capfd, suffix):
    assert main([*commands('lr_folder'), '--suffix', suffix]) == 2
    assert '--suffix: expected an ending of names' in capfd.readouterr().err
    assert list((tmp_path / 'out').iterdir()) == []


def test_no_image_is_written_outside_of_the_output(tmp_path):
    for key in ('../x', str(tmp_path / 'x')):
        with pytest.raises(UserError, match='expected a name that is a path below a folder'):
            write_png(tmp_path / 'out', key, np.zeros((2, 2, 3), np.uint8), 1, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_not_utf8(commands, folder, tmp_path, capfd):
    """No step takes it, each in a sentence; the check says so too."""
    os.rename(folder / 'b.png', os.path.join(os.fsencode(folder), b'\xff.png'))
    for command in COMMANDS:
        assert main(commands(command)) == 2
        message = capfd.readouterr().err
        assert "image '\\udcff'" in message and 'no UTF-8' in message and 'Traceback' not in message
        assert list((tmp_path / 'out').iterdir()) == []
    with pytest.raises(SystemExit, match='1'):
        main(['prepare', 'check', '--gt', str(folder)])
    printed = capfd.readouterr().out
    assert 'a name that can be a key' in printed and '1 problem' in printed
