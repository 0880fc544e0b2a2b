import pickle

import numpy as np

from basicsr_ext.data.sample_id import SampleId, sample_generator


def test_names_its_fields_and_survives_pickling():
    sample = SampleId(index=3, epoch=1, position=20, iteration=6, seed=7)
    assert pickle.loads(pickle.dumps(sample)) == sample == (3, 1, 20, 6, 7)


def test_numbers_never_change():
    # A run that is resumed with a later version must see the samples it would have seen.
    found = sample_generator(seed=7, epoch=2, position=11).random(4)
    np.testing.assert_array_equal(
        found, [0.7419688321764626, 0.5117067647403782, 0.07163099181031363, 0.48453681861659825]
    )
    np.testing.assert_array_equal(sample_generator(0, 0, 0).random(2), [0.011546754286331562, 0.24154919656271812])


def test_is_philox_with_the_documented_key_and_counter():
    expected = np.random.Generator(np.random.Philox(key=[7, 2], counter=[0, 0, 0, 11])).random(4)
    np.testing.assert_array_equal(sample_generator(7, 2, 11).random(4), expected)


def test_each_of_seed_epoch_and_position_changes_the_numbers():
    ids = [(seed, epoch, position) for seed in range(3) for epoch in range(3) for position in range(4)]
    drawn = {number for sample in ids for number in sample_generator(*sample).random(8).tolist()}
    assert len(drawn) == 8 * len(ids)


def test_neighbouring_positions_are_uncorrelated():
    numbers = np.array([sample_generator(1, 0, position).random(2) for position in range(2000)])
    assert abs(numbers.mean() - 0.5) < 0.02
    assert np.abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.07
    assert np.abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.07


def test_takes_any_integer_as_seed():
    assert sample_generator(-1, 0, 0).random() == sample_generator(2**64 - 1, 0, 0).random()
    assert sample_generator(np.int64(5), 0, 0).random() == sample_generator(5, 0, 0).random()
