"""Damages option files, and looks for tracebacks, made files and useless messages.

    python tests/fuzz/fuzz_options.py [--count 10000] [--first 0]

Each trial is seeded by its number: ``--first 123 --count 1`` repeats one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent), str(TESTS)]

import cv2
import numpy as np
import torch

import basicsr_ext

basicsr_ext.register()

from fuzz.option_bases import prepare
from fuzz.option_trials import run_trial

_SECONDS = 600  # for one trial, on a machine that does other work too
_SLOW = 10


def main() -> int:
    """Returns 1 where a trial broke the rules."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--count', type=int, default=10000)
    parser.add_argument('--first', type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rng = np.random.default_rng(0)
    images = {f'image{i}': cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), (260, 260)) for i in range(5)}
    signal.signal(signal.SIGALRM, _too_slow)
    failures, counts, start = 0, Counter(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / 'some/where'  # so that damaged paths such as ../.. stay in the folder
        root.mkdir(parents=True)
        bases = prepare(root, images)
        for number in range(args.first, args.first + args.count):
            signal.alarm(_SECONDS)
            begun = time.perf_counter()
            trial = run_trial(root, number, bases)
            signal.alarm(0)
            if time.perf_counter() - begun > _SLOW:
                print(f'---- trial {number} ({trial.mutation}) took {time.perf_counter() - begun:.0f} s', flush=True)
            counts['accepted' if trial.accepted else 'refused'] += 1
            if trial.failure:
                failures += 1
                print(
                    f'---- trial {number} ({trial.mutation}): {trial.failure}\n{_excerpt(trial.text, args.count)}',
                    flush=True,
                )
            if (number + 1) % 500 == 0:
                print(f'{number + 1} trials, {failures} failures, {time.perf_counter() - start:.0f} s', flush=True)
    print(f'{args.count} trials: {dict(counts)}, {failures} failures, {time.perf_counter() - start:.0f} s')
    return 1 if failures else 0


def _too_slow(*_: object) -> None:
    raise TimeoutError(f'a trial took more than {_SECONDS} s')


def _excerpt(text: str, count: int) -> str:
    return text if count == 1 else ''


if __name__ == '__main__':
    sys.exit(main())
