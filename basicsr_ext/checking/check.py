"""``basicsr check``: everything about a run that can be found out before it, in seconds to minutes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from basicsr_ext.checking import check_options
from basicsr_ext.checking.report import Report
from basicsr_ext.files import follow_links
from basicsr_ext.options.resolve import find_root
from basicsr_ext.options.source import read_source

_HR_720P = 1280 * 720


class Row(NamedTuple):
    """One line of what was found."""

    what: str
    found: str


def check(
    options: str | os.PathLike | Mapping[str, Any],
    *,
    force_yml: Iterable[str] = (),
    root: str | os.PathLike | None = None,
) -> str:
    """Checks options as a run would, then builds, reads and counts.

    Builds the networks on the CPU, counts parameters and multiply-adds, reads one sample of each dataset, runs one image
    of validation through every metric, and estimates the disk space of checkpoints. Makes no file.

    Args:
        options: Path of an option file, or the options as a mapping; with a block ``train`` they are those of a training.
        force_yml: Assignments such as ``train:total_iter=1000``.
        root: Where the run would make its folders; default: the option ``path.root``, or the working directory.

    Returns:
        What was found, as lines of text.

    Raises:
        UserError: Names every problem.
    """
    source = read_source(options, force_yml)
    is_train = source.values.get('train') is not None
    root = follow_links(root) if root else find_root(source.values)
    report = check_options(source, is_train=is_train, root=root, launcher=None, thorough=True)
    report.raise_problems()
    rows = _Rehearsal(report, root).rows()
    report.raise_problems()
    kind = 'training' if is_train else 'test'
    lines = [f'{source.file or "options"}: {kind} with {report.get("model_type")}']
    width = max(len(row.what) for row in rows)
    lines += [f'{row.what:{width}}  {row.found}' for row in rows]
    lines += [f'Warning: {warning}' for warning in report.warnings]
    return '\n'.join(lines)


class _Rehearsal:
    """Finds out what options alone do not tell, one row after the other."""

    def __init__(self, report: Report, root: Path):
        self.report = report
        self.root = root
        self.samples: dict[str, dict[str, Any]] = {}

    def rows(self) -> list[Row]:
        report = self.report
        rows = [self._dataset(name) for name, block in report.block('datasets').items() if block is not None]
        rows[:0] = self._networks()
        if report.block('val', 'metrics'):
            rows.append(self._metrics())
        if report.is_train:
            rows.append(self._checkpoints())
        return rows

    def _dataset(self, name: str) -> Row:
        from basicsr_ext.checking.dry_run import read_sample

        report, what = self.report, f'datasets.{name}'
        kind = report.get('datasets', name, 'type')
        dataset = report.opened[name]
        sample = self.samples[name] = read_sample(report, name, dataset)
        images = {key: value for key, value in sample.items() if hasattr(value, 'shape') and hasattr(value, 'dtype')}
        shown = ', '.join(
            f'{key} {"x".join(map(str, v.shape))} {str(v.dtype).split(".")[-1]}' for key, v in images.items()
        )
        epoch = ''
        if name == 'train':
            batch = report.get('datasets', 'train', 'batch_size_per_gpu')
            ratio = report.get('datasets', 'train', 'dataset_enlarge_ratio') or 1
            iterations = int(len(dataset) * ratio) // batch
            epochs = report.get('train', 'total_iter') / max(1, iterations)
            epoch = f', {iterations:,} iterations an epoch with one rank, {epochs:,.1f} epochs'
        return Row(what, f'{kind}: {len(dataset):,} samples{epoch}; the first: {shown}')

    def _networks(self) -> list[Row]:
        from basicsr_ext.checking.structure import network_keys

        self.networks: dict[str, Any] = {}  # by their letters
        return [self._network(key) for key in network_keys(self.report)]

    def _network(self, key: str) -> Row:
        from basicsr.utils.registry import ARCH_REGISTRY

        from basicsr_ext.checking.dry_run import compare_weights, run_network
        from basicsr_ext.checking.networks import quiet
        from basicsr_ext.checking.registries import look_up
        from basicsr_ext.options.problems import brief

        report, options = self.report, dict(self.report.block(key))
        try:
            with quiet():
                network = look_up(ARCH_REGISTRY, options['type'])(**{k: v for k, v in options.items() if k != 'type'})
        except Exception as error:  # of a class that is not BasicSR's, or files of weights that do not fit
            reason = f'{type(error).__name__}: {brief(error)}'
            report.error((key,), f'{options["type"]} cannot be built with these options ({reason}).')
            return Row(key, 'cannot be built')
        self.networks[key.removeprefix('network_')] = network
        text = f'{options["type"]}: {_parameters(network):,} parameters{compare_weights(report, key, network)}'
        if key != 'network_g':
            return Row(key, text)
        cost = run_network(report, network, self._sample(), report.get('scale'))
        if isinstance(cost, str):
            return Row(key, f'{text}; multiply-adds: {cost}')
        height, width = cost.input_size
        text += f'; {_count(cost.multiply_adds).rstrip()} multiply-adds for an LQ image of {height}x{width} pixels'
        if len(cost.output_shape) == 3:
            share = _HR_720P / (cost.output_shape[-1] * cost.output_shape[-2])
            text += f', {_count(cost.multiply_adds * share).rstrip()} scaled to an output of 1280x720'
        return Row(key, text)

    def _sample(self) -> dict[str, Any]:
        """A sample for networks: of training, where crops are small, else of the first test set, cut to be as small."""
        for name, sample in self.samples.items():
            if name == 'train':
                return sample
        for sample in self.samples.values():
            scale = self.report.get('scale') or 1
            return {
                key: _cut(value, 64 * (scale if key == 'gt' else 1))
                for key, value in sample.items()
                if key in ('lq', 'gt')
            }
        return {}

    def _metrics(self) -> Row:
        from basicsr_ext.checking.dry_run import METRIC_SIDE, run_metrics

        for name, sample in self.samples.items():
            if name == 'train' or 'lq' not in sample:
                continue
            results = run_metrics(self.report, sample, self.report.get('scale') or 1)
            shown = ', '.join(f'{metric} {value:.4f}' for metric, value in results.items())
            return Row(
                'val.metrics',
                f'{shown} (first image of {name}, its middle of at most {METRIC_SIDE}x{METRIC_SIDE} pixels, bicubic '
                'interpolation against GT)',
            )
        return Row('val.metrics', 'not run: there is no image for validation')

    def _checkpoints(self) -> Row:
        from basicsr.utils.registry import MODEL_REGISTRY

        from basicsr_ext.checking.optimizers import state_tensors
        from basicsr_ext.checking.registries import look_up

        report = self.report
        numbers = sum(_parameters(network) for network in self.networks.values())
        if 'g' in self.networks and (report.get('train', 'ema_decay') or 0) > 0:
            numbers += _parameters(self.networks['g'])
        trained_by = getattr(look_up(MODEL_REGISTRY, report.get('model_type')), 'trained_by', None)
        for key, optimizer in report.block('train').items():
            if optimizer and str(key).startswith('optim_'):
                player = key.removeprefix('optim_')
                network = trained_by(player, self.networks) if trained_by else self.networks.get(player)
                numbers += _parameters(network) * state_tensors(optimizer) if network is not None else 0
        total = int(report.get('train', 'total_iter'))
        count = max(1, total // int(report.get('logger', 'save_checkpoint_freq')))
        kept = report.get('logger', 'keep_last')
        count = min(count, kept) if kept else count
        size, free = 4 * numbers * count, shutil.disk_usage(self.root).free
        if size > free:
            report.warn(
                ('logger', 'save_checkpoint_freq'),
                f'checkpoints will take about {_count(size)}B, and {_count(free)}B are free; keep_last keeps fewer.',
            )
        return Row('checkpoints', f'{count:,} of {_count(4 * numbers)}B: {_count(size)}B; {_count(free)}B are free')


def _parameters(network: Any) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _cut(image: Any, side: int) -> Any:
    return image[..., :side, :side] if hasattr(image, 'shape') and len(image.shape) >= 3 else image


def _count(number: float) -> str:
    """Writes a large number with a prefix, as 12.3 G."""
    prefixes = ['', 'K', 'M', 'G', 'T']
    while number >= 1000 and len(prefixes) > 1:
        number /= 1000
        prefixes.pop(0)
    return f'{number:,.1f} {prefixes[0]}'
