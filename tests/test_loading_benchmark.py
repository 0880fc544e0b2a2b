"""The benchmark of loading runs, here on few images, and prints its figures."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import cv2
import pytest

SCRIPT = Path(__file__).parents[1] / 'bench/loading.py'


@pytest.fixture
def loading(monkeypatch):
    """The script as a module."""
    pytest.importorskip('skimage')
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    monkeypatch.setattr(sys, 'argv', ['loading.py', '--quick'])
    spec = importlib.util.spec_from_file_location('loading_benchmark', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = cv2.getNumThreads()
    yield module
    cv2.setNumThreads(threads)


def test_a_line_for_every_figure(loading, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(loading, 'PHOTOGRAPHS', loading.PHOTOGRAPHS[:3])  # 12 sub-images
    monkeypatch.setattr(loading, 'WHOLE_IMAGES', 3)
    monkeypatch.setattr(loading, 'BATCH', 4)
    monkeypatch.setattr(loading, 'keep_freed_memory', lambda: None)
    monkeypatch.setattr(loading.tempfile, 'tempdir', str(tmp_path))
    loading.main()
    lines = capsys.readouterr().out.splitlines()[-len(loading.GOALS) :]
    for line, (figure, goal) in zip(lines, loading.GOALS.items(), strict=True):
        # some file systems keep files in memory
        assert re.fullmatch(rf'{figure} (\d+\.\d+x|not measured: .+) \(goal {goal}x\)', line)
    assert not list(tmp_path.iterdir())
