"""One run of BasicSR's train or test pipeline, and what replaces BasicSR's functions in it."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from basicsr.data import build_dataloader
from basicsr.models import build_model as basicsr_build_model
from basicsr.utils import get_root_logger, init_wandb_logger, set_random_seed
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.misc import check_resume
from torch import nn

from basicsr_ext import distributed as ranks
from basicsr_ext.checking.dataset_building import build_dataset
from basicsr_ext.errors import UserError
from basicsr_ext.models.from_total import KeyPath, fill_from_total, get_option, set_option
from basicsr_ext.options import complete as option_files
from basicsr_ext.options.config import FromTotal
from basicsr_ext.options.source import OptionSource
from basicsr_ext.options.yaml import write_yaml
from basicsr_ext.processes import start_worker, worker_context
from basicsr_ext.trainer import checkpoints
from basicsr_ext.trainer.checkpointing import CheckpointManager
from basicsr_ext.trainer.determinism import use_deterministic_algorithms
from basicsr_ext.trainer.locking import ExperimentLock
from basicsr_ext.trainer.logging import RunLogger
from basicsr_ext.trainer.patches.basicsr_losses import sum_losses_over_ranks, tell_losses_the_iteration
from basicsr_ext.trainer.patches.basicsr_models import watch_gradients
from basicsr_ext.trainer.patches.per_image_scores import ScoreRecord, Scores
from basicsr_ext.trainer.prefetching import BATCH_LIMIT, Prefetcher
from basicsr_ext.trainer.randomness import KeyedDataset
from basicsr_ext.trainer.resuming import check_same_data, fingerprint
from basicsr_ext.trainer.sampling import Position, TrainSampler
from basicsr_ext.trainer.stopping import StopRequests


class Run:
    """Holds what the replacements of one run share.

    Args:
        options: Path of an option file, or a mapping of options, or options that were read and checked.
        is_train: Training or testing.
        root: Folder in which ``experiments``, ``results`` and ``tb_logger`` are made.
        launcher: ``none``, ``pytorch`` or ``slurm``.
        auto_resume: Go on from the newest state of the experiment, if there is one.
        debug: BasicSR's debug mode.
        force_yml: Assignments such as ``train:total_iter=1000``.
        quiet: Leave BasicSR's banner and the networks' layers out of the log.

    Raises:
        UserError: The options cannot be read, or ask for devices that are not there.
    """

    def __init__(
        self,
        options: str | os.PathLike | Mapping[str, Any] | OptionSource,
        *,
        is_train: bool,
        root: Path,
        launcher: str = 'none',
        auto_resume: bool = False,
        debug: bool = False,
        force_yml: Iterable[str] = (),
        quiet: bool = False,
    ):
        self.options = option_files.read_options(options, force_yml)
        self.from_total: dict[KeyPath, FromTotal] = {}  # options that were computed from train.total_iter
        self.notes: list[str] = []  # for the log, as soon as there is one
        if isinstance(options, OptionSource):
            self.file_name = options.name
        else:
            self.file_name = 'options.yml' if isinstance(options, Mapping) else Path(options).name
        self.is_train = is_train
        if is_train and {'model_type', 'train'} <= self.options.keys():
            self.from_total = fill_from_total(self.options)
        self.root = root
        self.launcher = launcher
        self.auto_resume = auto_resume
        self.quiet = quiet
        self.opt = option_files.complete_options(deepcopy(self.options), root, is_train, debug)
        if not is_train:
            self.opt['val'].setdefault('suffix', None)  # BasicSR looks it up where it saves images
        self.opt['num_gpu'] = ranks.resolve_num_gpu(self.opt['num_gpu'], launcher)
        self.resume_state: dict[str, Any] | None = None
        self.train_set: Any = None
        self.data: dict[str, Any] = {}  # what tells the training data from others
        self.sampler: TrainSampler | None = None
        self.read_ahead = 0  # batches
        self.feeder: Prefetcher | None = None
        self.keeper: CheckpointManager | None = None
        self.stop_requests = StopRequests()
        self.lock = ExperimentLock(Path(self.opt['path']['experiments_root'])) if is_train else None
        self.scores = ScoreRecord()
        self.gathered_scores: dict[str, Scores] = {}
        self.validations: tuple[dict, dict] = {}, {}  # of a training: the last results, and the best

    @property
    def on_cpu(self) -> bool:
        """Whether this run leaves all GPUs alone."""
        return self.opt['num_gpu'] == 0

    def write_results_to(self, subfolder: str) -> None:
        """Moves what a test writes into a folder within ``results/<name>``; images get its name, unless they have a suffix."""
        self.opt['val']['suffix'] = self.opt['val']['suffix'] or subfolder
        folder = Path(self.opt['path']['results_root'], subfolder)
        self.opt['path'].update(results_root=str(folder), log=str(folder), visualization=str(folder / 'visualization'))

    def parse_options(self, root_path: str, is_train: bool = True) -> tuple[dict[str, Any], Namespace]:
        """Joins the other ranks, locks the experiment, seeds the random number generators.

        Returns:
            The options as BasicSR wants them, and its arguments.
        """
        opt = self.opt
        opt['dist'] = self.launcher != 'none'
        # Where several checkpoints are tested, one after the other, the ranks have met before.
        if opt['dist'] and not ranks.is_distributed():
            ranks.start_ranks(self.launcher, opt['num_gpu'], (opt.get('dist_params') or {}).get('port'))
        self.stop_requests.group = ranks.cpu_group()
        opt['rank'], opt['world_size'] = get_dist_info()
        self._lock_experiment()
        self.seed_is_given = opt.get('manual_seed') is not None
        self._seed(ranks.choose_seed(opt.get('manual_seed')))
        opt['auto_resume'] = self.auto_resume
        opt['root_path'] = str(self.root)
        for dataset in opt['datasets'].values():
            if dataset['phase'] != 'train':
                dataset['prefetch_mode'] = None  # BasicSR's thread hangs where a dataset raises an error
            elif self.on_cpu and dataset.get('prefetch_mode') == 'cuda':
                dataset['prefetch_mode'] = None  # there is nothing to copy ahead to
            if self.on_cpu:
                dataset['pin_memory'] = False
        return opt, Namespace(opt=self.file_name, launcher=self.launcher, auto_resume=self.auto_resume)

    def _lock_experiment(self) -> None:
        """Keeps other runs of this name out; the first rank does, for all."""
        refusal = None
        if self.lock is not None and self.opt['rank'] == 0:
            try:
                self.lock.acquire()
            except UserError as error:
                refusal = str(error)
        refusal = ranks.from_first_rank(refusal)
        if refusal is not None:
            raise UserError(refusal)

    def _seed(self, seed: int) -> None:
        self.opt['manual_seed'] = self.options['manual_seed'] = seed
        set_random_seed(seed + self.opt['rank'])

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """Loads the training state to go on from, if any: with ``--auto_resume`` the newest that is whole.

        Raises:
            UserError: A state that was asked for is missing or damaged, or belongs to a run with other options; or there are
                states, and none is whole.
        """
        path = opt['path'].get('resume_state')
        if opt['auto_resume']:
            folder = Path(opt['path']['training_states'])
            newest, problems = ranks.from_first_rank(checkpoints.newest_state(folder))
            if newest is None and problems:
                raise UserError(
                    f'--auto_resume: expected a checkpoint that is whole in {folder}, found only damaged ones. The newest: '
                    f'{problems[0]} Bring one back, or start anew without --auto_resume.'
                )
            for problem in problems if opt['rank'] == 0 else []:
                print(f'Warning: {problem} The checkpoint before it is taken.', flush=True)
            path = opt['path']['resume_state'] = newest and str(newest)
        if path is None:
            return None
        state = checkpoints.read_state(Path(path))
        if not self.seed_is_given and (state.get('options') or {}).get('manual_seed') is not None:
            self._seed(state['options']['manual_seed'])
        if state.get('options'):
            self._keep_computed_options(state['options'])
        checkpoints.check_same_run(state.get('options'), self.options)
        check_resume(opt, state['iter'])
        for key in [key for key in opt['path'] if key.endswith('_leave_out')]:
            del opt['path'][key]  # belongs to the weights that the run once started from
        self.resume_state = state
        return state

    def _keep_computed_options(self, saved: dict[str, Any]) -> None:
        """Takes what was once computed from ``train.total_iter`` from the checkpoint: it may be another one now."""
        before, now = int(saved['train']['total_iter']), int(self.options['train']['total_iter'])
        for path, mark in self.from_total.items():
            value = get_option(saved, path)
            value = mark.value(before) if value in (None, 'auto') else value
            set_option(saved, path, value)
            if value != get_option(self.options, path):
                self.notes.append(
                    f'{".".join(path)}: {value:g} stays, as the run began with it; by train.total_iter, {before} before and '
                    f'{now} now, it would be {get_option(self.options, path):g}. Another value needs a new run.'
                )
                set_option(self.options, path, value)
                set_option(self.opt, path, value)

    def write_options(self, opt_file: str, experiments_root: str) -> None:
        """Writes the options of this run, from which alone it can be repeated, into the experiment's folder."""
        if self.opt['rank'] == 0:
            options = {**self.options, 'name': self.opt['name']}  # debug mode changes the name, and goes by it
            Path(experiments_root, opt_file).write_text(write_yaml(options), encoding='utf-8')

    def create_dataloaders(self, opt: dict[str, Any], logger: Any) -> tuple[Any, TrainSampler, list, int, int]:
        """Builds the loaders, with an epoch's length as it is and a sampler that knows where to go on.

        Returns:
            Training loader, its sampler, validation loaders, number of the last epoch, total iterations.

        Raises:
            UserError: A batch is larger than an epoch, or a dataset block is named wrongly.
        """
        for note in self.notes:
            logger.info(note)
        val_loaders = []
        for name, dataset_opt in opt['datasets'].items():
            if dataset_opt['phase'] == 'train':
                train_loader, sampler = self._create_train_loader(dataset_opt)
            elif dataset_opt['phase'] == 'val':
                val_set = build_dataset(dataset_opt)
                val_loader = build_dataloader(
                    val_set, dataset_opt, num_gpu=opt['num_gpu'], dist=opt['dist'], sampler=None
                )
                val_loader.generator = torch.Generator()
                val_loaders.append(val_loader)
                logger.info(f'Number of val images/folders in {dataset_opt["name"]}: {len(val_set)}')
            else:
                raise UserError(f'datasets.{name}: expected a name such as train, val or val_2.')
        total_iterations = int(opt['train']['total_iter'])
        if sampler.start.iteration >= total_iterations:
            logger.info(f'Iteration {sampler.start.iteration} of {total_iterations}: nothing is left to train.')
        last_epoch = sampler.position_after(total_iterations).epoch
        if self.resume_state is not None:
            self.resume_state['epoch'] = sampler.start.epoch
        logger.info(
            f'Training: {len(self.train_set)} images, {sampler.batch_size} samples a rank and iteration, '
            f'{opt["world_size"]} ranks, {sampler.iterations_per_epoch} iterations an epoch, '
            f'{last_epoch + 1} epochs, {total_iterations} iterations.'
        )
        return train_loader, sampler, val_loaders, last_epoch, total_iterations

    def _create_train_loader(self, dataset_opt: dict[str, Any]) -> tuple[Any, TrainSampler]:
        opt = self.opt
        self.train_set = build_dataset(dataset_opt)
        self.data = fingerprint(self.train_set)
        if self.resume_state is not None:
            warning = check_same_data(self.resume_state.get('data'), self.data)
            if warning:
                get_root_logger().warning(warning)
        keyed = self.train_set if getattr(self.train_set, 'takes_sample_id', False) else KeyedDataset(self.train_set)
        ratio = dataset_opt.get('dataset_enlarge_ratio') or 1
        self.sampler = sampler = TrainSampler(
            len(self.train_set),
            batch_size=dataset_opt['batch_size_per_gpu'],
            world_size=opt['world_size'],
            rank=opt['rank'],
            ratio=ratio,
            seed=opt['manual_seed'],
            start=self._start(),
        )
        if sampler.iterations_per_epoch == 0:
            raise UserError(
                f'datasets.train.batch_size_per_gpu: {sampler.batch_size} samples on each of {opt["world_size"]} ranks are '
                f'more than an epoch of {len(self.train_set)} x {ratio}. Lower it, or raise dataset_enlarge_ratio.'
            )
        # BasicSR's prefetch thread hangs where a dataset raises an error: workers, or a thread of ours, read ahead instead
        workers = dataset_opt.get('num_worker_per_gpu') or 0
        dataset_opt = {**dataset_opt, 'prefetch_mode': None, 'num_worker_per_gpu': workers}
        if workers == 0 and getattr(keyed, 'thread_safe', False):
            self.read_ahead = 1 + dataset_opt.get('num_prefetch_queue', 1)
        loader = build_dataloader(
            keyed, dataset_opt, num_gpu=1, dist=opt['dist'], sampler=sampler, seed=opt['manual_seed']
        )
        if workers > 0:
            loader.multiprocessing_context, loader.worker_init_fn = worker_context(), start_worker
            loader.timeout = BATCH_LIMIT
        loader.generator = torch.Generator()  # else each epoch would draw from torch's, which the model uses
        return loader, sampler

    def _start(self) -> Position:
        state = self.resume_state
        if state is None:
            return Position()
        saved_by = state.get('world_size', self.opt['world_size'])
        if saved_by != self.opt['world_size']:
            get_root_logger().warning(
                f'The run was saved by {saved_by} ranks and goes on with {self.opt["world_size"]}: at the same sample, but '
                'not with the same numbers to the bit.'
            )
        return Position(state['iter'], *state.get('position', (state['epoch'], 0)))

    def init_tb_loggers(self, opt: dict[str, Any]) -> Any:
        """Opens TensorBoard's log (and W&B's, as BasicSR does); steps after the one resumed from are purged from it."""
        if not opt['logger'].get('use_tb_logger') or 'debug' in opt['name'] or opt['rank'] != 0:
            return None
        if (opt['logger'].get('wandb') or {}).get('project') is not None:
            init_wandb_logger(opt)  # before TensorBoard's, which it listens to
        from torch.utils.tensorboard import SummaryWriter

        purge = None if self.resume_state is None else self.resume_state['iter'] + 1
        return SummaryWriter(str(self.root / 'tb_logger' / opt['name']), purge_step=purge)

    def make_message_logger(self, opt: dict[str, Any], start_iter: int, tb_logger: Any) -> RunLogger:
        """Gives BasicSR's loop the logger that also writes ``metrics.jsonl``."""
        self.message_logger = RunLogger(opt, start_iter, tb_logger, self.keeper.start_metrics(), self.keeper.model)
        return self.message_logger

    def make_prefetcher(self, loader: Any, opt: dict[str, Any] | None = None) -> Prefetcher:
        """Gives BasicSR's loop its batches; ``opt`` is what BasicSR hands to its CUDA prefetcher."""
        device = torch.device('cuda') if opt is not None and not self.on_cpu else None
        total = int(self.opt['train']['total_iter'])
        is_first, keeper = self.opt['rank'] == 0, self.keeper
        self.feeder = Prefetcher(
            loader, keeper.iteration, total, self._end_iteration, device, self.read_ahead, is_first
        )
        return self.feeder

    def _warn_of_batch_norm(self, model: Any) -> None:
        """Says of which networks several ranks are not one with the whole batch."""
        networks = [
            name
            for name, network in vars(model).items()
            if name.startswith('net_') and name != 'net_g_ema' and isinstance(network, nn.Module)
            if any(isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) for module in network.modules())
        ]
        if networks and self.opt['world_size'] > 1:
            get_root_logger().warning(
                f'{", ".join(networks)}: batch normalisation takes the statistics of the batch of each rank alone, so that '
                f'{self.opt["world_size"]} ranks do not train as one with the whole batch.'
            )

    def _end_iteration(self, iteration: int) -> None:
        self.message_logger.note_losses()
        self.keeper.end_iteration(iteration)

    def close(self) -> None:
        """Ends what works beside the run, threads and processes, and lets other runs of this name begin."""
        if self.feeder is not None:
            self.feeder.close()
        if self.lock is not None:
            self.lock.release()

    def build_model(self, opt: dict[str, Any]) -> Any:
        """Builds the model, shows it its training set where it wants to see it (``bind``), and takes over its saving.

        By now BasicSR has turned cuDNN's benchmark on; with ``deterministic: true`` it is turned off again.
        """
        if opt.get('deterministic'):
            use_deterministic_algorithms()
        model = basicsr_build_model(opt)
        self.scores.model = model
        if not self.is_train:
            self.scores.follow(model)
        if self.is_train:
            tell_losses_the_iteration(model)
            watch_gradients(model)
            sum_losses_over_ranks(model)
            self._warn_of_batch_norm(model)
            self.keeper = CheckpointManager(model, self.opt, self.options, self.sampler, self.stop_requests, self.data)
            if hasattr(model, 'bind'):
                model.bind(self.train_set)
        return model
