"""Ctrl-C and SIGTERM: finish the iteration, save, leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType

import torch
from torch import distributed

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequests:
    """Context manager that remembers a request to stop until somebody asks for it.

    A second Ctrl-C interrupts at once, as usual.

    Args:
        group: Process group on the CPU over which ranks agree; ``None`` with one rank.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None):
        self.group = group
        self.signal_number = 0
        self._previous: dict[int, object] = {}
        self._asked: tuple[distributed.Work, torch.Tensor] | None = None

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._remember) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
        print('Stopping after this iteration; the state is saved first.', flush=True)

    def agreed(self) -> bool:
        """Says whether all ranks stop now; to be asked once an iteration, by all of them.

        With several ranks an answer is one iteration old, so that no rank waits for it: all of them get the same one.
        """
        if self.group is None:
            return self.signal_number != 0
        answer = False
        if self._asked is not None:
            work, asked = self._asked
            work.wait()
            answer = bool(asked.item())
        flag = torch.tensor([int(self.signal_number != 0)])
        self._asked = (distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self.group, async_op=True), flag)
        return answer
