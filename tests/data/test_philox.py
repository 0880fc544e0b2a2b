import numpy as np
import pytest

from basicsr_ext.data.philox import philox4x64, unit_doubles
from basicsr_ext.data.sample_id import SampleId, sample_generator, sample_numbers


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
    (found,) = sample_numbers([SampleId(0, 3, position, 0, seed)])
    np.testing.assert_array_equal(found, sample_generator(seed, 3, position).random(8))


def test_samples_with_numbers_made_together_keep_them():
    samples = [SampleId(0, epoch, position, 0, 1) for epoch in range(7) for position in (3, 2000)]
    expected = [sample_generator(1, sample.epoch, sample.position).random(8) for sample in samples]
    for _ in range(2):  # more epochs than are remembered
        np.testing.assert_array_equal(sample_numbers(samples), expected)
    expected = [sample_generator(1, 0, position).random(8) for position in range(1016, 1040)]  # made in two lots
    np.testing.assert_array_equal(
        sample_numbers([SampleId(0, 0, number, 0, 1) for number in range(1016, 1040)]), expected
    )
