"""How much memory is free, by what the system says of the machine and of a container."""

from __future__ import annotations

import math

import pytest

from basicsr_ext import memory

MACHINE = {'/proc/meminfo': 'MemTotal: 90 kB\nMemAvailable:    50 kB\n'}
V1, V2 = '/sys/fs/cgroup/memory/memory', '/sys/fs/cgroup/memory'


@pytest.mark.parametrize(
    ('files', 'expected'),
    [
        ({}, math.inf),
        (MACHINE, 50 * 1024),
        ({**MACHINE, f'{V2}.max': 'max\n', f'{V2}.current': '9\n'}, 50 * 1024),
        ({**MACHINE, f'{V2}.max': '9000\n', f'{V2}.current': '8000\n'}, 1000),
        ({**MACHINE, f'{V2}.max': '90000000\n', f'{V2}.current': '8000\n'}, 50 * 1024),
        ({f'{V2}.max': '10\n', f'{V2}.current': '12\n'}, 0),
    ],
)
def test_the_least_of_the_limits_counts(monkeypatch, files, expected):
    limited(monkeypatch, files)
    assert memory.available_memory() == expected


@pytest.mark.parametrize(
    'files',
    [
        {
            f'{V2}.max': '9000\n',
            f'{V2}.current': '8900\n',
            f'{V2}.stat': 'anon 900\nfile 8000\ninactive_file 6000\nactive_file 2000\n',
        },
        {
            f'{V1}.limit_in_bytes': '9000\n',
            f'{V1}.usage_in_bytes': '8900\n',
            f'{V1}.stat': 'inactive_file 5\nactive_file 4\ntotal_inactive_file 6000\ntotal_active_file 2000\n',
        },
    ],
    ids=['v2', 'v1'],
)
def test_files_that_were_read_take_no_memory_away(monkeypatch, files):
    """A container that has read a data set is full of it."""
    limited(monkeypatch, MACHINE | files)
    assert memory.available_memory() == 8100


def limited(monkeypatch, files: dict[str, str]) -> None:
    """Gives the system's files a content; there is no limit of the process."""
    resource = pytest.importorskip('resource')
    monkeypatch.setattr(memory, '_read', lambda file: files.get(file, ''))
    monkeypatch.setattr(resource, 'getrlimit', lambda _: (resource.RLIM_INFINITY,) * 2)
