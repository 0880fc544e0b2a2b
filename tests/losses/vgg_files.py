"""Random weights of VGG-19 in a file, so that nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from torchvision.models import vgg19


def write_vgg(path: Path, seed: int = 0) -> Path:
    """Writes the convolutions of a VGG-19 with He-initialised weights."""
    torch.manual_seed(seed)
    with torch.device('meta'):
        state = {key: value for key, value in vgg19(weights=None).state_dict().items() if key.startswith('features.')}
    for key, value in state.items():
        if key.endswith('weight'):
            state[key] = torch.randn(value.shape) * (2 / (value.shape[1] * 9)) ** 0.5
        else:
            state[key] = torch.zeros(value.shape)
    torch.save(state, path)
    return path
