"""An iteration of PD-ADMM with shared forwards against three full ones: time, interleaved, and peak memory.

    python bench/admm_step.py [--quick]

Runs on the GPU where there is one, with the published networks, else on one CPU core, with networks about a fifth as deep and
half as wide, so that stage O still costs 1.6 times as much as stage P. The losses are L1: what a discriminator and VGG cost
besides is the same in every plan. The updates of all plans in float32 are equal to the bit, which is checked first.

Memory is what an iteration takes beyond weights, optimizers and gradients at its peak: on the CPU of a forked process (its
largest resident set), on a GPU of torch's allocator. The plain plan is ``forwards: full``: before each of the two steps, and
after them, it runs both stages and records their graphs, as a loop does that calls the whole network three times.

The last lines are `<figure> <ratio>x (goal <goal>x)`, one a figure: the plain plan in float32 over the other one.
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

import basicsr_ext

basicsr_ext.register()

import torch

from basicsr_ext.models.lfcsr_model import LFCSRModel

CUDA = torch.cuda.is_available()
FAST = {'precision': 'bf16', 'channels_last': True}
PLANS = {
    'full': {},
    'shared': {},
    'lean': {},
    'shared_bf16_channels_last': FAST,
}
GOALS = {'time_shared': 1.10, 'memory_shared': 1 / 0.70}


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
            'grad_clip': {'value': 1e-4}, 'total_iter': 10**9, 'lfcsr': {'forwards': plan.partition('_')[0]}, **PLANS[plan],
        },
    }  # fmt: skip


def stepper(plan: str, quick: bool) -> tuple[Callable[[], None], LFCSRModel]:
    """One iteration of a plan, and its model: LR 36x36, batch 16 on a GPU; 24x24, batch 2 or 1 on the CPU."""
    torch.manual_seed(0)
    model = LFCSRModel(options(plan))
    count, size = (16, 36) if CUDA else (1 if quick else 2, 24)
    generator = torch.Generator().manual_seed(0)
    batch = {
        'lq': torch.rand(count, 3, size, size, generator=generator),
        'gt': torch.rand(count, 3, 4 * size, 4 * size, generator=generator),
    }

    def step() -> None:
        model.feed_data(batch)
        model.optimize_parameters(1)
        if CUDA:
            torch.cuda.synchronize()

    return step, model


def check_updates(quick: bool) -> None:
    """Refuses to measure plans that do something else."""
    weights = []
    for plan in ('full', 'shared', 'lean'):
        step, model = stepper(plan, quick)
        step()
        weights.append([*model.net_g.state_dict().values(), model.dual])
    if not CUDA:  # on a GPU, kernels may sum in another order
        assert all(torch.equal(a, b) for other in weights[1:] for a, b in zip(weights[0], other, strict=True))


def times(quick: bool, repeats: int) -> dict[str, float]:
    """Median seconds of an iteration of each plan, in turn after warming up."""
    clock = time.perf_counter if CUDA else time.process_time  # of this process: others may share the machine
    steps = {plan: stepper(plan, quick)[0] for plan in PLANS}
    taken: dict[str, list[float]] = {plan: [] for plan in PLANS}
    for number in range(repeats + 2):
        for plan, step in steps.items():
            start = clock()
            step()
            if number >= 2:
                taken[plan].append(clock() - start)
    return {plan: statistics.median(values) for plan, values in taken.items()}


def peak_memory(plan: str, quick: bool) -> float:
    """Bytes that an iteration takes at its peak beyond what stays."""
    if CUDA:
        step, _ = stepper(plan, quick)
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, str(_peak_of_this_process(plan, quick)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        return float(pipe.read())


def _peak_of_this_process(plan: str, quick: bool) -> int:
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: tensors that are freed go back to the system at once
    libc.mallopt(-1, 1 << 16)  # M_TRIM_THRESHOLD
    step, _ = stepper(plan, quick)
    step()  # makes gradients and what Adam keeps
    gc.collect()
    libc.malloc_trim(0)
    with open('/proc/self/statm', encoding='ascii') as file:
        before = int(file.read().split()[1]) * resource.getpagesize()
    step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument('--quick', action='store_true', help='fewer repeats and a smaller batch')
    quick = parser.parse_args().quick
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    print(f'{"GPU " + torch.cuda.get_device_name() if CUDA else "CPU, one thread"}, torch {torch.__version__}')
    memory = {plan: peak_memory(plan, quick) for plan in PLANS}  # first: forked processes begin small
    check_updates(quick)
    seconds = times(quick, 3 if quick else 7)
    for plan in PLANS:
        print(f'{plan}: {seconds[plan]:.3f} s, {memory[plan] / 1e6:.0f} MB')
    for what, values in (('time', seconds), ('memory', memory)):
        for plan in PLANS:
            if plan != 'full':
                figure = f'{what}_{plan}'
                goal = f' (goal {GOALS[figure]:.2f}x)' if figure in GOALS else ''
                print(f'{figure} {values["full"] / values[plan]:.2f}x{goal}')


if __name__ == '__main__':
    main()
