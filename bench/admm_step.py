"""An iteration of PD-ADMM with shared forwards against plain loops of three full ones: time, interleaved, and peak memory.

    python bench/admm_step.py [--quick]

Runs on the GPU where there is one, with the published networks, else on one CPU core, with networks about a fifth as deep and
half as wide, so that stage O still costs 1.6 times as much as stage P. The losses are L1: what a discriminator and VGG cost
besides is the same everywhere. All updates in float32 are equal to the bit, which is checked first.

Two plain loops in PyTorch alone, each of which runs both stages before each of the two steps and after them, with gradients:

- ``plain`` holds what the published training loop holds: ``objective, perceptual = network(lq)`` lets go of old images only
  when the new ones are there, in the next iteration too, and with them of the graphs that no backward pass has freed: that of
  the stage that was held fixed, and both after the last forward;
- ``frugal`` lets go of them before each forward: the least that three full forwards need.

``shared`` and ``lean`` are ``train.lfcsr.forwards`` of LFCSRModel; the first is the default.

Memory is what an iteration takes beyond weights, optimizers and gradients at its peak: on the CPU of a forked process (its
largest resident set), on a GPU of torch's allocator.

The last lines are `<figure> <ratio>x (goal <goal>x)`, one a figure: a plain loop over a plan.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import basicsr_ext

basicsr_ext.register()

import torch
from torch import nn
from torch.nn import functional

from basicsr_ext.functional.wavelet import haar_low
from basicsr_ext.models.lfcsr.lfcsr_model import LFCSRModel

CUDA = torch.cuda.is_available()
FAST = {'precision': 'bf16', 'channels_last': True}
LOOPS = ('plain', 'frugal')
PLANS = {'shared': {}, 'lean': {}, 'shared_bf16_channels_last': FAST}
GOALS = {'time_shared_against_plain': 1.10, 'memory_shared_against_plain': 1 / 0.70}


def options(plan: str) -> dict:
    """Options of a model, as BasicSR completes them."""
    stages = {
        'stage_o': {'type': 'HAN', 'num_feat': 64 if CUDA else 32, 'num_block': 20 if CUDA else 4, 'upscale': 4},
        'stage_p': {'type': 'CliqueRefiner', 'num_feat': 32 if CUDA else 16, 'num_block': 15 if CUDA else 4},
    }
    adam = {'type': 'Adam', 'lr': 5e-5}
    return {
        'model_type': 'LFCSRModel', 'num_gpu': int(CUDA), 'dist': False, 'is_train': True, 'rank': 0, 'world_size': 1,
        'manual_seed': 0, 'scale': 4, 'network_g': {'type': 'LFCSR', **stages}, 'path': {},
        'datasets': {'train': {'batch_size_per_gpu': 16}},
        'train': {
            'optim_o': adam, 'optim_p': adam, 'scheduler': {'type': 'MultiStepLR', 'milestones': [10**9]},
            'pixel_opt': {'type': 'L1Loss', 'loss_weight': 255}, 'down_opt': {'type': 'L1Loss', 'loss_weight': 255},
            'grad_clip': {'value': 1e-4}, 'total_iter': 10**9, **PLANS.get(plan, {}),
            'lfcsr': {'forwards': 'full' if plan in LOOPS else plan.partition('_')[0]},
        },
    }  # fmt: skip


class Bench(NamedTuple):
    """Something to measure.

    Attributes:
        step: One iteration.
        forget: Lets go of what an iteration has left.
        state: Weights and s.
    """

    step: Callable[[], None]
    forget: Callable[[], None]
    state: Callable[[], list[torch.Tensor]]


def make(name: str, quick: bool) -> Bench:
    """A loop or a plan: LR 36x36, batch 16 on a GPU; 24x24, batch 2 or 1 on the CPU."""
    torch.manual_seed(0)
    model = LFCSRModel(options(name))
    count, size = (16, 36) if CUDA else (1 if quick else 2, 24)
    generator = torch.Generator().manual_seed(0)
    batch = {
        'lq': torch.rand(count, 3, size, size, generator=generator),
        'gt': torch.rand(count, 3, 4 * size, 4 * size, generator=generator),
    }
    if name in LOOPS:
        return plain_loop(model.net_g, {key: value.to(model.device) for key, value in batch.items()}, name == 'frugal')

    def step() -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)

    return Bench(step, lambda: None, lambda: [*model.net_g.state_dict().values(), model.dual])


def plain_loop(network: nn.Module, batch: dict[str, torch.Tensor], is_frugal: bool) -> Bench:
    """PD-ADMM as one writes it down, with PyTorch alone."""
    stages = {'p': network.stage_p, 'o': network.stage_o}
    optimizers = {name: torch.optim.Adam(stage.parameters(), 5e-5) for name, stage in stages.items()}
    lq, gt = batch['lq'], batch['gt']
    held: dict[str, Any] = {'images': None, 's': 0.0}

    def forward() -> tuple[torch.Tensor, torch.Tensor]:
        objective = network.stage_o(lq)
        return objective, network.stage_p(objective.detach())

    def penalty(objective: torch.Tensor, perceptual: torch.Tensor) -> torch.Tensor:
        return 6.5025 / 2 * (haar_low(perceptual) - haar_low(objective) + held['s']).square().mean()

    def step() -> None:
        for turn in ('p', 'o', 's'):
            if is_frugal:
                held['images'] = None
            held['images'] = forward()
            objective, perceptual = held['images']
            if turn == 's':
                held['s'] = held['s'] + haar_low(perceptual.detach()) - haar_low(objective.detach())
                return
            if turn == 'p':
                loss = 255 * functional.l1_loss(haar_low(perceptual, 2) / 4, haar_low(gt, 2) / 4)
                loss = loss + penalty(objective.detach(), perceptual)
            else:
                loss = 255 * functional.l1_loss(objective, gt) + penalty(objective, perceptual.detach())
            del objective, perceptual
            optimizers[turn].zero_grad()
            loss.backward()
            nn.utils.clip_grad_value_(stages[turn].parameters(), 1e-4)
            optimizers[turn].step()

    return Bench(step, lambda: held.update(images=None), lambda: [*network.state_dict().values(), held['s']])


def check_updates(quick: bool) -> None:
    """Refuses to measure what does something else."""
    states = []
    for name in (*LOOPS, 'shared', 'lean'):
        bench = make(name, quick)
        bench.step()
        bench.step()
        states.append(bench.state())
    for other in [] if CUDA else states[1:]:  # on a GPU, kernels may sum in another order
        assert all(torch.equal(a, b) for a, b in zip(states[0], other, strict=True))


def times(quick: bool, repeats: int) -> dict[str, float]:
    """Median seconds of an iteration of each, in turn after warming up."""
    clock = time.perf_counter if CUDA else time.process_time  # of this process: others may share the machine
    benches = {name: make(name, quick) for name in (*LOOPS, *PLANS)}
    taken: dict[str, list[float]] = {name: [] for name in benches}
    for repeat in range(-1, repeats):
        for name, bench in benches.items():
            start = clock()
            bench.step()
            if CUDA:
                torch.cuda.synchronize()
            if repeat >= 0:
                taken[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_memory(name: str, quick: bool) -> float:
    """Bytes that iterations take at their peak beyond what stays."""
    if CUDA:
        bench = warm(name, quick)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        bench.step()
        bench.step()
        return torch.cuda.max_memory_allocated() - before
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(_peak_of_this_process(name, quick)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return float(pipe.read())


def warm(name: str, quick: bool) -> Bench:
    """Something to measure after its first iteration, which makes gradients and what Adam keeps."""
    bench = make(name, quick)
    bench.step()
    bench.forget()
    gc.collect()
    return bench


def _peak_of_this_process(name: str, quick: bool) -> int:
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: tensors that are freed go back to the system at once
    libc.mallopt(-1, 1 << 16)  # M_TRIM_THRESHOLD
    bench = warm(name, quick)
    libc.malloc_trim(0)
    with open('/proc/self/statm', encoding='ascii') as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    bench.step()
    bench.step()  # a loop may hold what the iteration before has left
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true', help='fewer repeats and a smaller batch')
    quick = parser.parse_args().quick
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print(f'{"GPU " + torch.cuda.get_device_name() if CUDA else "CPU, one thread"}, torch {torch.__version__}')
    memory = {name: peak_memory(name, quick) for name in (*LOOPS, *PLANS)}  # first: forked processes begin small
    check_updates(quick)
    seconds = times(quick, 3 if quick else 7)
    for name in (*LOOPS, *PLANS):
        print(f'{name}: {seconds[name]:.3f} s, {memory[name] / 1e6:.0f} MB')
    for what, values in (('time', seconds), ('memory', memory)):
        for plan in PLANS:
            for loop in LOOPS:
                figure = f'{what}_{plan}_against_{loop}'
                goal = f' (goal {GOALS[figure]:.2f}x)' if figure in GOALS else ''
                print(f'{figure} {values[loop] / values[plan]:.2f}x{goal}')


if __name__ == '__main__':
    main()
