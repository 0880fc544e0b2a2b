"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pytest

os.environ.setdefault('OMP_NUM_THREADS', '1')
cv2.setNumThreads(1)
if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # as in a shell's background jobs; processes under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg', 'motorcycle_left.png')


def _folder(variable: str, default: Path | None, what: str) -> Path:
    value = os.environ.get(variable)
    folder = Path(value) if value else default
    if folder is None or not folder.is_dir():
        pytest.skip(f'{what} not found: set {variable} to the folder that holds it')
    return folder


@pytest.fixture(scope='session', autouse=True)
def nothing_is_downloaded():
    """Weights that are not on this machine are missing at once, as without a network, instead of after a time-out."""
    import torch

    def refuse(url: str, *_: object, **__: object) -> None:
        raise URLError(f'tests download nothing, and {url} was asked for')

    patch = pytest.MonkeyPatch()
    patch.setattr(torch.hub, 'download_url_to_file', refuse)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _logs_of_one_test():
    """BasicSR's log writes to the stream of the test that opened it, which is closed in the next one."""
    yield
    logging.getLogger('basicsr').handlers.clear()
    loggers = getattr(sys.modules.get('basicsr.utils.logger'), 'initialized_logger', {})
    loggers.clear()


@pytest.fixture(scope='session')
def bench_dir() -> Path:
    """Folder of real images and weights; the test is skipped where it is missing."""
    return _folder('BASICSR_EXT_BENCH_DIR', None, 'bench data')


@pytest.fixture(scope='session')
def golden_dir() -> Path:
    """Folder of numbers computed with the published implementations."""
    return _folder('BASICSR_EXT_GOLDEN_DIR', Path(__file__).parent / 'golden', 'golden numbers')


@pytest.fixture(scope='session')
def photos() -> dict[str, np.ndarray]:
    """Photographs that scikit-image carries, name without extension -> uint8 RGB array (height, width, 3)."""
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return {
        Path(name).stem: cv2.cvtColor(cv2.imread(str(folder / name), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        for name in PHOTOGRAPHS
    }
