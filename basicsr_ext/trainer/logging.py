"""The printed lines of a run, kept for tools as well."""

from __future__ import annotations

import math
from typing import Any

import basicsr
import torch
import torchvision
from basicsr.utils import MessageLogger
from torch import nn

import basicsr_ext
from basicsr_ext.distributed import from_first_rank
from basicsr_ext.errors import diverged
from basicsr_ext.models.loss_record import zero_losses
from basicsr_ext.networks.weights import not_finite
from basicsr_ext.trainer.metrics_log import MetricsLog

_WALL = ('time', 'data_time')


class RunLogger(MessageLogger):
    """BasicSR's message logger, which also writes each printed line to ``metrics.jsonl``.

    Args:
        opt: Options as BasicSR completed them.
        start_iter: Iterations done before.
        tb_logger: TensorBoard's writer, or ``None``.
        metrics: Where to write; ``None`` on all ranks but the first.
        model: In training.
    """

    def __init__(self, opt: dict[str, Any], start_iter: int, tb_logger: Any, metrics: MetricsLog | None, model: Any):
        super().__init__({**opt, 'logger': {'use_tb_logger': False, **opt['logger']}}, start_iter, tb_logger)
        self.use_tb_logger = tb_logger is not None
        self.metrics = metrics
        self.model = model
        self._nonzero: set[str] = set()  # losses of a model that does not look itself, since the last line
        self._told_zero: set[str] = set()

    def note_losses(self) -> None:
        """Notes, after each iteration, which losses of one of BasicSR's models are not 0; they are on the CPU already."""
        if not hasattr(self.model, 'check_losses'):
            self._note(getattr(self.model, 'log_dict', {}))

    def _note(self, losses: dict[str, Any]) -> None:
        numbers = {name: value for name, value in losses.items() if isinstance(value, (int, float))}
        self._nonzero.update(name for name, value in numbers.items() if value != 0)

    def __call__(self, log_vars: dict[str, Any]) -> None:
        """Prints a line; all ranks must call it.

        Args:
            log_vars: As BasicSR gives them: epoch, iter, lrs, times, and losses by name.

        Raises:
            UserError: A loss and the weights of a model that does not look itself are no longer finite.
        """
        if not hasattr(self.model, 'check_losses'):
            self._check_losses(log_vars)
            self._warn_of_zero(log_vars)
        if self.metrics is not None:
            values = {key: value for key, value in log_vars.items() if key not in ('iter', *_WALL)}
            wall = {key: log_vars[key] for key in _WALL if key in log_vars}
            self.metrics.write('train', log_vars['iter'], **values, wall=wall)
        super().__call__(log_vars)

    def _check_losses(self, log_vars: dict[str, Any]) -> None:
        """Where the weights are finite, the step was not taken, as by a scaler of the model's own."""
        spoiled = [name for name, value in log_vars.items() if name.startswith('l_') and not math.isfinite(value)]
        networks = {n: v for n, v in vars(self.model).items() if n.startswith('net_') and isinstance(v, nn.Module)}
        if spoiled and not any(not_finite(dict(network.named_parameters())) for network in networks.values()):
            spoiled = []
        if spoiled := from_first_rank(spoiled):
            raise diverged(f'in iteration {log_vars["iter"]}, or before it, the loss {spoiled[0]} is not finite')

    def _warn_of_zero(self, log_vars: dict[str, Any]) -> None:
        self._note(log_vars)
        losses = {name for name in log_vars if name.startswith('l_')}
        if zero := sorted(losses - self._nonzero - self._told_zero):
            self._told_zero.update(zero)
            self.logger.warning(zero_losses(zero, log_vars['iter']))
        self._nonzero.clear()


def versions() -> str:
    """The versions that a run's log tells, in one line."""
    names = {'BasicSR': basicsr, 'basicsr_ext': basicsr_ext, 'PyTorch': torch, 'TorchVision': torchvision}
    return 'Versions: ' + ', '.join(f'{name} {module.__version__}' for name, module in names.items())
