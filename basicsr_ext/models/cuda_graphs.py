"""Training forwards and backwards that are replayed as CUDA graphs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.precision import autocast

MOST_GRAPHS = 4  # of a network; inputs of further sizes run without


class GraphedNetwork:
    """Runs a network as it is, or replays what was recorded of it: one launch for a forward and one for a backward.

    A GPU that computes faster than Python can tell it what to do waits for the next kernel most of the time; then this is
    several times as fast, and computes the same. A graph is recorded at the first forward of each size of input, after a
    few trial runs that leave no trace: statistics and random numbers are put back.

    A graph has one set of buffers for its activations and gradients, so that there can be one forward between two steps of
    the optimizer. Further ones (micro-batches, or a discriminator's made images after the real ones), forwards without
    gradients and those of frozen networks run without the graph. Its activations stay allocated.

    Args:
        network: View of a player, on one rank; in training mode when it is called.
        parameters: Those that its player trains.
        device: A CUDA device.
        precision: As of :func:`~basicsr_ext.functional.precision.autocast`.
    """

    def __init__(self, network: nn.Module, parameters: list[nn.Parameter], device: torch.device, precision: str):
        self.network = network
        self.parameters = parameters
        self.device = device
        self.precision = precision
        self._graphs: dict[_Key, nn.Module] = {}
        self._is_free = True

    def __call__(self, images: torch.Tensor, **arguments: Any) -> Any:
        """Returns the network's output, in tensors of their own.

        Args:
            images: (N, C, H, W).
            arguments: Further ones of the network's forward.

        Raises:
            UserError: The network does what cannot be recorded.
        """
        if not self._may_replay():
            with autocast(self.device, self.precision):
                return self.network(images, **arguments)
        key = _Key(
            tuple(images.shape), images.stride(), images.dtype, images.requires_grad, tuple(sorted(arguments.items()))
        )
        if key not in self._graphs and len(self._graphs) < MOST_GRAPHS:
            self._graphs[key] = self._record(images, arguments)
        graph = self._graphs.get(key)
        if graph is None:
            with autocast(self.device, self.precision):
                return self.network(images, **arguments)
        self._is_free = False
        output = graph(images)
        if isinstance(output, torch.Tensor):
            return output.clone()
        values = [value.clone() for value in output]
        return type(output)(*values) if hasattr(output, '_fields') else tuple(values)

    def release(self) -> None:
        """Says that the player's step is over, and with it the use of what the last replay left in its buffers."""
        self._is_free = True

    def _may_replay(self) -> bool:
        return self._is_free and torch.is_grad_enabled() and all(p.requires_grad for p in self.parameters)

    def _record(self, images: torch.Tensor, arguments: dict[str, Any]) -> nn.Module:
        statistics = [buffer.clone() for buffer in self.network.buffers()]
        random_state = torch.cuda.get_rng_state(self.device)
        forward = _Forward(self.network, self.precision, self.device, arguments)
        sample = images.detach().clone().requires_grad_(images.requires_grad)
        try:
            graph = torch.cuda.make_graphed_callables(forward, (sample,), allow_unused_input=True)
        except RuntimeError as error:
            if 'captur' not in str(error):
                raise
            reason = str(error).partition('\n')[0]
            raise UserError(
                f'train.cuda_graph: {type(self.network).__name__} does what a CUDA graph cannot record, such as waiting for '
                f'the device ({reason}). Set train.cuda_graph: false.'
            ) from error
        for buffer, before in zip(self.network.buffers(), statistics, strict=True):
            buffer.copy_(before)
        torch.cuda.set_rng_state(random_state, self.device)
        return graph


class _Key(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    needs_gradient: bool
    arguments: tuple[tuple[str, Any], ...]


class _Forward(nn.Module):
    """A network's forward in its precision, with fixed arguments."""

    def __init__(self, network: nn.Module, precision: str, device: torch.device, arguments: dict[str, Any]):
        super().__init__()
        self.network = network
        self.precision = precision
        self.device = device
        self.arguments = arguments

    def forward(self, images: torch.Tensor) -> Any:
        # autocast's cache of cast weights would hold tensors of a graph's memory
        with autocast(self.device, self.precision, cached=False):
            return self.network(images, **self.arguments)
