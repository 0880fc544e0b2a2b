"""basicsr_ext/distributed.py: how a process that was a rank ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, os, sys
from basicsr_ext import distributed
atexit.register(print, 'saved')
distributed._left_group = {group}
class Late:
    def __del__(self, write=os.write): write(1, b'taken down')
sys.late = Late()
print('done', end=' ')
distributed.end_process({status})
"""


@pytest.mark.parametrize('status', [0, 2, None])
@pytest.mark.parametrize('group', ['None', 'object()'])
def test_a_rank_ends_without_taking_the_interpreter_down(group, status):
    line = [sys.executable, '-c', PROGRAM.format(group=group, status=status)]
    ended = subprocess.run(line, capture_output=True, text=True, timeout=100)
    assert ended.returncode == (status or 0), ended.stderr
    assert ended.stdout.startswith('done saved\n')
    assert ('taken down' in ended.stdout) == (group == 'None')
