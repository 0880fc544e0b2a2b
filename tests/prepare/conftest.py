"""Small sets of images, a small teacher, and the command line as a user would type it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

NETWORK = {'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, 'num_block': 1, 'upscale': 2}


def write_folder(folder: Path, images: dict[str, np.ndarray]) -> Path:
    """Writes RGB arrays as PNGs."""
    folder.mkdir(parents=True)
    for name, image in images.items():
        cv2.imwrite(str(folder / f'{name}.png'), np.ascontiguousarray(image[:, :, ::-1]))
    return folder


@pytest.fixture
def folder_of() -> Callable[[Path, dict[str, np.ndarray]], Path]:
    """A function that writes named RGB arrays into a new folder of PNGs."""
    return write_folder


@pytest.fixture
def prepare() -> Callable[..., None]:
    """Runs ``basicsr prepare`` with the given arguments."""
    from basicsr_ext.cli.prepare import add_arguments

    def run(*arguments: Any) -> None:
        parser = argparse.ArgumentParser(prog='basicsr prepare')
        add_arguments(parser)
        parsed = parser.parse_args([str(argument) for argument in arguments])
        parsed.run(parsed)

    return run


@pytest.fixture(scope='session')
def crops(photos) -> dict[str, np.ndarray]:
    """Four crops of photographs; the first and the third have one size."""
    return {
        'astronaut': photos['astronaut'][40:64, 200:232],
        'chelsea': photos['chelsea'][80:101, 120:147],
        'coffee': photos['coffee'][100:124, 60:92],
        'rocket': photos['rocket'][50:64, 300:319],
    }


@pytest.fixture
def lq_folder(tmp_path, crops) -> Path:
    """The crops as a folder of LR images."""
    return write_folder(tmp_path / 'LR', crops)


@pytest.fixture(scope='session')
def network_option() -> dict[str, Any]:
    """Option of the small teacher."""
    return dict(NETWORK)


@pytest.fixture(scope='session')
def teacher():
    """A small EDSR with random weights, made livelier than its initialization."""
    import torch

    import basicsr_ext

    basicsr_ext.register()
    from basicsr.archs.edsr_arch import EDSR

    torch.manual_seed(1)
    network = EDSR(**{key: value for key, value in NETWORK.items() if key != 'type'})
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.5)
    return network.eval().requires_grad_(False)


@pytest.fixture
def weights(tmp_path, teacher) -> Path:
    """The teacher's weights as BasicSR saves them; ``params`` holds zeros, ``params_ema`` the true ones."""
    import torch

    state = teacher.state_dict()
    path = tmp_path / 'teacher.pth'
    torch.save({'params': {key: torch.zeros_like(value) for key, value in state.items()}, 'params_ema': state}, path)
    return path
