"""Steps that are killed anywhere, and gone on with: the result is the same to the bit, and nothing else stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from command_server import command_server
from run_helpers import on_ranks
from waiting import LIMIT, is_running, status_of_child, wait_until

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.prepare.centroids import make_centroids
from basicsr_ext.prepare.jobs import run_jobs
from basicsr_ext.prepare.lr import make_lr
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.prepare.pieces import Pieces
from basicsr_ext.prepare.stores import make_store
from basicsr_ext.prepare.subimages import make_subimages
from basicsr_ext.storage.folder import FolderStore
from basicsr_ext.storage.lmdb_writer import LmdbWriter

ROOT = Path(__file__).parents[2]


def kill_at(task, owner: type, name: str, count: int, after: bool) -> bool:
    """Runs a task in a child, and kills it at a call of a method, before or after; tells whether it came so far."""
    child = os.fork()
    if child == 0:
        original, calls = getattr(owner, name), []

        def deadly(*arguments, **options):
            calls.append(1)
            if len(calls) == count and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **options)
            if len(calls) == count:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)
        try:
            task()
        finally:
            os._exit(0)
    return status_of_child(child) == -signal.SIGKILL


def content(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob('*')) if path.is_file()}


def step_of(name: str, folder: Path, root: Path):
    """A step that writes below a folder, in one process, so that the kill hits it."""
    return {
        'lr': partial(make_lr, folder, root / 'low.lmdb', 2, num_workers=1),
        'lr_folder': partial(make_lr, folder, root / 'low', 2, num_workers=1),
        'basicsr': partial(make_store, folder, root / 'png.lmdb', layout='basicsr', num_workers=1),
        'subimages': partial(make_subimages, folder, root / 'sub', size=12, step=7, num_workers=1),
        'luma': partial(make_luma, [folder], root / 'gt.lmdb', root / 'lq.lmdb', [2, 3], patch_size=8, num_workers=1),
    }[name]


# Files appear by Path.replace: settings, four pieces (and images), the note that all are there. Stores are written by
# LmdbWriter.put, and appear, as folders do, by Path.rename.
KILLS = [
    *[(Path, 'replace', count, False) for count in (1, 2, 4, 6)],
    *[(Path, 'replace', count, True) for count in (1, 3, 6)],
    *[(LmdbWriter, 'put', count, False) for count in (1, 3)],
    (Path, 'rename', 1, False),
    (Path, 'rename', 1, True),
    (Path, 'rename', 2, True),
]


@pytest.mark.parametrize('name', ['lr', 'lr_folder', 'basicsr', 'subimages', 'luma'])
def test_killed_anywhere(tmp_path, lq_folder, name):
    (tmp_path / 'whole').mkdir()
    step_of(name, lq_folder, tmp_path / 'whole')()
    expected, reached = content(tmp_path / 'whole'), 0
    assert len(expected) >= 2
    for number, kill in enumerate(KILLS):
        root = tmp_path / str(number)
        root.mkdir()
        reached += kill_at(step_of(name, lq_folder, root), *kill)
        if reached and any(root.glob('*.parts')):
            step_of(name, lq_folder, root)()
        assert content(root) == expected, kill
    assert reached >= 7


@pytest.fixture
def teach(lq_folder, network_option, weights):
    """Makes centroids below a folder."""

    def run(root: Path, **changes) -> None:
        root.mkdir(exist_ok=True)
        options = {'network': network_option, 'weights': weights, 'scale': 2, 'device': 'cpu', **changes}
        make_centroids(lq_folder, root / 'mu.lmdb', root / 'mu_lq.lmdb', num_workers=0, **options)

    return run


def test_centroids_killed_anywhere(tmp_path, teach):
    teach(tmp_path / 'whole')
    expected, reached = content(tmp_path / 'whole'), 0
    for number, kill in enumerate([*KILLS, (Path, 'replace', 9, True), (LmdbWriter, 'put', 6, False)]):
        root = tmp_path / str(number)
        reached += kill_at(partial(teach, root), *kill)
        if any(root.glob('*.parts')):
            teach(root)
        assert content(root) == expected, kill
    assert reached == len(KILLS) + 2


def test_ranks_share_the_work_and_go_on_with_that_of_one(tmp_path, teach):
    teach(tmp_path / 'whole')
    expected = content(tmp_path / 'whole')
    on_ranks(3, partial(teach, tmp_path / 'three', launcher='pytorch'))
    assert content(tmp_path / 'three') == expected
    assert kill_at(partial(teach, tmp_path / 'killed'), Pieces, 'save', 4, True)  # two images: digests, then pixels
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / 'killed/mu.lmdb.parts').glob('*.piece')}
    assert len(done) == 4

    def go_on() -> None:
        teach(tmp_path / 'killed', launcher='pytorch')

    on_ranks(2, go_on)
    assert content(tmp_path / 'killed') == expected


def test_each_rank_computes_its_share_only(tmp_path, teach, monkeypatch):
    from basicsr_ext.prepare import centroids

    original = centroids.super_resolve

    def counted(teacher, images, settings, name):
        (tmp_path / f'{os.environ["RANK"]} {name}').touch()
        return original(teacher, images, settings, name)

    monkeypatch.setattr(centroids, 'super_resolve', counted)
    on_ranks(2, partial(teach, tmp_path / 'two', launcher='pytorch'))
    assert {path.name for path in tmp_path.glob('[01] *')} == {'0 astronaut', '1 chelsea', '0 coffee', '1 rocket'}


def test_torchrun_as_a_user_types_it(tmp_path, teach, lq_folder, network_option, weights):
    teach(tmp_path / 'whole')
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', '--no-python']
    arguments = ['prepare', 'centroids', '-i', str(lq_folder), '-o', 'mu.lmdb']
    arguments += ['--output_lq', 'mu_lq.lmdb', '--network', json.dumps(network_option), '--scale', '2']
    arguments += ['--weights', str(weights), '--device', 'cpu', '--num_workers', '1']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    (tmp_path / 'ranks').mkdir()
    options = {'cwd': tmp_path / 'ranks', 'env': environment, 'capture_output': True, 'text': True, 'timeout': 240}
    with command_server(tmp_path) as basicsr:
        result = subprocess.run([*command, str(basicsr), *arguments], **options)
    assert result.returncode == 0, result.stderr
    assert result.stdout == 'mu.lmdb, mu_lq.lmdb: 4 centroids\n'  # once
    assert content(tmp_path / 'ranks') == content(tmp_path / 'whole')


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_processes_end_with_a_line_and_go_on(tmp_path, lq_folder, monkeypatch, capfd, number, workers):
    make_lr(lq_folder, tmp_path / 'whole.lmdb', 2)
    command = ['prepare', 'lr', '-i', str(lq_folder), '-o', str(tmp_path / 'low.lmdb'), '-s', '2']
    original = FolderStore.read

    def read(self, key, *window):
        while key == 'rocket' and not (tmp_path / 'go_on').exists():
            time.sleep(0.01)
        return original(self, key, *window)

    monkeypatch.setattr(FolderStore, 'read', read)
    capfd.readouterr()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os._exit(status_of([*command, '--num_workers', str(workers)]))
    wait_until(lambda: len(list((tmp_path / 'low.lmdb.parts').glob('*.piece'))) >= 3, 'three pieces')
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.killpg(child, number)
    (tmp_path / 'go_on').touch()  # workers finish what they are at
    assert status_of_child(child) == 128 + number
    *_, line = capfd.readouterr().err.splitlines()
    assert line == 'basicsr prepare lr: stopped; the same command goes on.'
    assert not (tmp_path / 'low.lmdb').exists()
    assert len(list((tmp_path / 'low.lmdb.parts').glob('*.piece'))) >= 3
    assert main(command) == 0
    assert content(tmp_path / 'low.lmdb') == content(tmp_path / 'whole.lmdb')


def status_of(command: list[str]) -> int:
    """Exit status of the command."""
    try:
        return main(command)
    except SystemExit as end:
        return end.code


def test_sigterm_ends_all_ranks(tmp_path, teach, lq_folder, network_option, weights, monkeypatch, capfd):
    """The second has finished its share, and waits for the first."""
    from basicsr_ext.prepare import centroids

    teach(tmp_path / 'whole')
    (tmp_path / 'ranks').mkdir()
    monkeypatch.chdir(tmp_path / 'ranks')
    command = ['prepare', 'centroids', '-i', str(lq_folder), '-o', 'mu.lmdb', '--output_lq', 'mu_lq.lmdb']
    command += ['--network', json.dumps(network_option), '--scale', '2', '--weights', str(weights)]
    command += ['--device', 'cpu', '--num_workers', '1']
    original = centroids.super_resolve

    def super_resolve(teacher, images, settings, name):
        if name == 'astronaut':  # the first rank's first
            while not (tmp_path / 'second').exists() or len(list(Path('mu.lmdb.parts').glob('*.piece'))) < 4:
                time.sleep(0.01)
            os.kill(int((tmp_path / 'second').read_text()), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)
        return original(teacher, images, settings, name)

    def rank() -> None:
        if os.environ['RANK'] == '1':
            (tmp_path / 'process').write_text(str(os.getpid()))
            (tmp_path / 'process').rename(tmp_path / 'second')
        assert status_of([*command, '--launcher', 'pytorch']) == 143

    with monkeypatch.context() as patch:
        patch.setattr(centroids, 'super_resolve', super_resolve)
        on_ranks(2, rank)
    message = capfd.readouterr().err
    assert message.count('basicsr prepare centroids: stopped; the same command goes on.\n') == 1
    assert 'Traceback' not in message
    assert [path.name for path in (tmp_path / 'ranks').iterdir()] == ['mu.lmdb.parts']
    assert main(command) == 0
    assert content(tmp_path / 'ranks') == content(tmp_path / 'whole')


def test_two_runs_at_once(tmp_path, lq_folder):
    make_lr(lq_folder, tmp_path / 'other.lmdb', 2)
    pieces = Pieces(tmp_path / 'low.lmdb', {})
    pieces.begin()
    with pytest.raises(UserError, match='another process is making it now'):
        make_lr(lq_folder, tmp_path / 'low.lmdb', 2)
    pieces.remove()
    make_lr(lq_folder, tmp_path / 'low.lmdb', 2)


def test_changed_images_are_not_mixed(tmp_path, lq_folder, crops, folder_of):
    assert kill_at(partial(make_lr, lq_folder, tmp_path / 'low.lmdb', 2, num_workers=1), Pieces, 'save', 2, True)
    file = lq_folder / 'rocket.png'
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(UserError, match=r'low.lmdb.parts: a stopped run left its work here.*source_files_sha256 was'):
        make_lr(lq_folder, tmp_path / 'low.lmdb', 2)
    assert (tmp_path / 'low.lmdb.parts').exists()


def test_a_damaged_piece_is_made_anew(tmp_path, teach):
    teach(tmp_path / 'whole')
    assert kill_at(partial(teach, tmp_path / 'killed'), LmdbWriter, 'put', 1, False)
    piece = tmp_path / 'killed/mu.lmdb.parts/000002.piece'
    piece.write_bytes(piece.read_bytes()[:-1] + b'?')
    with pytest.raises(UserError, match=r'000002.piece: a piece of the work is damaged \(its checksum is wrong\)'):
        teach(tmp_path / 'killed')
    teach(tmp_path / 'killed')
    assert content(tmp_path / 'killed') == content(tmp_path / 'whole')


def test_pieces_keep_arrays_of_all_kinds(tmp_path):
    pieces = Pieces(tmp_path / 'out', {'a': 1})
    pieces.begin()
    arrays = {
        'é/x.1 \n': np.arange(6, dtype=np.uint16).reshape(1, 2, 3)[:, ::-1],
        'text': np.array('abc'),
        'empty': np.zeros((0, 3), np.float32),
    }
    pieces.save(7, arrays)
    found = pieces.load(7)
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert pieces.has(7) and not pieces.has(6)
    pieces.remove()
    assert list(tmp_path.iterdir()) == []


def _fail_at_three(number: int) -> int:
    if number == 3:
        raise UserError('three')
    return number


def _die(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _ask_to_end(number: int) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return number


def test_jobs_in_processes():
    for workers in (0, 3):
        assert sorted(run_jobs(abs, range(-5, 1), num_workers=workers, description='')) == [0, 1, 2, 3, 4, 5]
        with pytest.raises(UserError, match=r'^three$'):
            list(run_jobs(_fail_at_three, range(9), num_workers=workers, description=''))
    with pytest.raises(UserError, match='choose fewer processes'):
        list(run_jobs(_die, range(4), num_workers=2, description=''))


def test_workers_leave_sigterm_to_their_parent():
    found = run_jobs(_ask_to_end, range(4), num_workers=2, description='')
    assert sorted(found) == [0, 1, 2, 3]


def test_workers_end_with_a_killed_parent(tmp_path):
    script = (
        'import os, sys, time\n'
        'from pathlib import Path\n'
        'from basicsr_ext.prepare.jobs import run_jobs\n'
        'def job(n):\n'
        '    Path(sys.argv[1], str(os.getpid())).touch()\n'
        '    while True: time.sleep(0.1)\n'
        'list(run_jobs(job, range(2), num_workers=2, description=""))\n'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    parent = subprocess.Popen([sys.executable, '-c', script, str(tmp_path)], env=environment)
    wait_until(lambda: len(list(tmp_path.iterdir())) == 2 or parent.poll() is not None, 'two workers')
    parent.kill()
    parent.wait(LIMIT)
    workers = [int(path.name) for path in tmp_path.iterdir()]
    assert len(workers) == 2
    wait_until(lambda: not any(is_running(worker) for worker in workers), 'the end of the workers')
