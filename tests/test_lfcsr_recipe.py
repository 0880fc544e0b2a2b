"""What LFC-SR validates on: 801-810 of DIV2K, made by the recipe and named by the option files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from run_helpers import write_images

from basicsr_ext.options.complete import load_yaml
from basicsr_ext.storage import open_store

ROOT = Path(__file__).parents[1]


def first_ten(folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'BASICSR': f'{sys.executable} -m basicsr_ext', 'PYTHONPATH': str(ROOT)}
    command = ['bash', str(ROOT / 'datasets_prep/div2k.sh'), 'first_ten', 'DIV2K_valid_HR']
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_the_recipe_makes_the_stores_that_the_option_files_name(tmp_path, photos):
    photo = next(iter(photos.values()))
    crops = {f'{number:04d}': photo[number - 750 :][:40, :44] for number in range(801, 813)}
    write_images(tmp_path / 'DIV2K_valid_HR', crops)
    result = first_ten(tmp_path)
    assert result.returncode == 0, result.stderr
    block = load_yaml(ROOT / 'options/train_LFCSR_HAN_x4_pretrain.yml')['datasets']['val']
    gt, lq = (open_store(tmp_path / block[key]) for key in ('dataroot_gt', 'dataroot_lq'))
    assert sorted(gt.keys()) == sorted(lq.keys()) == [f'{number:04d}' for number in range(801, 811)]
    assert (gt.read('0801') == crops['0801']).all() and lq.read('0801').shape == (10, 11, 3)
    assert first_ten(tmp_path).stdout.count('is there') == 2


def test_a_missing_image_is_named(tmp_path, photos):
    write_images(tmp_path / 'DIV2K_valid_HR', {'0801': next(iter(photos.values()))[:40, :44]})
    result = first_ten(tmp_path)
    assert result.returncode == 2 and 'DIV2K_valid_HR/0802.png: expected a file' in result.stderr
