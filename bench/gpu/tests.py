"""Runs the tests that need a GPU (tests/gpu), and keeps the outcome of each as soon as it is there.

    python bench/gpu/tests.py [--out DIR] [--minutes 2] [--small] [--warm yes]

With ``--warm yes`` the networks that the part "step" measures compiled are compiled meanwhile, so that their kernels lie in
Inductor's cache: this part measures no time. Without a GPU the tests run on the CPU, those left out that say nothing there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import pytest
from measuring import CUDA, ROOT, Figures, parse_arguments


class Recorder:
    """A plugin of pytest that writes down outcomes."""

    def __init__(self, figures: Figures):
        self.figures = figures
        self.counts: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == 'call' or report.outcome != 'passed':
            self.counts[report.outcome] = self.counts.get(report.outcome, 0) + 1
            test = report.nodeid.rpartition('::')[2]
            self.figures.write(test, report.duration, 's', outcome=report.outcome)


def main() -> None:
    args = parse_arguments(__doc__.split('\n')[0], warm='no')
    figures = Figures('tests', args.out, args.minutes, args.small)
    warming = None
    if CUDA and args.warm == 'yes':
        warming = subprocess.Popen([sys.executable, str(ROOT / 'bench/gpu/step.py'), '--warm'])
    if not CUDA:
        os.environ['BASICSR_EXT_GPU_DRY'] = '1'
    recorder = Recorder(figures)
    workers = max(1, min(8, (os.cpu_count() or 1) // 2))
    # pytest ends by itself where the time is over: what is done is written down, and what is not started is left out
    timer = threading.Timer(max(1, figures.seconds_left() - 5), lambda: os.kill(os.getpid(), 2))
    timer.daemon = True
    timer.start()
    os.chdir(ROOT)
    try:
        status = pytest.main(
            [
                'tests/gpu',
                '-m',
                'gpu',
                '-q',
                '-n',
                str(workers),
                '-p',
                'no:cacheprovider',
                '--timeout',
                '100',
                '--durations',
                '8',
            ],
            plugins=[recorder],
        )
    except KeyboardInterrupt:
        status = 2
    timer.cancel()
    failed = recorder.counts.get('failed', 0)
    figures.write('tests_passed', recorder.counts.get('passed', 0), 'tests', failed=failed, status=int(status))
    if warming is not None:
        try:
            warming.wait(max(1, figures.seconds_left()))
        except subprocess.TimeoutExpired:
            warming.kill()
    sys.exit(int(status))


if __name__ == '__main__':
    main()
