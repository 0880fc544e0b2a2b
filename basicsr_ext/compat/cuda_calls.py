"""Unconditional ``.cuda()`` calls on a CPU run.

Upstream: ``basicsr/models/realesrgan_model.py`` and ``realesrnet_model.py`` move their JPEG and sharpening modules and
their queues with ``.cuda()``, whatever ``num_gpu`` says. Delete this file when they use ``self.device``.

The real call cannot be tried first, as in the other mends: where there is a GPU it succeeds, and takes a tensor of a run on
the CPU away to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignored() -> Iterator[None]:
    """Makes ``Tensor.cuda()`` and ``Module.cuda()`` return their object where it is, until the context ends."""
    import torch

    originals = torch.Tensor.cuda, torch.nn.Module.cuda
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *args, **kwargs: self
    try:
        yield
    finally:
        torch.Tensor.cuda, torch.nn.Module.cuda = originals
