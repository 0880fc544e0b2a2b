"""One run of BasicSR's train or test pipeline, and what replaces BasicSR's functions in it."""

from __future__ import annotations

import math
import os
from argparse import Namespace
from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from basicsr.data import build_dataloader, build_dataset
from basicsr.models import build_model as basicsr_build_model
from basicsr.utils import set_random_seed
from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.misc import check_resume

from basicsr_ext.errors import UserError
from basicsr_ext.trainer import options as option_files
from basicsr_ext.trainer import ranks
from basicsr_ext.trainer.sampling import TrainSampler


class Session:
    """Holds what the replacements of one run share.

    Args:
        options: Path of an option file, or a mapping of options.
        is_train: Training or testing.
        root: Folder in which ``experiments``, ``results`` and ``tb_logger`` are made.
        launcher: ``none``, ``pytorch`` or ``slurm``.
        auto_resume: Go on from the newest state of the experiment, if there is one.
        debug: BasicSR's debug mode.
        force_yml: Assignments such as ``train:total_iter=1000``.

    Raises:
        UserError: The options cannot be read, or ask for devices that are not there.
    """

    def __init__(
        self,
        options: str | os.PathLike | Mapping[str, Any],
        *,
        is_train: bool,
        root: Path,
        launcher: str = 'none',
        auto_resume: bool = False,
        debug: bool = False,
        force_yml: Iterable[str] = (),
    ):
        self.options = option_files.read_options(options, force_yml)
        self.file_name = 'options.yml' if isinstance(options, Mapping) else Path(options).name
        self.is_train = is_train
        self.root = root
        self.launcher = launcher
        self.auto_resume = auto_resume
        self.opt = option_files.complete_options(deepcopy(self.options), root, is_train, debug)
        self.opt['num_gpu'] = ranks.resolve_num_gpu(self.opt['num_gpu'], launcher)
        self.start_iteration = 0
        self.resume_state: dict[str, Any] | None = None
        self.train_set: Any = None

    @property
    def on_cpu(self) -> bool:
        """Whether this run leaves all GPUs alone."""
        return self.opt['num_gpu'] == 0

    def parse_options(self, root_path: str, is_train: bool = True) -> tuple[dict[str, Any], Namespace]:
        """Joins the other ranks, seeds the random number generators and returns the options as BasicSR wants them."""
        opt = self.opt
        opt['dist'] = self.launcher != 'none'
        if opt['dist']:
            ranks.start_ranks(self.launcher, opt['num_gpu'], (opt.get('dist_params') or {}).get('port'))
        opt['rank'], opt['world_size'] = get_dist_info()
        opt['manual_seed'] = self.options['manual_seed'] = ranks.choose_seed(opt.get('manual_seed'))
        set_random_seed(opt['manual_seed'] + opt['rank'])
        opt['auto_resume'] = self.auto_resume
        opt['root_path'] = str(self.root)
        for dataset in opt['datasets'].values():
            if self.on_cpu and dataset.get('prefetch_mode') == 'cuda':
                dataset['prefetch_mode'] = None  # BasicSR's CUDA prefetcher needs a CUDA stream
        return opt, Namespace(opt=self.file_name, launcher=self.launcher, auto_resume=self.auto_resume)

    def load_resume_state(self, opt: dict[str, Any]) -> dict[str, Any] | None:
        """Loads the training state to go on from, if any.

        Raises:
            UserError: A state that was asked for is missing or cannot be read.
        """
        path = opt['path'].get('resume_state')
        if opt['auto_resume']:
            states = [p for p in Path(opt['path']['training_states']).glob('*.state') if p.stem.isdigit()]
            path = max(states, key=lambda p: int(p.stem), default=None)
            opt['path']['resume_state'] = path and str(path)
        if path is None:
            return None
        try:
            state = torch.load(path, map_location='cpu', weights_only=True)
            self.start_iteration = state['iter']
        except Exception as error:
            raise UserError(
                f'path.resume_state: expected a training state that BasicSR saved, found {path} '
                f'({type(error).__name__}: {str(error).splitlines()[0]}).'
            ) from None
        check_resume(opt, self.start_iteration)
        self.resume_state = state
        return state

    def write_options(self, opt_file: str, experiments_root: str) -> None:
        """Writes the options of this run, ``--force_yml`` and seed included, into the experiment's folder."""
        if self.opt['rank'] == 0:
            text = yaml.safe_dump(self.options, sort_keys=False, allow_unicode=True, width=120)
            Path(experiments_root, opt_file).write_text(text, encoding='utf-8')

    def create_dataloaders(self, opt: dict[str, Any], logger: Any) -> tuple[Any, TrainSampler, list, int, int]:
        """Builds the loaders, with an epoch's length as it is and a sampler that knows where to go on.

        Returns:
            Training loader, its sampler, validation loaders, number of the last epoch, total iterations.

        Raises:
            UserError: A batch is larger than an epoch, or a dataset block is named wrongly.
        """
        val_loaders = []
        for name, dataset_opt in opt['datasets'].items():
            if dataset_opt['phase'] == 'train':
                train_loader, sampler = self._create_train_loader(dataset_opt)
            elif dataset_opt['phase'] == 'val':
                val_set = build_dataset(dataset_opt)
                val_loaders.append(
                    build_dataloader(val_set, dataset_opt, num_gpu=opt['num_gpu'], dist=opt['dist'], sampler=None)
                )
                logger.info(f'Number of val images/folders in {dataset_opt["name"]}: {len(val_set)}')
            else:
                raise UserError(f'datasets.{name}: expected a name such as train, val or val_2.')
        total_iterations = int(opt['train']['total_iter'])
        epochs = math.ceil(total_iterations / sampler.iterations_per_epoch)
        if self.resume_state is not None:
            self.resume_state['epoch'] = self.start_iteration // sampler.iterations_per_epoch
        logger.info(
            f'Training: {len(self.train_set)} images, {sampler.batch_size} samples a rank and iteration, '
            f'{opt["world_size"]} ranks, {sampler.iterations_per_epoch} iterations an epoch, '
            f'{epochs} epochs, {total_iterations} iterations.'
        )
        return train_loader, sampler, val_loaders, epochs - 1, total_iterations

    def _create_train_loader(self, dataset_opt: dict[str, Any]) -> tuple[Any, TrainSampler]:
        opt = self.opt
        self.train_set = build_dataset(dataset_opt)
        ratio = dataset_opt.get('dataset_enlarge_ratio') or 1
        sampler = TrainSampler(
            len(self.train_set),
            batch_size=dataset_opt['batch_size_per_gpu'],
            world_size=opt['world_size'],
            rank=opt['rank'],
            ratio=ratio,
            seed=opt['manual_seed'],
            start_iteration=self.start_iteration,
            keyed=getattr(self.train_set, 'takes_sample_id', False),
        )
        if sampler.iterations_per_epoch == 0:
            raise UserError(
                f'datasets.train.batch_size_per_gpu: {sampler.batch_size} samples on each of {opt["world_size"]} ranks are '
                f'more than an epoch of {len(self.train_set)} x {ratio}. Lower it, or raise dataset_enlarge_ratio.'
            )
        loader = build_dataloader(
            self.train_set, dataset_opt, num_gpu=1, dist=opt['dist'], sampler=sampler, seed=opt['manual_seed']
        )
        return loader, sampler

    def build_model(self, opt: dict[str, Any]) -> Any:
        """Builds the model, and shows it its training set where it wants to see it (``bind``)."""
        model = basicsr_build_model(opt)
        if self.is_train and hasattr(model, 'bind'):
            model.bind(self.train_set)
        return model
