"""What BasicSR's training loop takes its batches from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tqdm import tqdm


class Feeder:
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
        show_progress: Whether this rank draws a progress bar, where it has a terminal.
    """

    def __init__(
        self,
        loader: Any,
        iterations_done: int,
        total_iterations: int,
        end_iteration: Callable[[int], None],
        device: torch.device | None = None,
        show_progress: bool = False,
    ):
        self.loader = loader
        self.iteration = iterations_done
        self.total_iterations = total_iterations
        self.end_iteration = end_iteration
        self.device = device
        self._ended = iterations_done
        # on terminals only; BasicSR's lines of losses and remaining time are printed besides
        self.bar = tqdm(
            total=total_iterations, initial=iterations_done, unit='it', disable=None if show_progress else True
        )
        self._batches: Iterator[dict[str, Any]] = iter(())

    def reset(self) -> None:
        """Starts an epoch."""
        if self.iteration < self.total_iterations:
            batches = iter(self.loader)
            self._batches = batches if self.device is None else _copied_ahead(batches, self.device)

    def next(self) -> dict[str, Any] | None:
        """Returns the next batch; ``None`` at the end of an epoch or of the run."""
        if self.iteration > self._ended:
            self._ended = self.iteration
            self.bar.update()
            self.end_iteration(self.iteration)
        if self.iteration >= self.total_iterations:
            self.bar.close()
            return None
        batch = next(self._batches, None)
        if batch is not None:
            self.iteration += 1
        return batch


def _copied_ahead(batches: Iterator[dict[str, Any]], device: torch.device) -> Iterator[dict[str, Any]]:
    """Gives batches whose tensors are on the device; the next one is copied on a stream of its own meanwhile."""
    stream = torch.cuda.Stream(device)

    def copy(batch: dict[str, Any]) -> dict[str, Any]:
        with torch.cuda.stream(stream):
            return {k: v.to(device, non_blocking=True) if torch.is_tensor(v) else v for k, v in batch.items()}

    ahead = next(batches, None)
    ahead = ahead and copy(ahead)
    while ahead is not None:
        torch.cuda.current_stream(device).wait_stream(stream)
        batch = ahead
        for value in batch.values():
            if torch.is_tensor(value):
                value.record_stream(torch.cuda.current_stream(device))
        ahead = next(batches, None)
        ahead = ahead and copy(ahead)
        yield batch
