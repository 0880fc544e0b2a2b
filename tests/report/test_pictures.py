import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from basicsr_ext.report.curves import Curve
from basicsr_ext.report.pictures import Panel, draw_bands, draw_comparison, draw_curves

RED, BLUE = (200, 20, 30), (10, 40, 220)


def checkers(size=4):
    """A square image whose pixels are red and blue in turns."""
    red = np.indices((size, size)).sum(0) % 2 == 0
    return np.where(red[..., None], np.uint8(RED), np.uint8(BLUE))


def count(picture, colour):
    return int((picture == np.uint8(colour)).all(axis=2).sum())


def test_panels_are_enlarged_without_smoothing(tmp_path):
    curves = {'vanilla': Curve((1, 2), (30.0, 31.0)), 'ECO': Curve((1, 2), (29.0, 31.5))}
    panels = [Panel('first', checkers()), Panel('second', checkers(8)), Panel('third', checkers(60))]
    draw_comparison(tmp_path / 'p.png', curves, panels, quantity='PSNR (dB)', level=('bicubic', 30.5), caption='text')
    picture = cv2.cvtColor(cv2.imread(str(tmp_path / 'p.png')), cv2.COLOR_BGR2RGB)
    half = 240 * 240 // 2
    # The first and last rows and columns of a panel may fall between two pixels of the picture.
    assert count(picture, RED) == pytest.approx(3 * half, rel=0.03)
    assert count(picture, BLUE) == pytest.approx(3 * half, rel=0.03)
    # red and blue halves mixed would be purple, far from every other colour of the picture
    mixed = (np.float64(RED) + np.float64(BLUE)) / 2
    assert np.abs(picture - mixed).max(axis=2).min() > 5


def axes_with(curves, **arguments):
    axes = Figure().add_subplot()
    draw_curves(axes, curves, 'PSNR (dB)', **arguments)
    return axes


def test_curves_are_drawn_and_named():
    axes = axes_with(
        {'vanilla': Curve((5, 10), (30.0, 31.0)), 'ECO': Curve((5, 10), (29.0, 32.0))}, level=('bicubic', 28.0)
    )
    vanilla, eco, level = axes.lines
    assert list(vanilla.get_xdata()) == [5, 10] and list(vanilla.get_ydata()) == [30.0, 31.0]
    assert list(eco.get_ydata()) == [29.0, 32.0]
    assert set(level.get_ydata()) == {28.0}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['vanilla', 'ECO']
    assert 'bicubic' in [text.get_text() for text in axes.texts]
    assert vanilla.get_color() != eco.get_color()


def test_every_curve_is_drawn_however_many():
    assert len(axes_with({str(n): Curve((1,), (float(n),)) for n in range(7)}).lines) == 7


def test_axis_shows_what_counts():
    """The start of training may leave the axis; the level, the best and all later values must not."""
    values = (12.0, 30.0, 31.0, 31.5, 31.8, 32.0)
    low, high = axes_with({'ECO': Curve(tuple(range(6)), values)}, level=('bicubic', 30.5)).get_ylim()
    assert 12 < low < 30.5
    assert high > 32
    low, high = axes_with({'ECO': Curve((1, 2, 3), (12.0, 13.0, 14.0))}, level=('bicubic', 30.5)).get_ylim()
    assert low < 12 and high > 30.5


def test_a_flat_curve_has_an_axis():
    low, high = axes_with({'ECO': Curve((1, 2), (30.0, 30.0))}).get_ylim()
    assert low < 30 < high


def test_bands_reach_from_the_lowest_to_the_highest_seed():
    axes = Figure().add_subplot()
    seeds = [Curve((5, 10), (30.0, 31.0)), Curve((5, 10), (30.4, 31.0)), Curve((5, 10), (29.6, 31.6))]
    draw_bands(axes, {'ECO': seeds, 'plain': seeds[:1]}, 'PSNR (dB)')
    assert axes.lines[0].get_ydata() == pytest.approx([30.0, 31.2])
    corners = axes.collections[0].get_paths()[0].vertices
    for iteration, low, high in ((5, 29.6, 30.4), (10, 31.0, 31.6)):
        heights = corners[corners[:, 0] == iteration, 1]
        assert (heights.min(), heights.max()) == pytest.approx((low, high))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ['ECO', 'plain']


@pytest.mark.parametrize('seeds', [[], [Curve((5,), (30.0,)), Curve((6,), (30.0,))]])
def test_bands_need_curves_over_the_same_iterations(seeds):
    with pytest.raises(ValueError, match='same iterations'):
        draw_bands(Figure().add_subplot(), {'ECO': seeds}, 'PSNR (dB)')
