"""Validation shared out over the ranks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, Subset

from basicsr_ext.distributed import on_all_ranks


class RankShard:
    """One rank's images of a validation loader; looks like a loader to BasicSR's validation.

    Args:
        loader: Loader over all images, one at a time.
        rank: This rank; it gets the images ``rank``, ``rank + world_size`` and so on.
        world_size: Number of ranks.
    """

    def __init__(self, loader: DataLoader, rank: int, world_size: int):
        self.dataset = loader.dataset
        self._indices = range(rank, len(loader.dataset), world_size)
        self._pin_memory = loader.pin_memory

    def __len__(self) -> int:
        return len(self._indices)

    def __iter__(self) -> Iterator[Any]:
        return iter(DataLoader(Subset(self.dataset, self._indices), batch_size=1, pin_memory=self._pin_memory))


def dist_validation(self, dataloader: DataLoader, current_iter: Any, tb_logger: Any, save_img: bool) -> None:
    """Validates each rank's share, then averages over all images: the numbers of one rank, to rounding.

    All ranks must call it. Upstream lets the first rank do it all, while the others wait and may run out of time.

    Args:
        dataloader: Over all images, one at a time.
        current_iter: Iteration, for log and file names.
        tb_logger: TensorBoard's writer of the first rank, or ``None``.
        save_img: Whether each rank saves the images of its share.
    """
    share = RankShard(dataloader, self.opt['rank'], self.opt['world_size'])
    hooks = {'_update_best_metric_result': lambda *_: None, '_log_validation_metric_values': lambda *_: None}
    vars(self).update(hooks)  # a share's average is no result
    wrapped, self.net_g = (
        self.net_g,
        self.get_bare_model(self.net_g),
    )  # the wrapper would wait for ranks with more images
    try:
        if len(share):
            self.nondist_validation(share, current_iter, None, save_img)
    finally:
        self.net_g = wrapped
        for name in hooks:
            delattr(self, name)
    if self.opt['val'].get('metrics') is None:
        return
    name = dataloader.dataset.opt['name']
    results = on_all_ranks((len(share), dict(self.metric_results) if len(share) else {}))
    metrics = next(values for count, values in results if count)  # some models measure more than the options name
    self.metric_results = {
        metric: sum(count * float(values[metric]) for count, values in results if count) / len(dataloader.dataset)
        for metric in metrics
    }
    self._initialize_best_metric_results(name)
    for metric, value in self.metric_results.items():
        self._update_best_metric_result(name, metric, value, current_iter)
    self._log_validation_metric_values(current_iter, name, tb_logger)
