"""How metrics get into BasicSR's registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

import torch
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.functional.precision import exact_float32


def metric(better: Literal['higher', 'lower'], check_ready: Callable[..., None]) -> Callable[[Callable], Callable]:
    """Registers a function as a metric.

    BasicSR gives it all options of its block, with ``better``, which only the record of the best iteration reads. It computes
    in float32 or float64, without TF32, whatever the precision of a training is.

    Args:
        better: Which values are better; found as ``better`` of the metric.
        check_ready: Takes the other options before a run, and raises a UserError where they are wrong, or the metric cannot
            be computed; found as ``check_ready`` of the metric.
    """

    def register(function: Callable[..., float]) -> Callable[..., float]:
        @wraps(function)
        def measure(*arguments: Any, better: str | None = None, **named: Any) -> float:
            with exact_float32('cuda' if torch.cuda.is_available() else 'cpu'):
                return function(*arguments, **named)

        measure.better, measure.check_ready = better, check_ready
        return METRIC_REGISTRY.register()(measure)

    return register
