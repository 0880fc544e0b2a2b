"""What a user sees of a long step."""

from __future__ import annotations

import io
import sys

import pytest

from basicsr_ext.prepare.stores import make_store


class Terminal(io.StringIO):
    """Takes what a terminal would show."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize('workers', [1, 2])
def test_a_terminal_sees_a_progress_bar_and_a_file_does_not(lq_folder, tmp_path, monkeypatch, workers):
    terminal, file = Terminal(), io.StringIO()
    for stream, output in ((terminal, 'a.lmdb'), (file, 'b.lmdb')):
        monkeypatch.setattr(sys, 'stderr', stream)
        make_store(lq_folder, tmp_path / output, num_workers=workers)
    monkeypatch.undo()
    shown = terminal.getvalue()
    assert 'images: 100%' in shown and '4/4' in shown and 'writing the store: 100%' in shown
    assert file.getvalue() == ''
