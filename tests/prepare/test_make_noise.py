"""Noise is found where there is nothing else, and becomes a store that a dataset can use."""

from __future__ import annotations

import numpy as np
import pytest
from run_helpers import write_images

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.functional.noise_windows import flat_windows
from basicsr_ext.prepare.noise import make_noise
from basicsr_ext.storage import open_store


def noisy(sigma: float = 5, level: float = 120, size: int = 96) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, sigma, (size, size, 3))
    return (level + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32'])
def test_flat_windows_are_those_of_noise_alone(dtype):
    image = noisy()
    image[:32, :32] = 120  # no noise
    image[:32, 32:64] += np.linspace(0, 60, 32, dtype=np.uint8)[:, None, None]  # structure
    image[32:64, :32] = noisy(40, size=32)  # too much
    image[64, 64] = 255  # cut off
    if dtype != 'uint8':
        image = image.astype(np.uint16) * 257 if dtype == 'uint16' else image.astype(np.float32) / 255
    assert flat_windows(image, 32) == [(0, 64), (32, 32), (32, 64), (64, 0), (64, 32)]
    assert flat_windows(image[:31], 32) == []


def test_photographs_have_few(photos):
    """A photograph with noise gives windows of its flat parts, not of its details."""
    photo = photos['rocket'].astype(np.float64)
    image = (photo + np.random.default_rng(0).normal(0, 6, photo.shape)).round().clip(0, 255).astype(np.uint8)
    corners = flat_windows(image, 32)
    assert 0 < len(corners) < (photo.shape[0] // 32) * (photo.shape[1] // 32) / 2
    for top, left in corners:
        assert photo[top : top + 32, left : left + 32].mean(2).std() < 7


def test_the_command_makes_a_store_of_windows(tmp_path, capsys):
    image = noisy()
    image[:48] = 120
    folder = write_images(tmp_path / 'noisy', {'a': image, 'b': np.full_like(image, 9)})
    output = tmp_path / 'noise.lmdb'
    assert main(['prepare', 'noise', '-i', str(folder), '-o', str(output), '--size', '48', '--num_workers', '1']) == 0
    assert f'{output}: 2 windows' in capsys.readouterr().out
    store = open_store(output)
    assert list(store.keys()) == ['a_48_0', 'a_48_48']
    np.testing.assert_array_equal(store.read('a_48_48'), image[48:, 48:])
    assert store.meta['kind'] == 'noise' and store.meta['size'] == 48


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'size': 4}, '--size: expected an integer of at least 8'),
        ({'least': 30}, '--least and --most: expected'),
        ({'flatness': 0}, '--flatness: expected'),
        ({'most': 1.5}, 'no window of 64x64 pixels with noise alone'),
    ],
)
def test_refused(tmp_path, arguments, message):
    folder = write_images(tmp_path / 'noisy', {'a': noisy()})
    with pytest.raises(UserError, match=message):
        make_noise(folder, tmp_path / 'noise.lmdb', num_workers=1, **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ['noisy']
