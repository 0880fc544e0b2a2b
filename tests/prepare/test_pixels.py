"""Stored pixels and the unit range."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_ext.prepare.pixels import from_unit, to_unit


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('floating', [np.float32, np.float64])
def test_every_level_comes_back(dtype, floating):
    levels = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
    unit = to_unit(levels, floating)
    assert unit.dtype == floating
    assert (unit.min(), unit.max()) == (0, 1)
    np.testing.assert_array_equal(from_unit(unit, dtype), levels)


def test_halves_go_up_and_values_are_clipped():
    values = np.array([-0.3, 0.5, 1.5, 2.5, 254.5, 300]) / 255
    np.testing.assert_array_equal(from_unit(values, np.uint8), [0, 1, 2, 3, 255, 255])
    stored = from_unit(np.array([-0.1, 0.123, 1.1]), 'float32')
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored, [0, 0.123, 1])
