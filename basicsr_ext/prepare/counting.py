"""Numbers in sentences."""

from __future__ import annotations


def pluralize(count: int, noun: str) -> str:
    """A number of things: ``1 image``, ``2 images``, ``2 batches``."""
    ending = '' if count == 1 else 'es' if noun.endswith('ch') else 's'
    return f'{count} {noun}{ending}'
