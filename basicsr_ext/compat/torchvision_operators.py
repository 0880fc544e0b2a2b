"""torchvision's compiled operators where they cannot load.

Upstream: a CPU build of torch beside a torchvision that was compiled for CUDA: ``import torchvision`` fails with "operator
torchvision::nms does not exist", since torchvision registers shape functions for operators that its compiled part would
have defined. Delete this file when CPU builds of torchvision can be had wherever CPU builds of torch can.
"""

from __future__ import annotations

import importlib
import re
import sys

_MISSING = re.compile(r'operator torchvision::(\w+) does not exist')
_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_OPERATORS = ('nms', 'qnms')  # those without which torchvision cannot be imported

_declared = {}  # name -> torch.library.Library; it withdraws its definitions when it is collected


def apply() -> None:
    """Imports torchvision, and declares the operators that it misses while it is imported.

    An operator that the compiled part would define too must not be declared: that aborts the process. So torchvision loads
    what it can first, whatever its files are called. Archs that call the operators (EDVR, IconVSR) stay unusable where they
    are only declared.
    """
    while True:
        try:
            importlib.import_module('torchvision')
            return
        except RuntimeError as error:
            missing = _MISSING.search(str(error))
            if missing is None or missing[1] not in _OPERATORS or missing[1] in _declared:
                raise
            _declare(missing[1])


def _declare(name: str) -> None:
    """Declares an operator, and forgets what was imported of torchvision, so that all of it is imported anew."""
    import torch

    library = torch.library.Library('torchvision', 'FRAGMENT')
    library.define(name + _SCHEMA)
    _declared[name] = library
    for module in [module for module in sys.modules if module.partition('.')[0] == 'torchvision']:
        del sys.modules[module]
