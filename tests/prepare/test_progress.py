"""What a user sees of a long step."""

from __future__ import annotations

import io
import sys

import pytest

from basicsr_ext.prepare.progress import progress
from basicsr_ext.prepare.stores import make_store


class Terminal(io.StringIO):
    """Takes what a terminal would show."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize('workers', [1, 2])
def test_a_terminal_sees_a_progress_bar_and_a_file_gets_lines(lq_folder, tmp_path, monkeypatch, workers):
    terminal, file = Terminal(), io.StringIO()
    for stream, output in ((terminal, 'a.lmdb'), (file, 'b.lmdb')):
        monkeypatch.setattr(sys, 'stderr', stream)
        make_store(lq_folder, tmp_path / output, num_workers=workers)
    monkeypatch.undo()
    shown = terminal.getvalue()
    assert 'images: 100%' in shown and '4/4' in shown and 'writing the store: 100%' in shown
    assert [line.partition(', in')[0] for line in file.getvalue().splitlines()] == [
        'images: 0 of 4 images done',
        'images: 4 of 4 images done',
        'writing the store: 0 of 4 pieces done',
        'writing the store: 4 of 4 pieces done',
    ]


def test_a_file_gets_a_line_a_minute_with_the_time_left(monkeypatch, capsys):
    times = iter([0, 20, 59, 61, 100, 120, 3700])
    monkeypatch.setattr('basicsr_ext.prepare.progress.time.monotonic', lambda: next(times))
    with progress('centroids', 10, done=4, unit='batch') as update:
        for _ in range(6):
            update()
    assert capsys.readouterr().err.splitlines() == [
        'centroids: 4 of 10 batches done',
        'centroids: 7 of 10 batches done, about 0:01:01 left',  # three in 61 seconds, and three to come
        'centroids: 10 of 10 batches done, in 1:01:40',
    ]


def test_one_is_not_several(capsys):
    with progress('LR images', 1) as update:
        update()
    assert capsys.readouterr().err.splitlines()[1] == 'LR images: 1 of 1 image done, in 0:00:00'


def test_work_that_ends_before_its_end_is_not_called_done(capsys):
    with progress('LR images', 2) as update:
        update()
    assert capsys.readouterr().err == 'LR images: 0 of 2 images done\n'
