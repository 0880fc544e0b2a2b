"""What is done is kept where the machine fails, and told from what somebody else has put there."""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from waiting import status_of_child

from basicsr_ext.cli.main import main
from basicsr_ext.errors import Interrupted, UserError
from basicsr_ext.files import read_file
from basicsr_ext.prepare import assembling
from basicsr_ext.prepare.lr import make_lr
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.prepare.pieces import Pieces
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.prepare.subimages import make_subimages
from basicsr_ext.storage.folder import FolderStore

STEPS = ['lr', 'lr_folder', 'lmdb', 'basicsr', 'subimages', 'luma']


@pytest.fixture
def noise(tmp_path) -> Path:
    """Three small images of noise and a larger one."""
    folder = tmp_path / 'noise'
    folder.mkdir()
    for key, side in {'a': 40, 'b': 40, 'c': 240, 'd': 40}.items():
        image = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{key}.png'), image)
    return folder


def step_of(name: str, folder: Path, root: Path) -> partial:
    root.mkdir(exist_ok=True)
    return {
        'lr': partial(make_lr, folder, root / 'out.lmdb', 2, num_workers=1),
        'lr_folder': partial(make_lr, folder, root / 'out', 2, num_workers=1),
        'lmdb': partial(make_store, folder, root / 'out.lmdb', num_workers=1),
        'basicsr': partial(make_store, folder, root / 'out.lmdb', layout='basicsr', num_workers=1),
        'subimages': partial(make_subimages, folder, root / 'out.lmdb', size=40, step=20, num_workers=1),
        'luma': partial(make_luma, [folder], root / 'out.lmdb', root / 'lq.lmdb', [2], patch_size=8, num_workers=1),
    }[name]


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def message_in_child(task: partial, limit: int, message: Path) -> None:
    """Runs a task in a child that cannot write files above a size."""
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            task()
        except UserError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            message.write_text(str(error))
        finally:
            os._exit(0)
    status_of_child(child)


@pytest.mark.parametrize('name', STEPS)
def test_a_full_disk_keeps_what_is_done(tmp_path, noise, name):
    step_of(name, noise, tmp_path / 'whole')()
    root = tmp_path / 'full'
    task = step_of(name, noise, root)
    message_in_child(task, 30_000, tmp_path / 'message')
    assert [path.name for path in root.iterdir()] in (['out.lmdb.parts'], ['out.parts'])
    folder = next(root.iterdir())
    message = (tmp_path / 'message').read_text()
    assert 'writing failed' in message and f'2 of 4 pieces of the work are kept in {folder}' in message
    done = {path: path.stat().st_mtime_ns for path in folder.glob('*.piece')}
    assert len(done) == 2
    saved, original = [], Pieces.save
    Pieces.save = lambda self, index, arrays: saved.append(index) or original(self, index, arrays)
    try:
        task()
    finally:
        Pieces.save = original
    assert saved == [2, 3]
    assert content(root) == content(tmp_path / 'whole')


def test_a_full_disk_while_the_store_is_written(tmp_path, noise):
    """All pieces fit, the store does not; what somebody puts there afterwards is not taken for it."""
    task = step_of('lr', noise, tmp_path / 'out')
    message_in_child(task, 50_000, tmp_path / 'message')
    assert '4 of 4 pieces of the work are kept' in (tmp_path / 'message').read_text()
    (tmp_path / 'out/out.lmdb').mkdir()
    with pytest.raises(UserError, match=r'out.lmdb exists: remove it'):
        task()
    assert (tmp_path / 'out/out.lmdb.parts/000003.piece').exists()
    (tmp_path / 'out/out.lmdb').rmdir()
    task()
    step_of('lr', noise, tmp_path / 'whole')()
    assert content(tmp_path / 'out') == content(tmp_path / 'whole')


def test_other_settings_are_refused_where_a_kill_left_the_output(tmp_path, noise, monkeypatch):
    task = step_of('lr', noise, tmp_path / 'out')
    child = os.fork()
    if child == 0:
        Pieces.remove = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        task()
        os._exit(0)
    status_of_child(child)
    assert {path.name for path in (tmp_path / 'out').iterdir()} == {'out.lmdb', 'out.lmdb.parts'}
    with pytest.raises(UserError, match='scale was 2, is 4'):
        make_lr(noise, tmp_path / 'out/out.lmdb', 4, num_workers=1)
    assert (tmp_path / 'out/out.lmdb').exists()
    task()  # lacked nothing but cleaning up
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['out.lmdb']


def test_an_output_that_appears_while_the_step_begins(tmp_path, noise, monkeypatch):
    original = Pieces.begin

    def begin(self):
        original(self)
        self.output.mkdir()

    monkeypatch.setattr(Pieces, 'begin', begin)
    with pytest.raises(UserError, match='exists'):
        step_of('lr', noise, tmp_path / 'out')()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['out.lmdb']


def test_a_killed_worker_costs_its_piece_only(tmp_path, noise, capsys, monkeypatch):
    original = FolderStore.read

    def read(self, key, *window):
        if key == 'd':
            while len(list((tmp_path / 'out.lmdb.parts').glob('*.piece'))) < 3:
                pass
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, key, *window)

    monkeypatch.setattr(FolderStore, 'read', read)
    command = ['prepare', 'lmdb', '-i', str(noise), '-o', str(tmp_path / 'out.lmdb'), '--num_workers', '2']
    sys.stdout.flush()
    assert main(command) == 2
    message = capsys.readouterr().err
    assert 'choose fewer processes' in message and '3 of 4 pieces of the work are kept' in message
    monkeypatch.undo()
    assert main(command) == 0
    assert not (tmp_path / 'out.lmdb.parts').exists()


def test_an_image_that_cannot_be_read_for_a_while(tmp_path, noise, monkeypatch):
    def read(file):
        if file.name == 'c.png':
            raise OSError(errno.EIO, 'Input/output error')
        return read_file(file)

    monkeypatch.setattr('basicsr_ext.storage.folder.read_file', read)
    with pytest.raises(Interrupted, match=r'Input/output error. 2 of 4 pieces of the work are kept'):
        step_of('lr', noise, tmp_path / 'out')()


@pytest.mark.parametrize('number', [errno.EIO, errno.EMFILE])
def test_a_piece_that_cannot_be_read_is_not_removed(tmp_path, noise, monkeypatch, number):
    task = step_of('lr', noise, tmp_path / 'out')
    original = Path.read_bytes

    def read_bytes(self):
        if self.name == '000002.piece':
            raise OSError(number, os.strerror(number))
        return original(self)

    monkeypatch.setattr(Path, 'read_bytes', read_bytes)
    with pytest.raises(Interrupted, match=f'reading a piece of the work failed .{os.strerror(number)}.*4 of 4 pieces'):
        task()
    monkeypatch.undo()
    monkeypatch.setattr(Pieces, 'save', lambda *arguments: pytest.fail('all pieces are good'))
    task()


def test_a_damaged_piece_costs_itself_only(tmp_path, noise, monkeypatch):
    task = step_of('lr', noise, tmp_path / 'out')
    monkeypatch.delattr(assembling, 'RawLmdbWriter')
    with pytest.raises(NameError):
        task()
    monkeypatch.undo()
    piece = tmp_path / 'out/out.lmdb.parts/000001.piece'
    piece.write_bytes(b'null')
    with pytest.raises(
        Interrupted, match=r'000001.piece: a piece of the work is damaged.* 3 of 4 pieces of the work are kept'
    ):
        task()
    assert not piece.exists()
    task()
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['out.lmdb']
