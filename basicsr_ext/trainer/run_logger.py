"""The printed lines of a run, kept for tools as well."""

from __future__ import annotations

import math
from typing import Any

from basicsr.utils import MessageLogger
from torch import nn

from basicsr_ext.errors import diverged
from basicsr_ext.storage.weights import not_finite
from basicsr_ext.trainer.metrics_log import MetricsLog
from basicsr_ext.trainer.ranks import from_first_rank

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

    def __call__(self, log_vars: dict[str, Any]) -> None:
        """Prints a line; all ranks must call it.

        Args:
            log_vars: As BasicSR gives them: epoch, iter, lrs, times, and losses by name.

        Raises:
            UserError: A loss and the weights of a model that does not look itself are no longer finite.
        """
        if not hasattr(self.model, 'check_losses'):
            self._check_losses(log_vars)
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
