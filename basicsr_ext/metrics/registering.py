"""How metrics get into BasicSR's registry."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal

from basicsr.utils.registry import METRIC_REGISTRY


def metric(better: Literal['higher', 'lower'], check_ready: Callable[..., None]) -> Callable[[Callable], Callable]:
    """Registers a function as a metric.

    BasicSR gives it all options of its block, with ``better``, which only the record of the best iteration reads.

    Args:
        better: Which values are better; found as ``better`` of the metric.
        check_ready: Takes the other options before a run, and raises a UserError where they are wrong, or the metric cannot
            be computed; found as ``check_ready`` of the metric.
    """

    def register(function: Callable[..., float]) -> Callable[..., float]:
        @wraps(function)
        def measure(*arguments: Any, better: str | None = None, **named: Any) -> float:
            return function(*arguments, **named)

        measure.better, measure.check_ready = better, check_ready
        return METRIC_REGISTRY.register()(measure)

    return register
