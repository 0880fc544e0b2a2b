"""Fixed weights that several losses hold."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import nn


def share_fixed_weights(losses: nn.Module) -> None:
    """Lets fixed parameters that are equal use the same memory: several losses may each have read the same VGG.

    Args:
        losses: Modules on their device; parameters without gradient are taken for fixed.
    """
    known: defaultdict[tuple, list[nn.Parameter]] = defaultdict(list)
    for parameter in losses.parameters():
        if parameter.requires_grad:
            continue
        alike = known[parameter.shape, parameter.dtype, parameter.device]
        twin = next((other for other in alike if torch.equal(other, parameter)), None)
        if twin is None:
            alike.append(parameter)
        else:
            parameter.data = twin.data
