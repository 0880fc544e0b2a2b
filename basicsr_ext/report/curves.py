"""Curves that a run wrote for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from basicsr_ext.errors import UserError


class Curve(NamedTuple):
    """A value over training.

    Attributes:
        iterations: Ascending, counted from 1.
        values: One for each iteration.
    """

    iterations: tuple[int, ...]
    values: tuple[float, ...]


def read_scalars(folder: str | Path, tag: str) -> Curve:
    """Reads one curve from a run's TensorBoard folder.

    Where several values were written for one iteration, as by a run that was stopped and resumed, the last one counts.

    Args:
        folder: Such as ``tb_logger/train_ECO_EDSR_x2``; its event files are read together.
        tag: Such as ``metrics/DIV2K_valid/psnr`` or ``losses/l_pix``.

    Raises:
        UserError: The folder holds no event files, or no curve of that name.
    """
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    folder = Path(folder)
    if not any(folder.glob('*tfevents*')):
        raise UserError(
            f'{folder}: expected event files of TensorBoard, found none. Train with logger.use_tb_logger: true, and name '
            'the folder of the run in tb_logger.'
        )
    events = EventAccumulator(str(folder), size_guidance={SCALARS: 0})  # 0: all of them, not a random sample
    events.Reload()
    known = events.Tags()[SCALARS]
    if tag not in known:
        raise UserError(f'{folder}: expected a curve "{tag}", found {", ".join(sorted(known)) or "none"}.')
    points = {
        event.step: float(event.value) for event in sorted(events.Scalars(tag), key=lambda event: event.wall_time)
    }
    iterations = sorted(points)
    return Curve(tuple(iterations), tuple(points[iteration] for iteration in iterations))
