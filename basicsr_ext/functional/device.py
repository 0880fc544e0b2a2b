"""From the name of a device to a device that is there."""

from __future__ import annotations

import torch

from basicsr_ext.errors import UserError


def resolve_device(name: str) -> torch.device:
    """Turns ``auto`` (this process's GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1`` into a device that is there.

    Raises:
        UserError: The name is not one of a device, or there is no such device.
    """
    if name == 'auto':
        return torch.device('cuda', torch.cuda.current_device()) if torch.cuda.is_available() else torch.device('cpu')
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f'device: expected auto, cpu or a CUDA device that is present, found {name!r} ({reason}).'
        ) from None
    return device
