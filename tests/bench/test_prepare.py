"""The benchmark of large sets, on five images."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / 'bench/prepare.py'


def test_every_step_is_measured(tmp_path, monkeypatch):
    """Its commands are right: run in this process, none ends otherwise than with 0."""
    from basicsr_ext.cli.main import main

    spec = importlib.util.spec_from_file_location('bench_prepare', SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def measured(folder, arguments):
        monkeypatch.chdir(folder)
        assert main(arguments) == 0, arguments
        return script.Cost(1.0, 2.0)

    monkeypatch.setattr(script, 'measured', measured)
    found = script.costs(tmp_path / 'set', 5)
    assert set(found) == {'lmdb', 'lr', 'check', 'centroids', 'start stores', 'start folders'}


def test_a_command_that_fails_ends_it(tmp_path):
    spec = importlib.util.spec_from_file_location('bench_prepare', SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    with pytest.raises(RuntimeError, match='check --gt nowhere ended with 2'):
        script.measured(tmp_path, ['prepare', 'check', '--gt', 'nowhere'])
    cost = script.measured(tmp_path, ['--version'])
    assert cost.seconds > 0 and cost.memory > 1000
