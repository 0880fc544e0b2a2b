"""PSPL's weighted loss: this package against the plain form, forward and backward, one thread.

    python bench/pspl.py [--quick]

The plain form computes the SSIM map as it is usually published, by five convolutions with a window of 11x11, then the
attention, then torch's L1 loss of the weighted images. Both sides take the same 16 x 3 x 192 x 192 images, in turns, and
must agree; a figure is the ratio of the median times. The plain form keeps no graph of the map either. Printed besides:
mean and largest errors against float64, for the paper's constants and the published ones, where ours may not be larger;
and that bf16 autocast changes nothing. With a GPU the same is measured there. The last lines read
``<figure> <ratio>x (goal <goal>x)``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from common.memory import keep_freed_memory

from basicsr_ext.functional.self_paced import self_paced_loss
from basicsr_ext.functional.ssim_map import SSIMSettings, gaussian_window, ssim_map

SHAPE = (16, 3, 192, 192)
DELTA = 1.0  # that of iteration 1000
GOAL = 4
# With data_range 1/255, images of [0, 1] have the constants of the published code, and float32 cancels most.
DATA_RANGES = {'the paper': 1.0, 'the published constants': 1 / 255}
TOLERANCE = 1e-3  # of the losses: float32's cancellation in the plain form


def plain_map(x: Tensor, y: Tensor, settings: SSIMSettings) -> Tensor:
    """The SSIM map by five convolutions."""
    window = gaussian_window(settings.window_size, settings.sigma)
    kernel = torch.outer(window, window).to(x).expand(x.shape[1], 1, -1, -1).contiguous()

    def blur(image: Tensor) -> Tensor:
        return functional.conv2d(image, kernel, padding=settings.window_size // 2, groups=x.shape[1])

    mean_x, mean_y = blur(x), blur(y)
    mean_xx, mean_yy, mean_xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
    var_x, var_y, cov = blur(x * x) - mean_xx, blur(y * y) - mean_yy, blur(x * y) - mean_xy
    return ((2 * mean_xy + settings.c1) * (2 * cov + settings.c2)) / (
        (mean_xx + mean_yy + settings.c1) * (var_x + var_y + settings.c2)
    )


def plain_loss(sr: Tensor, hr: Tensor, settings: SSIMSettings) -> Tensor:
    """The weighted loss, one step after another."""
    with torch.no_grad():
        attention = 2 * torch.exp(-(((plain_map(sr, hr, settings) + 1) / DELTA) ** 2))
    return functional.l1_loss(attention * sr, attention * hr)


def our_loss(sr: Tensor, hr: Tensor, settings: SSIMSettings) -> Tensor:
    return self_paced_loss(sr, hr, DELTA, settings=settings).mean()


def step(loss: Callable, sr: Tensor, hr: Tensor, settings: SSIMSettings) -> tuple[Tensor, Tensor]:
    """One forward and backward: the loss and its gradient."""
    sr = sr.detach().requires_grad_()
    value = loss(sr, hr, settings)
    value.backward()
    return value.detach(), sr.grad


def images(device: torch.device, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    """Smooth random fields with edges and flat parts, and what a network might make of them."""
    generator = torch.manual_seed(seed)
    count, channels, height, width = shape
    coarse = torch.rand(count, channels, height // 8, width // 8, generator=generator)
    blocks = torch.rand(count, channels, height // 16, width // 16, generator=generator) > 0.7
    hr = functional.interpolate(coarse, size=(height, width), mode='bicubic')
    hr = (hr + 0.3 * functional.interpolate(blocks.float(), size=(height, width))).clamp(0, 1)
    sr = functional.avg_pool2d(hr, 3, 1, 1) + 0.005 * torch.randn(shape, generator=generator)
    return sr.clamp(0, 1).to(device), hr.to(device)


def errors(sr: Tensor, hr: Tensor, settings: SSIMSettings) -> dict[str, dict[str, float]]:
    """How far both sides are from float64: side -> which error -> its size; of the gradient relative to its largest value.

    Raises:
        SystemExit: A loss is so far from float64 that it cannot be the same work.
    """
    exact_map = plain_map(sr.double(), hr.double(), settings)
    exact_loss, exact_gradient = step(plain_loss, sr.double(), hr.double(), settings)
    result = {}
    for side, loss, similarity in (
        ('plain', plain_loss, plain_map(sr, hr, settings)),
        ('this package', our_loss, ssim_map(sr, hr, settings)),
    ):
        value, gradient = step(loss, sr, hr, settings)
        if abs(value.item() / exact_loss.item() - 1) > TOLERANCE:
            raise SystemExit(
                f'{side}: the loss is {value.item()}, and {exact_loss.item()} in float64: not the same work'
            )
        of_map = (similarity - exact_map).abs()
        of_gradient = (gradient - exact_gradient).abs() / exact_gradient.abs().max()
        result[side] = {
            'map, mean': of_map.mean().item(),
            'map, largest': of_map.max().item(),
            'gradient, mean': of_gradient.mean().item(),
            'gradient, largest': of_gradient.max().item(),
        }
    return result


def report_errors(sr: Tensor, hr: Tensor) -> None:
    """Prints how far both sides are from float64.

    Raises:
        SystemExit: An error of ours is larger than that of the plain form, or autocast changes ours.
    """
    for name, data_range in DATA_RANGES.items():
        settings = SSIMSettings(data_range)
        found = errors(sr, hr, settings)
        for side, values in found.items():
            print(f'{name}, {side}: errors of the ' + '; '.join(f'{key} {value:.1e}' for key, value in values.items()))
        if any(found['this package'][key] > value for key, value in found['plain'].items()):
            raise SystemExit('this package is not nearer to float64 than the plain form')
        _, gradient = step(our_loss, sr, hr, settings)
        with torch.autocast(sr.device.type, dtype=torch.bfloat16):
            _, in_autocast = step(our_loss, sr, hr, settings)
        if not torch.equal(in_autocast, gradient):
            raise SystemExit('this package: bf16 autocast changes the gradient')
    print('this package: the same numbers inside bf16 autocast')


def seconds(loss: Callable, sr: Tensor, hr: Tensor) -> float:
    start = time.perf_counter()
    step(loss, sr, hr, SSIMSettings())
    if sr.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def measure(device: torch.device, repeats: int) -> float:
    """Prints errors and median times; returns their ratio."""
    sr, hr = images(device)
    report_errors(sr, hr)
    times = [(seconds(plain_loss, sr, hr), seconds(our_loss, sr, hr)) for _ in range(repeats)]
    plain, ours = (statistics.median(side) for side in zip(*times, strict=True))
    print(f'{device.type}: plain {plain * 1e3:.1f} ms, this package {ours * 1e3:.1f} ms')
    return plain / ours


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--quick', action='store_true', help='three repeats, for a smoke test')
    repeats = 3 if parser.parse_args().quick else 15

    torch.set_num_threads(1)
    keep_freed_memory()
    lines = []
    if torch.cuda.is_available():
        lines.append(f'pspl_loss_gpu {measure(torch.device("cuda"), 10 * repeats):.1f}x (no goal yet)')
    lines.append(f'pspl_loss {measure(torch.device("cpu"), repeats):.1f}x (goal {GOAL}x)')
    print('\n'.join(lines))


if __name__ == '__main__':
    main()
