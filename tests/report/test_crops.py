import numpy as np
import pytest

from basicsr_ext.report.crops import Window, highest_window, squared_error


def block(rows, columns, shape=(40, 60)):
    """Zeros, with a block of tens."""
    values = np.zeros(shape)
    values[rows, columns] = 10
    return values


@pytest.mark.parametrize(('top', 'left'), [(0, 0), (12, 31), (32, 52)])
def test_the_block_is_found(top, left):
    window, mean = highest_window(block(slice(top, top + 8), slice(left, left + 8)), size=8)
    assert window == Window(top, left, 8)
    assert mean == pytest.approx(10)


def test_step_keeps_windows_on_whole_lr_pixels():
    window, mean = highest_window(block(slice(13, 21), slice(31, 39)), size=8, step=2)
    assert window.top in (12, 14) and window.left in (30, 32)
    assert mean == pytest.approx(10 * (7 / 8) ** 2)


def test_negative_values():
    values = -np.ones((20, 30))
    values[4:8, 10:14] = -0.5
    window, mean = highest_window(values, 4)
    assert window == Window(4, 10, 4)
    assert mean == pytest.approx(-0.5)


def test_squared_error_does_not_wrap_around():
    """In uint8, 5 - 10 would be 251."""
    image, reference = np.full((2, 3, 3), 5, np.uint8), np.full((2, 3, 3), 10, np.uint8)
    image[0, 0] = (10, 10, 13)
    expected = np.full((2, 3), 25.0)
    expected[0, 0] = 3
    assert np.array_equal(squared_error(image, reference), expected)
    assert np.array_equal(squared_error(reference, image), expected)


def test_a_window_of_hr_and_lr_image():
    high = np.arange(40 * 60).reshape(40, 60)
    window = Window(12, 30, 8)
    assert np.array_equal(window.of(high), high[12:20, 30:38])
    assert np.array_equal(window.of(high[::2, ::2], 2), high[12:20:2, 30:38:2])


def test_bad_arguments():
    image = np.zeros((16, 16, 3), np.uint8)
    with pytest.raises(ValueError, match='of one shape'):
        squared_error(image, image[:8])
    for size, step in ((17, 1), (9, 2), (0, 1)):
        with pytest.raises(ValueError, match='do not fit'):
            highest_window(image[..., 0], size, step)
