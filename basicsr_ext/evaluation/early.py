"""What the command line names, as far as it can be checked before torch is imported, which takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

from basicsr_ext.errors import UserError


def check_weights_exist(path: str | os.PathLike) -> None:
    """Checks that there is something where a file of weights is to be.

    Raises:
        UserError: There is nothing.
    """
    if not Path(path).exists():
        raise UserError(f'Weights: expected a file at {path}, found none.')
