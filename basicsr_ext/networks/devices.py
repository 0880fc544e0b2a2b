"""Devices by name, and what goes to them."""

from __future__ import annotations

from typing import Any

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


def is_for_device(value: Any) -> bool:
    """Whether a part of a batch is computed with on the device: tensors, but for int64, such as where a crop was taken.

    Those are read by Python, which would have to wait until the device had sent them back.
    """
    return isinstance(value, torch.Tensor) and value.dtype != torch.int64


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copies a tensor from this machine's memory to a device without waiting for what the device has still to do."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == 'cuda' else tensor.to(device)
