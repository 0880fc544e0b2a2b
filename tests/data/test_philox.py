import numpy as np
import pytest

from basicsr_ext.data.philox import philox4x64, unit_doubles
from basicsr_ext.data.sample_id import sample_generator, sample_numbers


@pytest.mark.parametrize('key', [(0, 0), (7, 2), (2**64 - 1, 2**63), (-1, 5)])
def test_equals_numpys_philox(key):
    counters = np.array([[1, 2, 1, 1], [0, 0, 2**64 - 1, 9], [0, 5, 0, 1], [0, 11, 2**64 - 1, 2**33]], np.uint64)
    words = np.array([word % 2**64 for word in key], np.uint64)
    for counter, found in zip(counters.T, philox4x64(key, counters).T, strict=True):
        before = counter.copy()
        before[0] -= 1  # NumPy counts first
        np.testing.assert_array_equal(found, np.random.Philox(key=words, counter=before).random_raw(4))


def test_doubles_are_numpys():
    raw = np.random.Philox(key=[3, 4]).random_raw(8)
    np.testing.assert_array_equal(unit_doubles(raw), np.random.Generator(np.random.Philox(key=[3, 4])).random(8))


@pytest.mark.parametrize('seed', [0, 7, -1, 2**64 - 1, 2**70 + 3])
@pytest.mark.parametrize('position', [0, 1, 1023, 1024, 5000, 10**12])
def test_numbers_of_a_sample_are_those_of_its_generator(seed, position):
    assert sample_numbers(seed, 3, position) == sample_generator(seed, 3, position).random(8).tolist()


def test_samples_with_numbers_made_together_keep_them():
    expected = [sample_generator(1, epoch, position).random(8).tolist() for epoch in range(7) for position in (3, 2000)]
    for _ in range(2):  # more epochs than are remembered
        assert [sample_numbers(1, epoch, position) for epoch in range(7) for position in (3, 2000)] == expected
