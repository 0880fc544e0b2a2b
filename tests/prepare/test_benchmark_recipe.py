"""The recipe of the benchmark sets refuses what it does not know before it makes anything."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / 'datasets_prep/benchmark.sh'


@pytest.mark.parametrize('arguments', [['Set6', 'foo'], ['Set5', 'foo', 'Set6', 'bar']])
def test_an_unknown_set_is_named(tmp_path, arguments):
    environment = {**os.environ, 'BASICSR': 'false'}
    result = subprocess.run(
        ['bash', str(RECIPE), *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 2
    assert result.stderr == 'Set6: unknown set; known sets: Set5, Set14, BSD100, Urban100, Manga109.\n'
    assert result.stdout == '' and list(tmp_path.iterdir()) == []


def test_a_folder_with_other_images_than_the_set_is_said(tmp_path):
    """As published archives are: HR and LR images in folders of one folder."""
    for name in ('HR/a.png', 'LR/a.png'):
        (tmp_path / 'Set5' / name).parent.mkdir(parents=True)
        (tmp_path / 'Set5' / name).touch()
    result = subprocess.run(
        ['bash', str(RECIPE), 'Set5', 'Set5'],
        cwd=tmp_path,
        env={**os.environ, 'BASICSR': 'true'},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0
    assert (
        result.stderr
        == 'warning: Set5: Set5 has 5 images, this folder has 2 files: it should hold the HR images alone.\n'
    )
