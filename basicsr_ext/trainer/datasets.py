"""Makes datasets as BasicSR does, and says which one could not be made of what it found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import basicsr.data

from basicsr_ext.errors import UserError
from basicsr_ext.trainer.checking.problems import brief


def build_dataset(options: Mapping[str, Any]) -> Any:
    """Builds a registered dataset.

    Args:
        options: Its block, with ``name``, ``type`` and ``phase``.

    Raises:
        UserError: It cannot be made of its files; the check before a run opens small folders only.
    """
    try:
        return basicsr.data.build_dataset(options)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # BasicSR's datasets assert what they expect of folders
        raise UserError(f'Dataset {options["name"]}: {not_made(options["type"], error)}') from error


def not_made(dataset: str, error: Exception) -> str:
    """Says that a dataset's class failed on its files."""
    return f'{dataset} cannot be made from these files ({brief(error) or type(error).__name__}).'
