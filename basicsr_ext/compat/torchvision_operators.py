"""torchvision's compiled operators where they cannot load.

Upstream: a CPU build of torch beside a torchvision that was compiled for CUDA: ``import torchvision`` fails with "operator
torchvision::nms does not exist", since torchvision registers shape functions for operators that its compiled part would
have defined. Delete this file when CPU builds of torchvision can be had wherever CPU builds of torch can.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

_SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
_library = None  # a torch.library.Library withdraws its definitions when it is collected


def apply() -> None:
    """Loads torchvision's operators, or declares the two without which torchvision cannot be imported.

    Declaring them where the compiled part does load would abort the process, so loading is always tried first. Archs that
    call the operators (EDVR, IconVSR) stay unusable where they are only declared.
    """
    global _library
    if _library is not None:
        return
    import torch

    if not _compiled_operators_load(torch):
        library = torch.library.Library('torchvision', 'FRAGMENT')
        for name in ('nms', 'qnms'):
            if not hasattr(torch.ops.torchvision, name):
                library.define(name + _SCHEMA)
        _library = library


def _compiled_operators_load(torch) -> bool:
    spec = importlib.util.find_spec('torchvision')  # finds the package without importing it
    if spec is None or not spec.submodule_search_locations:
        return True  # not installed at all: importing it will say so
    for folder in spec.submodule_search_locations:
        for suffix in importlib.machinery.EXTENSION_SUFFIXES:
            for path in (Path(folder) / f'_C{suffix}', Path(folder) / '_C.so', Path(folder) / '_C.pyd'):
                if path.is_file():
                    try:
                        torch.ops.load_library(str(path))
                    except OSError:
                        return False
                    return True
    return False
