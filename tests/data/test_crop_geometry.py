import numpy as np
import pytest
from memory_store import coordinates

from basicsr_ext.data.crop_geometry import (
    Geometry,
    area_shares,
    augment,
    count_crops,
    draw_crops,
    grid_crops,
    systematic_choice,
    to_chw,
)


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


# ---- crops side by side ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('flips', [(False, False), (True, False), (False, True), (True, True)])
def test_crops_on_a_grid_are_those_of_the_flipped_image(flips):
    """As if the image had been flipped, and then cut from the top left into windows side by side, row by row."""
    sizes = np.array([(11, 10), (3, 9), (7, 4), (8, 8)])  # the second holds none
    crop, scale = 4, 3
    ends = count_crops(sizes, crop)
    assert ends.tolist() == [4, 4, 5, 9]
    numbers = np.zeros((9, 5))
    numbers[:, 2:4] = np.where(flips, 0.0, 0.9)  # below a half: flipped
    numbers[:, 4] = 0.9
    found = grid_crops(ends, np.arange(9), sizes, crop, scale, numbers, True, True)
    expected = []
    for image, (height, width) in enumerate(sizes):
        pixels = np.arange(height * width).reshape(height, width)
        flipped = pixels[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
        for top in range(0, height - crop + 1, crop):
            for left in range(0, width - crop + 1, crop):
                expected.append((image, flipped[top : top + crop, left : left + crop]))
    assert len(found) == len(expected)
    for row, (image, window) in zip(found.tolist(), expected, strict=True):
        geometry = Geometry(*row)
        assert (geometry.image, geometry.height, geometry.width) == (image, crop * scale, crop * scale)
        assert (geometry.hflip, geometry.vflip, geometry.transpose) == (*flips, False)
        pixels = np.arange(np.prod(sizes[image])).reshape(sizes[image])
        top, left = geometry.top // scale, geometry.left // scale
        cut = pixels[top : top + crop, left : left + crop, None]
        np.testing.assert_array_equal(augment(cut, geometry)[..., 0], window)


def test_published_numbers_of_patches(bench_dir):
    """AIL's generator cuts 30,905 patches of 41x41 from 291 images at x2 before it turns them; here one image is missing."""
    import cv2

    files = [path for name in ('T91', 'BSDS500_train') for path in sorted((bench_dir / 'train' / name).iterdir())]
    images = [cv2.imread(str(path)) for path in files]
    sizes = [image.shape[:2] for image in images if image is not None]
    sizes.append((321, 481))  # "woman", which is in Set5
    assert len(sizes) == 291
    copies = np.concatenate([np.ceil(np.round(np.array(sizes) * factor, 9)).astype(int) for factor in (1, 0.7, 0.5)])
    found = {scale: count_crops(copies - copies % scale, 41)[-1] for scale in (2, 3, 4)}
    assert found == {2: 30_905, 3: 30_887, 4: 30_844}
