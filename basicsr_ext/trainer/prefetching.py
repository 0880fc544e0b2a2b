"""What BasicSR's training loop takes its batches from."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Event, Thread, main_thread
from typing import Any

import torch
from tqdm import tqdm

from basicsr_ext.errors import UserError
from basicsr_ext.networks.devices import is_for_device

BATCH_LIMIT = 30 * 60  # seconds that a batch may take


class Prefetcher:
    """Stands where BasicSR's prefetchers stand, and so sees the start and the end of every iteration.

    BasicSR's loop asks for the next batch right after an iteration's validation: that is where a checkpoint of the
    iteration is written, and where a run that was asked to stop leaves. Without a batch, the loop ends an epoch; at
    ``total_iter`` it gets none, so that this iteration is the last.

    Args:
        loader: Training loader.
        iterations_done: Of the run so far.
        total_iterations: ``train.total_iter``.
        end_iteration: Called with the number of every iteration that is over, once.
        device: Batches are copied there ahead of time where it is a GPU (``prefetch_mode: cuda``); ``None`` leaves them.
        ahead: Batches that a thread reads ahead; 0 for none, where the loader has workers or its dataset is not made for it.
        show_progress: Whether this rank draws a progress bar, where it has a terminal.
    """

    def __init__(
        self,
        loader: Any,
        iterations_done: int,
        total_iterations: int,
        end_iteration: Callable[[int], None],
        device: torch.device | None = None,
        ahead: int = 0,
        show_progress: bool = False,
    ):
        self.loader = loader
        self.iteration = iterations_done
        self.total_iterations = total_iterations
        self.end_iteration = end_iteration
        self.device = device
        self.ahead = ahead
        self._ended = iterations_done
        # on terminals only; BasicSR's lines of losses and remaining time are printed besides
        self.bar = tqdm(
            total=total_iterations, initial=iterations_done, unit='it', disable=None if show_progress else True
        )
        self._batches: Iterator[dict[str, Any]] = iter(())
        self._reading: Generator[dict[str, Any], None, None] | None = None

    def reset(self) -> None:
        """Starts an epoch."""
        self.close()
        if self.iteration < self.total_iterations:
            batches = iter(self.loader)
            if self.ahead:
                batches = self._reading = read_ahead(batches, self.ahead)
            self._batches = batches if self.device is None else _copied_ahead(batches, self.device)

    def next(self) -> dict[str, Any] | None:
        """Returns the next batch; ``None`` at the end of an epoch or of the run."""
        if self.iteration > self._ended:
            self._ended = self.iteration
            self.bar.update()
            self.end_iteration(self.iteration)
        if self.iteration >= self.total_iterations:
            self.bar.close()
            self.close()
            return None
        batch = self._read()
        if batch is not None:
            self.iteration += 1
        return batch

    def _read(self) -> dict[str, Any] | None:
        try:
            return next(self._batches, None)
        except RuntimeError as error:
            if 'DataLoader timed out' not in str(error):
                raise
            raise _no_batch() from error

    def close(self) -> None:
        """Ends the thread that reads ahead, or the loader's workers, if there are any, and waits for them."""
        self._batches = iter(())  # workers end with their iterator
        if self._reading is not None:
            self._reading.close()
            self._reading = None


def _no_batch() -> UserError:
    return UserError(
        f'datasets.train: expected a batch within {BATCH_LIMIT // 60} minutes, found none: what reads the images hangs, or is '
        'slow beyond use. Look at the disk that they lie on; or change num_worker_per_gpu, 0 for no processes.'
    )


def read_ahead(batches: Iterator[Any], number: int) -> Generator[Any, None, None]:
    """Gives what an iterator gives, while a thread takes the next ones from it.

    An error of the iterator comes out in its turn. Closing the generator, or an error, waits for the thread to end.

    Args:
        batches: Used by the thread alone from now on.
        number: How many it may be ahead.
    """
    wanted: SimpleQueue[bool] = SimpleQueue()
    read: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    closed = Event()
    gpu = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def read_wanted() -> None:
        try:
            if gpu is not None:
                torch.cuda.set_device(gpu)  # of this rank, for which batches are page-locked (``pin_memory``)
            while is_wanted():
                read.put((next(batches, None), None))
        except BaseException as error:
            read.put((None, error))

    def is_wanted() -> bool:
        # A program that ends without closing the generator must not wait for the thread.
        while main_thread().is_alive():
            with suppress(Empty):
                return wanted.get(timeout=1) and not closed.is_set()
        return False

    def next_read() -> tuple[Any, BaseException | None]:
        for _ in range(BATCH_LIMIT):
            with suppress(Empty):
                return read.get(timeout=1)
        raise _no_batch()

    reader = Thread(target=read_wanted, name='read_ahead')
    reader.start()
    try:
        for _ in range(number):
            wanted.put(True)
        while True:
            batch, error = next_read()
            if error is not None:
                raise error
            if batch is None:
                return
            wanted.put(True)
            yield batch
    finally:
        closed.set()
        wanted.put(False)
        reader.join(BATCH_LIMIT)


def _copied_ahead(batches: Iterator[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """Gives batches whose tensors are on the device; the next one is copied on a stream of its own meanwhile."""
    stream = torch.cuda.Stream(device)

    def copy(batch: dict[str, Any]) -> dict[str, Any]:
        with torch.cuda.stream(stream):
            return {k: v.to(device, non_blocking=True) if is_for_device(v) else v for k, v in batch.items()}

    ahead = next(batches, None)
    ahead = ahead and copy(ahead)
    while ahead is not None:
        torch.cuda.current_stream(device).wait_stream(stream)
        batch = ahead
        for value in batch.values():
            if is_for_device(value):
                value.record_stream(torch.cuda.current_stream(device))
        ahead = next(batches, None)
        ahead = ahead and copy(ahead)
        yield batch
