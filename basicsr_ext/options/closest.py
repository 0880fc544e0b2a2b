"""Which known name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

_COMPARED = 80  # characters


def closest_names(name: Any, known: Iterable[Any], count: int = 3) -> list[str]:
    """Returns the known names that are close to what was written, the closest first; often none.

    Upper and lower case are alike. Names with the same letters in another order come first, and where nothing is close, one
    that contains what was written.

    Args:
        name: What was written.
        known: What could have been written.
        count: How many to return at most.
    """
    text = str(name).lower()[:_COMPARED]
    lower = {key.lower(): key for key in sorted({str(key) for key in known}, key=str.lower)}
    close = difflib.get_close_matches(text, lower, n=max(count, 5))
    if not close and len(text) > 1:
        close = sorted((key for key in lower if text in key), key=len)[:1]
    close.sort(key=lambda key: sorted(key) != sorted(text))  # two letters the wrong way round
    return [lower[key] for key in close[:count]]


def closest_name(name: Any, known: Iterable[Any]) -> str | None:
    """Returns the closest of :func:`closest_names`, if there is one."""
    return next(iter(closest_names(name, known, 1)), None)
