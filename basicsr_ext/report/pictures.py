"""Pictures for papers and pages, drawn without a screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from basicsr_ext.report.curves import Curve

_DPI = 100
_COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9')  # told apart by colour-blind readers too
_PANEL, _GAP = 240, 12
_PLOT_WIDTH, _PLOT_LEFT = 420, 62
_TOP, _BOTTOM = 58, 66


class Panel(NamedTuple):
    """An image and what stands above it.

    Attributes:
        title: One or two lines.
        image: uint8 RGB (height, width, 3), square; enlarged without smoothing.
    """

    title: str
    image: np.ndarray


def draw_comparison(
    path: str | Path,
    curves: Mapping[str, Curve],
    panels: Sequence[Panel],
    *,
    quantity: str,
    level: tuple[str, float] | None = None,
    caption: str = '',
) -> None:
    """Draws validation curves, and crops side by side at their right.

    Args:
        path: PNG to write.
        curves: Name of a run -> its validation curve.
        panels: Crops, from left to right.
        quantity: What the curves show, with its unit.
        level: Name and value of a method that is not trained, as a horizontal line.
        caption: Stands below the panels.
    """
    first = _PLOT_LEFT + _PLOT_WIDTH + 3 * _GAP
    width, height = first + len(panels) * (_PANEL + _GAP), _TOP + _PANEL + _BOTTOM
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)

    def axes_at(left: int, columns: int) -> Axes:
        return figure.add_axes((left / width, _BOTTOM / height, columns / width, _PANEL / height))

    draw_curves(axes_at(_PLOT_LEFT, _PLOT_WIDTH), curves, quantity, level)
    for position, panel in enumerate(panels):
        axes = axes_at(first + position * (_PANEL + _GAP), _PANEL)
        axes.imshow(panel.image, interpolation='nearest', aspect='auto')
        axes.set_axis_off()
        axes.set_title(panel.title, fontsize=11)
    figure.text(first / width, (_BOTTOM - 16) / height, caption, fontsize=9.5, va='top')
    figure.savefig(path, dpi=_DPI)


def draw_curves(axes: Axes, curves: Mapping[str, Curve], quantity: str, level: tuple[str, float] | None = None) -> None:
    """Draws curves over iterations.

    A first validation, after a few iterations, is often so low that nothing could be told apart above it: the axis shows
    the upper half of the points whole, and what lies far below them leaves it.

    Args:
        axes: Where to draw.
        curves: Name of a run -> its curve.
        quantity: Title of the plot, with its unit.
        level: Name and value of a horizontal line.
    """
    for (name, curve), colour in zip(curves.items(), cycle(_COLOURS), strict=False):
        axes.plot(curve.iterations, curve.values, marker='o', markersize=3.5, color=colour, label=name)
    if level is not None:
        axes.axhline(level[1], color='0.45', linestyle='--', linewidth=1.2)
        axes.annotate(
            level[0],
            (1, level[1]),
            xycoords=('axes fraction', 'data'),
            xytext=(-4, 3),
            textcoords='offset points',
            color='0.35',
            fontsize=9,
            ha='right',
        )
    axes.set_ylim(*_value_range([value for curve in curves.values() for value in curve.values], level))
    axes.set_xlabel('iteration')
    axes.set_title(quantity, fontsize=11, loc='left')
    axes.grid(color='0.9')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(loc='center right', frameon=False)


def draw_bands(axes: Axes, curves: Mapping[str, Sequence[Curve]], quantity: str) -> None:
    """Draws the mean over seeds of each method, and a band from the lowest to the highest seed.

    The axis is chosen as in :func:`draw_curves`.

    Args:
        axes: Where to draw.
        curves: Name of a method -> a curve for each seed, over the same iterations.
        quantity: Title of the plot, with its unit.

    Raises:
        ValueError: A method has no curve, or its curves are over different iterations.
    """
    shown: list[float] = []
    for (name, seeds), colour in zip(curves.items(), cycle(_COLOURS), strict=False):
        if not seeds or any(curve.iterations != seeds[0].iterations for curve in seeds):
            raise ValueError(f'{name}: expected curves over the same iterations, found {len(seeds)}.')
        values = np.array([curve.values for curve in seeds])
        axes.fill_between(seeds[0].iterations, values.min(0), values.max(0), color=colour, alpha=0.2, linewidth=0)
        axes.plot(seeds[0].iterations, values.mean(0), color=colour, linewidth=1.4, label=name)
        shown += values.mean(0).tolist()
    axes.set_ylim(*_value_range(shown, None))
    axes.set_xlabel('iteration')
    axes.set_title(quantity, fontsize=11, loc='left')
    axes.grid(color='0.9')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, fontsize=8)


def _value_range(values: Sequence[float], level: tuple[str, float] | None) -> tuple[float, float]:
    """Lower and upper end of the axis: highest value to as far below the median as that is below the highest."""
    shown = [*values, level[1]] if level is not None else list(values)
    highest, median = max(shown), float(np.median(values))
    lowest = max(min(shown), median - 1.5 * (highest - median))
    if level is not None:
        lowest = min(lowest, level[1])
    margin = 0.06 * (highest - lowest) or 1.0
    return lowest - margin, highest + margin
