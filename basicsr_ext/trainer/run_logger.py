"""The printed lines of a run, kept for tools as well."""

from __future__ import annotations

from typing import Any

from basicsr.utils import MessageLogger

from basicsr_ext.trainer.metrics_log import MetricsLog

_WALL = ('time', 'data_time')


class RunLogger(MessageLogger):
    """BasicSR's message logger, which also writes each printed line to ``metrics.jsonl``.

    Args:
        opt: Options as BasicSR completed them.
        start_iter: Iterations done before.
        tb_logger: TensorBoard's writer, or ``None``.
        metrics: Where to write; ``None`` on all ranks but the first.
    """

    def __init__(self, opt: dict[str, Any], start_iter: int, tb_logger: Any, metrics: MetricsLog | None):
        super().__init__({**opt, 'logger': {'use_tb_logger': False, **opt['logger']}}, start_iter, tb_logger)
        self.use_tb_logger = tb_logger is not None
        self.metrics = metrics

    def __call__(self, log_vars: dict[str, Any]) -> None:
        """Prints a line; ``log_vars`` as BasicSR gives them: epoch, iter, lrs, times, and losses by name."""
        if self.metrics is not None:
            values = {key: value for key, value in log_vars.items() if key not in ('iter', *_WALL)}
            wall = {key: log_vars[key] for key in _WALL if key in log_vars}
            self.metrics.write('train', log_vars['iter'], **values, wall=wall)
        super().__call__(log_vars)
