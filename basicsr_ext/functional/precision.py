"""Precision of a network's forward pass, by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from basicsr_ext.errors import UserError

PRECISIONS = ('fp32', 'bf16', 'fp16')
_DTYPES = {'bf16': torch.bfloat16, 'fp16': torch.float16}


def overflow_hint(precision: str) -> str:
    """What to change where a network's output is not finite.

    Args:
        precision: In which it ran.
    """
    if precision == 'fp32':
        return 'Its weights do not suit these images, or have diverged in training: choose others'
    return f'It ran in {precision}: choose the precision fp32, or other weights'


def autocast(device: torch.device | str, precision: str, cached: bool = True) -> AbstractContextManager:
    """Context in which a network computes in the named precision.

    Args:
        device: Where the network runs, such as ``cuda:0``.
        precision: ``fp32`` changes nothing; ``bf16`` and ``fp16`` are torch's automatic mixed precision.
        cached: Whether weights that were cast are kept until the context ends.

    Raises:
        UserError: The name is not one of :data:`PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise UserError(f'precision: expected one of {", ".join(PRECISIONS)}, found {precision!r}.')
    if precision == 'fp32':
        return nullcontext()
    return torch.autocast(torch.device(device).type, dtype=_DTYPES[precision], cache_enabled=cached)


def without_autocast(device: torch.device | str) -> AbstractContextManager:
    """Context in which tensors keep their type, inside :func:`autocast` too.

    Args:
        device: Where the tensors are. One that knows no mixed precision, such as ``meta``, needs no context.
    """
    kind = torch.device(device).type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()


@contextmanager
def exact_float32(device: torch.device | str) -> Iterator[None]:
    """Context in which float32 is computed as such: without autocast, TF32 or bfloat16, whatever the run allows.

    For what is stored, compared with other values, or reported.

    Args:
        device: Where the tensors are.
    """
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision('highest')
    torch.backends.cudnn.allow_tf32 = False
    try:
        with without_autocast(device):
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
