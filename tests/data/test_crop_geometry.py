import numpy as np
import pytest
from memory_store import coordinates

from basicsr_ext.data.crop_geometry import Geometry, area_shares, augment, draw_crops, systematic_choice, to_chw


def test_shares_add_up_areas():
    assert area_shares(np.array([(1, 2), (3, 2), (2, 4)])).tolist() == [2 / 16, 8 / 16, 1.0]


@pytest.mark.parametrize('seed', range(5))
def test_one_pass_gives_each_image_its_share_to_within_two(seed):
    random = np.random.default_rng(seed)
    sizes = random.integers(5, 400, (60, 2))
    chosen = systematic_choice(area_shares(sizes), np.arange(60), random.random(60))
    counts = np.bincount(chosen, minlength=60)
    areas = np.prod(sizes, axis=1)
    assert np.abs(counts - len(sizes) * areas / areas.sum()).max() < 2


def test_equal_images_are_taken_once_each():
    shares = area_shares(np.full((4, 2), 8))
    assert systematic_choice(shares, np.arange(4), np.full(4, 0.99)).tolist() == [0, 1, 2, 3]


def test_the_largest_random_number_still_chooses_the_last_image():
    shares = area_shares(np.full((1000, 2), 7))
    assert systematic_choice(shares, np.array([999]), np.array([np.nextafter(1, 0)])) == [999]


def draw_crop(image, size, crop, scale, numbers, use_hflip, use_rot):
    (geometry,) = draw_crops(
        np.array([image]), np.array([size]), crop, scale, np.array([numbers], float), use_hflip, use_rot
    )
    return Geometry(*geometry.tolist())


def test_crops_reach_every_position_alike():
    positions = [
        draw_crop(0, (4, 5), 3, 2, (down, right, 0, 0, 0), True, True)[1:3]
        for down in np.arange(12) / 12
        for right in np.arange(12) / 12
    ]
    found, counts = np.unique(positions, axis=0, return_counts=True)
    assert found.tolist() == [[top, left] for top in (0, 2) for left in (0, 2, 4)]
    assert set(counts) == {24}


def test_the_largest_random_numbers_stay_inside():
    last = np.nextafter(1, 0)
    geometry = draw_crop(0, (1356, 2041), 48, 3, (last, last, 0, 0, 0), True, True)
    assert geometry[1:5] == ((1356 - 48) * 3, (2041 - 48) * 3, 144, 144)


def test_flip_flags_follow_the_options_and_leave_the_window():
    numbers = (0.3, 0.7, 0.2, 0.2, 0.2)
    assert draw_crop(0, (20, 20), 4, 2, numbers, True, True)[5:] == (True, True, True)
    assert draw_crop(0, (20, 20), 4, 2, numbers, False, True)[5:] == (False, True, True)
    assert draw_crop(0, (20, 20), 4, 2, numbers, True, False)[5:] == (True, False, False)
    assert draw_crop(0, (20, 20), 4, 2, (0.3, 0.7, 0.6, 0.6, 0.6), True, True)[5:] == (False, False, False)
    windows = {draw_crop(0, (20, 20), 4, 2, numbers, h, r)[:5] for h in (True, False) for r in (True, False)}
    assert len(windows) == 1


def test_flips_come_in_basicsr_order():
    image = coordinates(2, 3, 0)
    flipped = augment(image, Geometry(0, 0, 0, 2, 3, hflip=True, vflip=False, transpose=True))
    # Row 0 of the result is the last column of the image; transposing first would give its last row.
    assert flipped[0, :, :2].tolist() == [[0, 2], [1, 2]]
    flipped = augment(image, Geometry(0, 0, 0, 2, 3, hflip=False, vflip=True, transpose=True))
    assert flipped[0, :, :2].tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(('dtype', 'white'), [(np.uint8, 255), (np.uint16, 65535)])
def test_unit_range_is_the_float32_quotient(dtype, white):
    values = np.arange(white + 1, dtype=dtype).reshape(-1, 2, 1)
    found = to_chw(values, unit_range=True)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], values[..., 0].astype(np.float32) / np.float32(white))


def test_float_images_and_stored_values_are_kept():
    image = np.random.default_rng(0).random((3, 4, 3), np.float32)
    np.testing.assert_array_equal(to_chw(image, unit_range=True), image.transpose(2, 0, 1))
    kept = to_chw(coordinates(3, 4, 9), unit_range=False)
    assert kept.dtype == np.uint8
    np.testing.assert_array_equal(kept, coordinates(3, 4, 9).transpose(2, 0, 1))


@pytest.mark.parametrize('unit_range', [True, False])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('channels', [1, 3])
def test_result_is_a_copy_of_its_own(unit_range, dtype, channels):
    image = np.zeros((4, 5, channels), dtype)
    image.flags.writeable = False
    found = to_chw(image, unit_range)
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not np.shares_memory(found, image)
