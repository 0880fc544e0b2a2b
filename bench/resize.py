"""MATLAB's bicubic: this package against BasicSR's ``imresize``, one thread.

    python bench/resize.py [--quick]

Both sides resize the same float32 tensor (channel, height, width), in turns, and must agree; a figure is the ratio of
the median times. Ours keeps its weights from call to call, as in use. The last lines read
``<figure> <ratio>x (goal <goal>x)``.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.memory import keep_freed_memory

from basicsr_ext.functional.resize import imresize

# figure: (height, width) of the input, scale, goal
FIGURES = {
    'resize_x4_480': ((480, 480), 0.25, 8),
    'resize_x2_480': ((480, 480), 0.5, 8),
    'resize_up_x2_240': ((240, 240), 2, 8),
    'resize_x4_2040': ((1356, 2040), 0.25, 3.5),
    'resize_x2_2040': ((1356, 2040), 0.5, 3.5),
    'resize_up_x2_1020': ((678, 1020), 2, 3.5),
}
# BasicSR computes the weights in float32, whose error grows with the coordinate: the two sides differ by up to 1e-3.
TOLERANCE = 5e-3


def basicsr_imresize() -> Callable[[torch.Tensor, float], torch.Tensor]:
    """BasicSR's function, loaded from its one file: the whole package takes seconds and an older torchvision."""
    package = importlib.util.find_spec('basicsr')
    path = Path(package.submodule_search_locations[0]) / 'utils' / 'matlab_functions.py'
    spec = importlib.util.spec_from_file_location('basicsr_matlab_functions', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.imresize


def seconds(function: Callable, *arguments: object) -> float:
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def measure(size: tuple[int, int], scale: float, repeats: int, theirs: Callable) -> tuple[float, float]:
    """Median seconds of both sides, ours first, after one call of each that compares the results."""
    image = torch.rand(3, *size, generator=torch.manual_seed(0))
    difference = (imresize(image, scale) - theirs(image, scale)).abs().max().item()
    if difference > TOLERANCE:
        raise SystemExit(f'the two sides differ by {difference:.1e} on {size} at scale {scale}: not the same work')
    times = [(seconds(imresize, image, scale), seconds(theirs, image, scale)) for _ in range(repeats)]
    ours, theirs_seconds = zip(*times, strict=True)
    return statistics.median(ours), statistics.median(theirs_seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--quick', action='store_true', help='three repeats, for a smoke test')
    repeats = 3 if parser.parse_args().quick else 9

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    theirs = basicsr_imresize()
    lines = []
    for figure, (size, scale, goal) in FIGURES.items():
        ours_seconds, theirs_seconds = measure(size, scale, repeats, theirs)
        print(f'{figure}: BasicSR {theirs_seconds * 1e3:.1f} ms, this package {ours_seconds * 1e3:.1f} ms')
        lines.append(f'{figure} {theirs_seconds / ours_seconds:.1f}x (goal {goal}x)')
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
