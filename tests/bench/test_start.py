"""The option files that the benchmark of starting measures have the mistakes that it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from basicsr_ext.checking import check_at_once
from basicsr_ext.errors import UserError
from basicsr_ext.options.source import read_source

SCRIPT = Path(__file__).parents[2] / 'bench/start.py'


@pytest.fixture(scope='module')
def start():
    spec = importlib.util.spec_from_file_location('bench_start', SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('syntax', 'start.*syntax.yml, line 4: not valid YAML'),
        ('name', 'network_g.type: expected the name of a registered network, .*did you mean "EDSR"'),
        ('key', 'train.eco.objectiv: unknown option; did you mean "objective"'),
        ('files', None),
    ],
)
def test_files_have_one_mistake_each(start, tmp_path_factory, name, message):
    file = start.write_files(tmp_path_factory.mktemp('start'))[name]
    if message is None:
        check_at_once(read_source(file), is_train=True)  # what is missing is found later
        return
    with pytest.raises(UserError, match=message):
        check_at_once(read_source(file), is_train=True)


def test_a_process_is_measured(start, tmp_path):
    """The first line comes before the end, and waiting is no processor time."""
    command = ['-c', 'import time; print("first", flush=True); time.sleep(1)']
    times = start.timed(command, SCRIPT.parents[1], tmp_path)
    assert times.first < times.wall and times.wall >= 1 and 0 < times.processor < times.wall
    assert set(start.commands({'name': tmp_path})) == {'name', 'imports'}
