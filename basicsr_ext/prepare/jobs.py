"""The same function for many images, in several processes."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from basicsr_ext.errors import Interrupted, UserError
from basicsr_ext.prepare.progress import progress
from basicsr_ext.processes import start_worker, worker_context

Job = TypeVar('Job')
_MOST_BY_DEFAULT = 16
_function: Callable[[Any], Any]  # of a worker: what it calls for every job


def default_workers() -> int:
    """As many processes as this one may use processors, at most 16."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(count, _MOST_BY_DEFAULT)


def check_workers(num_workers: int | None) -> int:
    """Resolves the number of processes; 0 and 1 mean none beside this one.

    Raises:
        UserError: It is no count.
    """
    if num_workers is None:
        return default_workers()
    if not isinstance(num_workers, int) or isinstance(num_workers, bool) or num_workers < 0:
        raise UserError(f'--num_workers: expected 0 or a larger integer, found {num_workers!r}.')
    return num_workers


def run_jobs(
    function: Callable[[Job], Any],
    jobs: Sequence[Job],
    *,
    num_workers: int,
    description: str,
    done: int = 0,
    unit: str = 'image',
) -> Iterator[Any]:
    """Calls a function for every job, and yields what it returns, in the order in which jobs end.

    The user sees the progress. The first exception ends all: jobs that have not begun are left out.

    Args:
        function: Can be pickled; runs in the workers, with one thread.
        jobs: Its arguments.
        num_workers: Processes; 0 and 1 run the jobs in this process, in order.
        description: As of :func:`~basicsr_ext.prepare.progress.progress`.
        done: Jobs that a former run has finished, as there.
        unit: What a job is, as there.

    Raises:
        UserError: What a job raised.
        Interrupted: A worker was killed.
    """
    with progress(description, done + len(jobs), done=done, unit=unit) as update:
        results = _here(function, jobs) if min(num_workers, len(jobs)) < 2 else _in_workers(function, jobs, num_workers)
        for result in results:
            update()
            yield result


def _here(function: Callable[[Job], Any], jobs: Sequence[Job]) -> Iterator[Any]:
    for job in jobs:
        yield function(job)


def _in_workers(function: Callable[[Job], Any], jobs: Sequence[Job], num_workers: int) -> Iterator[Any]:
    import cv2

    num_workers = min(num_workers, len(jobs))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # ends its threads: a forked worker would wait for its copy of them for ever
    # Forking spares every worker the import of torch; each then keeps to one thread, so no pool of threads is missed.
    method = 'fork' if 'fork' in multiprocessing.get_all_start_methods() else 'spawn'
    # The function may hold the names of all images: every worker gets it once, and then bare jobs.
    pool = ProcessPoolExecutor(num_workers, worker_context(method), initializer=_start_worker, initargs=(function,))
    waiting, running = iter(jobs), set[Future]()
    try:
        while True:
            # No more than the workers have at hand: an exception or Ctrl-C then ends the step at once.
            for _, job in zip(range(2 * num_workers - len(running)), waiting, strict=False):
                running.add(pool.submit(_call, job))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    except BrokenProcessPool as error:
        raise Interrupted(
            f'{error} Most likely the memory did not suffice: choose fewer processes (--num_workers).'
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        cv2.setNumThreads(threads)


def _start_worker(function: Callable[[Any], Any]) -> None:
    import cv2

    global _function
    _function = function

    cv2.setNumThreads(1)
    if 'torch' in sys.modules:
        import torch

        torch.set_num_threads(1)
    os.environ['OMP_NUM_THREADS'] = '1'  # where torch comes with the first job
    start_worker()  # Ctrl-C and SIGTERM reach the parent too, which ends the workers


def _call(job: Any) -> Any:
    return _function(job)
