"""Keeps a run: when checkpoints are written, what they hold, and how a run goes on from one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger

from basicsr_ext.distributed import Ranks, from_first_rank, on_all_ranks
from basicsr_ext.errors import Stopped, UserError, diverged, first_of
from basicsr_ext.networks.weights import not_finite
from basicsr_ext.trainer import checkpoints
from basicsr_ext.trainer.metrics_log import MetricsLog, read_metrics
from basicsr_ext.trainer.sampling import TrainSampler
from basicsr_ext.trainer.stopping import StopRequests

_SHOWN_PICTURES = 3


class CheckpointManager:
    """Takes over saving, resuming and validating of one model, BasicSR's or ours.

    BasicSR saves before it validates. Here saving is only noted, and done when the iteration is over, so that a checkpoint
    knows its own validation. The end of the run is saved and validated once.

    Args:
        model: Its methods ``save``, ``save_network``, ``save_training_state``, ``resume_training`` and ``validation`` are
            replaced; ``ranks``, if it has that, is set.
        opt: Options as BasicSR completed them.
        options: Options as a file would hold them; kept with each checkpoint.
        sampler: Of the training loader.
        stop_requests: Asked at the end of each iteration.
        data: What tells the training data from others; kept with each checkpoint.
    """

    def __init__(
        self,
        model: Any,
        opt: dict[str, Any],
        options: dict[str, Any],
        sampler: TrainSampler,
        stop_requests: StopRequests,
        data: dict[str, Any],
    ):
        self.model = model
        self.data = data
        self.opt = opt
        self.options = options
        self.sampler = sampler
        self.stop_requests = stop_requests
        self.total_iterations = int(opt['train']['total_iter'])
        self.iteration = self.saved_iteration = sampler.start.iteration
        self.validated = {(dataset, self.iteration) for dataset in self._val_sets()} if self.iteration else set()
        self.save_is_due = self._prune_is_due = False
        self.experiment = Path(opt['path']['experiments_root'])
        self.metrics: MetricsLog | None = None
        # Name of a file -> its content, until all of a checkpoint is known.
        self._networks: dict[str, dict[str, Any]] = {}
        self._buffers: set[str] = set()  # of these networks
        self._state: dict[str, Any] | None = None
        self._save, self._validate, self._resume = model.save, model.validation, model.resume_training
        model.save = self._note_save
        model.save_network = self._save_network
        model.save_training_state = self._save_training_state
        model.resume_training = self._resume_training
        model.validation = self._validation
        if isinstance(getattr(model, 'ranks', None), Ranks):
            ranks = opt['rank'], opt['world_size'], on_all_ranks
            model.ranks = Ranks(*ranks, self.keep_iterations_done, self.leave_if_asked)

    @property
    def is_first_rank(self) -> bool:
        """Whether this rank writes files."""
        return self.opt['rank'] == 0

    def _val_sets(self) -> list[str]:
        return [block['name'] for block in self.opt['datasets'].values() if block['phase'] == 'val']

    def start_metrics(self) -> MetricsLog | None:
        """Opens ``metrics.jsonl``; what was written after the checkpoint that the run goes on from is cut off."""
        if self.is_first_rank and self.metrics is None:
            self.metrics = MetricsLog(self.experiment / 'metrics.jsonl')
        return self.metrics

    # ---- when ----------------------------------------------------------------------------------------------------

    def end_iteration(self, iteration: int) -> None:
        """Writes a checkpoint where one is due, and leaves a run that was asked to stop.

        Raises:
            Stopped: After saving.
        """
        self.iteration = iteration
        self._prune_if_due()
        stop = self.stop_requests.agreed()
        if iteration == self.total_iterations:
            return  # the end of the run is saved after its validation, by end_run
        if stop or self.save_is_due:
            self.write_checkpoint()
        if stop:
            raise Stopped(iteration, self.stop_requests.signal_number, self.saved_iteration)

    def keep_iterations_done(self) -> None:
        """Writes a checkpoint of the iterations that are over, even of none, unless there is one; all ranks must call it.

        For a model that begins long work, such as AIL's updates, before it trains anything in an iteration.
        """
        if self.iteration > self.saved_iteration or self.iteration == 0:
            self.write_checkpoint()

    def leave_if_asked(self) -> None:
        """Leaves a run that was asked to stop, in the middle of such work; all ranks must call it, and answer at once.

        Raises:
            Stopped: Any rank was asked.
        """
        if any(on_all_ranks(self.stop_requests.signal_number)):
            raise Stopped(self.iteration, self.stop_requests.signal_number, self.saved_iteration)

    def end_run(self) -> None:
        """Writes the last checkpoint, unless it is written, and names its networks ``latest``.

        Raises:
            UserError: The guard refused the last step.
        """
        if self.iteration > self.saved_iteration:
            self.write_checkpoint()
        if self.iteration > self.saved_iteration:
            saved = (
                f'the newest is that of iteration {self.saved_iteration}' if self.saved_iteration else 'there is none'
            )
            raise UserError(
                f'train.guard: the last step, of iteration {self.iteration}, was skipped, since the loss had exploded, and '
                f'then no checkpoint is written; {saved}. {self._way_out_of_skips()}'
            )
        self._prune_if_due()
        if self.is_first_rank:
            for file in (self.experiment / 'models').glob(f'*_{self.iteration}.pth'):
                checkpoints.name_also(file, file.with_name(file.name.replace(f'_{self.iteration}.pth', '_latest.pth')))

    def _way_out_of_skips(self) -> str:
        guard = self.model.guard
        if guard.last_accepted:
            return 'Go on (--auto_resume) with another train.total_iter, or start anew with a lower learning rate.'
        return (
            f'No step was taken at all: every loss was above {guard.options.factor:g} times train.guard.initial '
            f'({guard.options.initial:g}). Where this network begins with larger losses, raise train.guard.initial, or leave '
            'the guard out (train.guard: ~).'
        )

    def _note_save(self, epoch: int, current_iter: int) -> None:
        self.save_is_due = True

    def _validation(self, dataloader: Any, current_iter: int, tb_logger: Any, save_img: bool = False) -> None:
        key = (dataloader.dataset.opt['name'], current_iter)
        if key not in self.validated:
            self.validated = {other for other in self.validated if other[1] == current_iter} | {key}
            with self._showing(tb_logger, *key):
                self._validate(dataloader, current_iter, tb_logger, save_img)
            self._record(*key)

    @contextmanager
    def _showing(self, tb_logger: Any, dataset: str, iteration: int) -> Iterator[None]:
        """Puts the first few results of a validation into TensorBoard."""
        if tb_logger is None:
            yield
            return
        original, shown = self.model.get_current_visuals, [0]

        def get_current_visuals() -> dict[str, torch.Tensor]:
            visuals = original()
            if shown[0] < _SHOWN_PICTURES:
                picture = visuals['result'][0].float().clamp(0, 1)
                tb_logger.add_image(f'{dataset}/{shown[0]}', picture, iteration)
                shown[0] += 1
            return visuals

        self.model.get_current_visuals = get_current_visuals
        try:
            yield
        finally:
            del self.model.get_current_visuals

    def _record(self, dataset: str, iteration: int) -> None:
        """Keeps the metrics of a validation, and asks for a checkpoint where they are the best (``keep_best``)."""
        record = getattr(self.model, 'best_metric_results', {}).get(dataset, {})
        if self.metrics is not None and record:
            best = {metric: {'value': float(r['val']), 'iteration': r['iter']} for metric, r in record.items()}
            results = {metric: float(value) for metric, value in self.model.metric_results.items()}
            self.metrics.write('validation', iteration, dataset=dataset, metrics=results, best=best)
        metric = self.opt['logger'].get('keep_best')
        if metric and from_first_rank(record.get(metric, {}).get('iter') == iteration):
            self.save_is_due = True

    def validations(self) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, dict[str, Any]]]]:
        """The run's validations, those before it was resumed too; all ranks must call it, and get the same.

        Returns:
            Set -> metric -> value in its last validation; set -> metric -> ``value`` and ``iteration`` of the best.
        """
        last, best = {}, {}
        for line in read_metrics(self.metrics.path) if self.metrics is not None else []:
            if line['event'] == 'validation':
                last[line['dataset']], best[line['dataset']] = line['metrics'], line['best']
        return from_first_rank((last, best))

    # ---- what ----------------------------------------------------------------------------------------------------

    def write_checkpoint(self) -> None:
        """Writes networks, then the state that commits them; all ranks must call it.

        While the guard refuses steps nothing is written: the weights may have exploded in the step before. The checkpoint
        stays due.

        Raises:
            UserError: A network or what an optimizer keeps is not finite; nothing is written.
        """
        if getattr(self.model, 'last_step_refused', False):
            self.save_is_due = True
            return
        self._networks, self._buffers, self._state = {}, set(), None
        self._save(self.sampler.position_after(self.iteration).epoch, self.iteration)
        self._check_finite()
        self._write_files()
        self.save_is_due = False
        self.saved_iteration = self.iteration
        self._prune()

    def _prune(self) -> None:
        """Removes old checkpoints; with a guard only after the next step that is taken.

        The newest weights may have exploded in their last step, which the guard sees in the next one.
        """
        self._prune_is_due = True
        if getattr(self.model, 'guard', None) is None:
            self._prune_if_due()

    def _prune_if_due(self) -> None:
        keep_last = self.opt['logger'].get('keep_last')
        if not self._prune_is_due or getattr(self.model, 'last_step_refused', False):
            return
        self._prune_is_due = False
        if self.is_first_rank and keep_last:
            checkpoints.prune(self.experiment, keep_last, self._best_iterations(), self.iteration)

    def _check_finite(self) -> None:
        """Refuses to write what is not finite, on all ranks."""
        spoiled = []
        if self.is_first_rank:
            tensors = {
                f'{name}, {key}.{tensor}': value
                for name, content in self._networks.items()
                for key, weights in content.items()
                for tensor, value in weights.items()
                if isinstance(value, torch.Tensor)
            }
            optimizers = (self._state or {}).get('optimizers', [])
            spoiled = not_finite(
                {**tensors, **checkpoints.tensors_of(optimizers, 'optimizer')},
                masks=self._buffers,
            )
        if spoiled := from_first_rank(spoiled):
            raise diverged(f'after iteration {self.iteration}, NaN or infinity is in {first_of(spoiled)}')

    def _write_files(self) -> None:
        if not self.is_first_rank:
            return
        digests = {}
        with checkpoints.incomplete(self.experiment, self.iteration):
            for name, content in self._networks.items():
                path = Path(self.opt['path']['models'], name)
                checkpoints.write_atomically(content, path)
                digests[name] = checkpoints.sha256(path)
            if self._state is not None:
                path = Path(self.opt['path']['training_states'], f'{self.iteration}.state')
                checkpoints.write_atomically(checkpoints.plain({**self._state, 'networks': digests}), path)
        self._networks, self._state = {}, None

    def _save_network(self, net: Any, net_label: str, current_iter: int, param_key: Any = 'params') -> None:
        if not self.is_first_rank:
            return
        nets = [self.model.get_bare_model(n) for n in (net if isinstance(net, list) else [net])]
        keys = param_key if isinstance(param_key, list) else [param_key]
        file = f'{net_label}_{current_iter}.pth'
        self._networks[file] = checkpoints.network_content(nets, keys, net_label, self.options)
        for net, key in zip(nets, keys, strict=True):
            self._buffers.update(f'{file}, {key}.{name}' for name, _ in net.named_buffers())

    def _save_training_state(self, epoch: int, current_iter: int) -> None:
        ranks = on_all_ranks(checkpoints.rank_state(self.model))
        if not self.is_first_rank:
            return
        position = self.sampler.position_after(current_iter)
        self._state = {
            'format': checkpoints.FORMAT,
            'iter': current_iter,
            'epoch': position.epoch,
            'position': (position.epoch, position.sample),
            'world_size': self.opt['world_size'],
            'optimizers': [optimizer.state_dict() for optimizer in self.model.optimizers],
            'schedulers': [scheduler.state_dict() for scheduler in self.model.schedulers],
            'ranks': ranks,
            'best_metric_results': getattr(self.model, 'best_metric_results', {}),
            'metrics_offset': self.metrics.offset() if self.metrics else 0,
            'model_type': self.opt['model_type'],
            'options': self.options,
            'data': self.data,
            'versions': checkpoints.versions(),
        }

    def _best_iterations(self) -> set[int]:
        metric = self.opt['logger'].get('keep_best')
        records = getattr(self.model, 'best_metric_results', {})
        return {record[metric]['iter'] for record in records.values() if metric in record}

    def _resume_training(self, resume_state: dict[str, Any]) -> None:
        self._resume(resume_state)
        if self.is_first_rank:
            checkpoints.remove_partial_files(self.experiment)
            self.metrics = MetricsLog(self.experiment / 'metrics.jsonl', resume_state.get('metrics_offset', 0))
        if resume_state.get('best_metric_results'):
            self.model.best_metric_results = self._with_new_metrics(resume_state['best_metric_results'])
        self._prune()  # a kill may have come before
        states = resume_state.get('ranks', [])
        if len(states) == self.opt['world_size']:
            checkpoints.restore_rank_state(self.model, states[self.opt['rank']])
        elif states:
            get_root_logger().warning(
                'What each rank keeps for itself (random numbers among it) starts anew; the rest is that of the first rank.'
            )
            checkpoints.restore_shared_state(self.model, states[0])

    def _with_new_metrics(self, best: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Adds, to the best results so far of each set, those metrics that were not computed before."""
        for name, block in ((self.opt.get('val') or {}).get('metrics') or {}).items():
            better = block.get('better', 'higher')
            worst = float('-inf') if better == 'higher' else float('inf')
            for record in best.values():
                record.setdefault(name, {'better': better, 'val': worst, 'iter': -1})
        return best
