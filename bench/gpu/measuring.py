"""What the parts of the GPU run share: figures that are kept as soon as they are there, time limits, timing, profiles."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'bench')]

import torch

CUDA = torch.cuda.is_available()
RESULTS = 'results.jsonl'


class Figures:
    """Writes each figure as a line of ``results.jsonl`` at once, so that a part that is stopped loses nothing.

    Args:
        part: Name of the part: ``step``, ``feeding`` and so on.
        out: Folder of the results; made if need be.
        minutes: Time limit of the part.
        small: Whether the work is cut down for a run on a CPU; such figures say nothing about a GPU, and are marked.
    """

    def __init__(self, part: str, out: Path, minutes: float, small: bool):
        self.part, self.out, self.small = part, out, small
        self.end = time.monotonic() + 60 * minutes
        out.mkdir(parents=True, exist_ok=True)
        self.device = torch.cuda.get_device_name() if CUDA else 'CPU'

    def write(self, figure: str, value: float | None, unit: str, goal: str | None = None, **details: Any) -> None:
        """Keeps a figure, and prints it.

        Args:
            figure: Its name.
            value: What was measured; ``None`` where it was not, and ``reason`` in the details says why.
            unit: Of the value: ``images/s``, ``x``, ``%`` and so on.
            goal: What it should reach, such as ``>= 4`` or ``<= 3``.
            details: Whatever else belongs to it.
        """
        line = {
            'part': self.part, 'figure': figure, 'value': value, 'unit': unit, 'goal': goal, **details,
            'device': self.device, 'torch': torch.__version__, 'small': self.small,
            'time': time.strftime('%FT%TZ', time.gmtime()),
        }  # fmt: skip
        with open(self.out / RESULTS, 'a', encoding='utf-8') as file:
            file.write(json.dumps(line) + '\n')
            file.flush()
            os.fsync(file.fileno())
        shown = 'not measured' if value is None else f'{value:.4g} {unit}'
        print(f'{figure}: {shown}' + (f' (goal {goal})' if goal else '') + _in_brackets(details), flush=True)

    def seconds_left(self) -> float:
        """Time until the part must end."""
        return self.end - time.monotonic()

    @contextmanager
    def attempt(self, what: str, needs: float = 0) -> Iterator[bool]:
        """Guards some figures: says whether there is time for them; an error is written down and ends them alone.

        Args:
            what: Name of the figures.
            needs: Seconds that they take, roughly.
        """
        there_is_time = self.seconds_left() > needs
        if not there_is_time:
            self.write(what, None, '', reason='no time was left')
        try:
            yield there_is_time
        except Exception as error:
            import traceback

            traceback.print_exc()
            self.write(what, None, '', reason=f'{type(error).__name__}: {str(error)[:300]}')
        finally:
            if CUDA:
                torch.cuda.empty_cache()


def meets(value: float, goal: str) -> bool:
    """Whether a value reaches a goal such as ``>= 4``."""
    sign, number = goal.split()
    return value >= float(number) if sign == '>=' else value <= float(number)


def _in_brackets(details: Mapping[str, Any]) -> str:
    told = ', '.join(
        f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}' for key, value in details.items()
    )
    return f' [{told}]' if told else ''


def parse_arguments(description: str, **further: str) -> argparse.Namespace:
    """Arguments that all parts take, and further ones with their defaults; ``--small`` is the default without a GPU."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--out', type=Path, default=Path('gpu_out'), help='folder of the results')
    parser.add_argument('--minutes', type=float, default=3, help='time limit (default: 3)')
    parser.add_argument('--small', action='store_true', help='small work, for a trial on a CPU')
    for name, default in further.items():
        parser.add_argument(f'--{name}', default=default, help=f'default: {default}')
    args = parser.parse_args()
    args.small = args.small or not CUDA
    return args


def synchronize() -> None:
    """Waits for the device."""
    if CUDA:
        torch.cuda.synchronize()


def seconds_of(work: Callable[[], Any], calls: int = 1) -> float:
    """Wall-clock seconds of one call, over some calls in a row, the device's work included."""
    synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    synchronize()
    return (time.perf_counter() - start) / calls


def medians(works: Mapping[str, Callable[[], Any]], repeats: int, at_least: float = 0.1) -> dict[str, float]:
    """Median seconds of a call of each, measured in turn after warming up.

    Args:
        works: What is measured, by name.
        repeats: Measurements of each.
        at_least: Seconds that a measurement takes: short calls are made several times in a row.
    """
    calls = {}
    for name, work in works.items():
        work(), work()
        calls[name] = max(1, round(at_least / seconds_of(work)))
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            taken[name].append(seconds_of(work, calls[name]))
    return {name: statistics.median(values) for name, values in taken.items()}


def peak_bytes(work: Callable[[], Any]) -> int:
    """Bytes of torch's allocator that a call takes at its peak, beyond what is there before it; 0 without a GPU."""
    if not CUDA:
        return 0
    synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    synchronize()
    return torch.cuda.max_memory_allocated() - before


def profile(work: Callable[[], Any], figure: str, out: Path, calls: int = 10) -> None:
    """Writes a Chrome trace of some calls, ``trace_<figure>.json.gz``, and prints where the time goes."""
    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if CUDA else [])
    with torch.profiler.profile(activities=activities) as profiler:
        for _ in range(calls):
            work()
        synchronize()
    trace = out / f'trace_{figure}.json'
    profiler.export_chrome_trace(str(trace))
    with open(trace, 'rb') as plain, gzip.open(f'{trace}.gz', 'wb', compresslevel=6) as packed:
        shutil.copyfileobj(plain, packed)
    trace.unlink()
    key = 'self_cuda_time_total' if CUDA else 'self_cpu_time_total'
    print(f'--- {figure}: {calls} calls')
    print(profiler.key_averages().table(sort_by=key, row_limit=25, max_name_column_width=60), flush=True)
