"""torchvision's compiled operators where they cannot load.

Upstream: a CPU build of torch beside a torchvision that was compiled for CUDA: ``import torchvision`` fails with "operator
torchvision::nms does not exist", since torchvision registers shape functions for operators that its compiled part would
have defined. Delete this file when CPU builds of torchvision can be had wherever CPU builds of torch can.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_OPERATORS = ('torchvision::nms', 'torchvision::qnms')  # those without which torchvision cannot be imported

_declared = {}  # name -> torch.library.Library; it withdraws its definitions when it is collected


def apply() -> None:
    """Imports torchvision; an operator that is missing at the moment when it is described is declared.

    An operator that the compiled part defines must not be declared too: that aborts the process. torchvision loads what it
    can, whatever its files are called, before it describes operators, since torch describes none that is missing. Archs
    that call the operators (EDVR, IconVSR) stay unusable where they are only declared.
    """
    import torch

    register_fake = torch.library.register_fake

    def declare_and_register(op: Any, *arguments: Any, **named: Any) -> Callable:
        if op in _OPERATORS and not hasattr(torch.ops.torchvision, op.partition('::')[2]):
            _declared[op] = torch.library.Library('torchvision', 'FRAGMENT')
            _declared[op].define(op.partition('::')[2] + _SCHEMA)
        return register_fake(op, *arguments, **named)

    torch.library.register_fake = declare_and_register
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register_fake
