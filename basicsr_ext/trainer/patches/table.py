"""The named functions of BasicSR that a run under our command replaces, and why.

Only the command does this, for the time of a run; :func:`basicsr_ext.register` never does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from basicsr_ext.errors import UserError

BASICSR_VERSION = '1.4.2'


class Patch(NamedTuple):
    """One replaced name.

    Attributes:
        target: ``module:attribute`` or ``module:Class.attribute``.
        replacement: What stands there during a run.
        upstream: File and line of what is replaced.
        why: What upstream does that a run cannot live with.
    """

    target: str
    replacement: Callable
    upstream: str
    why: str


def all_patches(session: Any) -> list[Patch]:
    """The table of patches for a run.

    Args:
        session: The run (:class:`basicsr_ext.trainer.session.Run`), whose methods and values the replacements use.
    """
    from basicsr_ext.checking.dataset_building import build_dataset
    from basicsr_ext.models.optimizers import build_optimizer
    from basicsr_ext.trainer.logging import versions
    from basicsr_ext.trainer.patches import basicsr_models, distributed_validation, image_io

    quiet = [
        *(
            Patch(f'basicsr.{pipeline}:get_env_info', versions, 'utils/logger.py:188', 'draws a banner of twelve lines')
            for pipeline in ('train', 'test')
        ),
        Patch('basicsr.models.base_model:BaseModel.print_network', basicsr_models.print_network, 'models/base_model.py:132',
             'writes a line for each layer'),
    ]  # fmt: skip
    return [
        *(quiet if session.quiet else []),
        Patch('basicsr.train:parse_options', session.parse_options, 'utils/options.py:82',
             'reads sys.argv, runs code found in YAML and --force_yml, and starts NCCL whatever the device'),
        Patch('basicsr.test:parse_options', session.parse_options, 'utils/options.py:82', 'as above'),
        Patch('basicsr.train:load_resume_state', session.load_resume_state, 'train.py:68',
             'asks for a CUDA device, and trips over stray files and other working directories'),
        Patch('basicsr.train:copy_opt_file', session.write_options, 'utils/options.py:181',
             'copies the file as it was before --force_yml and without the seed; needs a file'),
        Patch('basicsr.train:create_train_val_dataloader', session.create_dataloaders, 'train.py:29',
             'counts an epoch too long (the incomplete batch is dropped), so that training ends before total_iter; '
             'resumes every epoch at its first batch'),
        Patch('basicsr.train:build_model', session.build_model, 'models/__init__.py:18',
             'a model never meets its training set; it saves before it validates, and neither whole nor everything; '
             "the pipeline has just turned cuDNN's benchmark on, whatever the options say"),
        Patch('basicsr.test:build_model', session.build_model, 'models/__init__.py:18',
             "the pipeline has just turned cuDNN's benchmark on, whatever the options say"),
        Patch('basicsr.test:build_dataset', build_dataset, 'data/__init__.py:25',
             'asserts what it expects of folders, without a word of which dataset'),
        Patch('basicsr.train:init_tb_loggers', session.init_tb_loggers, 'train.py:17',
             'writes what is done again after resuming a second time'),
        Patch('basicsr.train:MessageLogger', session.make_message_logger, 'utils/logger.py:45',
             'keeps no record that tools can read'),
        Patch('basicsr.train:CPUPrefetcher', session.make_prefetcher, 'data/prefetch_dataloader.py:63',
             'starts the loader twice; hides where an iteration ends'),
        Patch('basicsr.train:CUDAPrefetcher', session.make_prefetcher, 'data/prefetch_dataloader.py:84',
             'as above; fails on the CPU'),
        Patch('basicsr.models.base_model:BaseModel.model_to_device', basicsr_models.model_to_device,
             'models/base_model.py:87', 'gives DistributedDataParallel a CUDA device on a CPU run'),
        Patch('basicsr.models.base_model:BaseModel.get_optimizer',
             lambda self, optim_type, params, lr, **arguments: build_optimizer(optim_type, params, lr, **arguments),
             'models/base_model.py:103', 'knows only Adam'),
        Patch('basicsr.models.base_model:BaseModel.setup_schedulers', basicsr_models.setup_schedulers,
             'models/base_model.py:110', 'knows three schedulers'),
        Patch('basicsr.models.base_model:BaseModel.load_network', basicsr_models.load_network, 'models/base_model.py:277',
             'loads a file without weights_only on older torch, needs the right key, and says nothing of what matched'),
        Patch('basicsr.models.sr_model:SRModel.test', basicsr_models.test, 'models/sr_model.py:121',
             'runs through the DistributedDataParallel wrapper on one rank, which waits for the others where a network '
             'has buffers'),
        Patch('basicsr.models.swinir_model:SwinIRModel.test', basicsr_models.test, 'models/swinir_model.py:11', 'as above'),
        Patch('basicsr.models.sr_model:calculate_metric', session.scores.calculate_metric, 'metrics/__init__.py:10',
             'keeps the means of a set only; rounds the luminance that a network made into the colours of an image'),
        Patch('basicsr.models.sr_model:SRModel.dist_validation', distributed_validation.dist_validation,
             'models/sr_model.py:132', 'lets the first rank do all the work, while the others wait and may run out of time'),
        Patch('basicsr.models.sr_model:SRModel._log_validation_metric_values', basicsr_models.log_validation_metric_values,
             'models/sr_model.py:203', 'calls the one value of a test the best of all iterations'),
        Patch('basicsr.models.realesrgan_model:filter2D', basicsr_models.filter2D, 'utils/img_process_util.py:7',
             'needs images that are contiguous in memory, which an interpolation on the CPU does not promise'),
        Patch('basicsr.models.realesrnet_model:filter2D', basicsr_models.filter2D, 'utils/img_process_util.py:7', 'as above'),
        Patch('basicsr.utils.file_client:FileClient.get', image_io.get, 'utils/file_client.py:158',
             'decoding does not know from where an image comes'),
        *(
            Patch(f'basicsr.data.{module}_dataset:imfrombytes', image_io.imfrombytes, 'utils/img_util.py:114',
                 'trips over a damaged image, and does not name it')
            for module in ('paired_image', 'single_image', 'realesrgan', 'realesrgan_paired', 'ffhq', 'reds', 'vimeo90k')
        ),
        *(
            Patch(f'{module}:imwrite', image_io.imwrite, 'utils/img_util.py:135',
                 'says neither which image could not be written, nor why')
            for module in ('basicsr.models.sr_model', 'basicsr.models.video_base_model',
                           'basicsr.models.video_recurrent_model', 'basicsr_ext.models.lfcsr.validation')
        ),
        *(
            Patch(f'{module}:tensor2img', image_io.tensor2img, 'utils/img_util.py:38', 'makes a black picture of NaN')
            for module in ('basicsr.models.sr_model', 'basicsr.models.video_base_model',
                           'basicsr.models.video_recurrent_model', 'basicsr_ext.models.lfcsr.validation')
        ),
        *(
            Patch(f'basicsr.models.{module}:calculate_metric', image_io.calculate_metric, 'metrics/__init__.py:10',
                 'scores the black picture of NaN')
            for module in ('video_base_model', 'video_recurrent_model')
        ),
    ]  # fmt: skip


def _locate(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(':')
    owner: Any = importlib.import_module(module)
    *parents, name = path.split('.')
    for parent in parents:
        owner = getattr(owner, parent)
    getattr(owner, name)
    return owner, name


def check_basicsr(patches: list[Patch]) -> None:
    """Refuses a BasicSR whose inside is not the one that the patches were made for.

    Raises:
        UserError: Another version, or a name that a patch replaces is missing.
    """
    import basicsr

    if basicsr.__version__ != BASICSR_VERSION:
        raise UserError(
            f'BasicSR: expected version {BASICSR_VERSION}, found {basicsr.__version__}. '
            'Install it with: python -m basicsr_ext.install_basicsr'
        )
    for patch in patches:
        try:
            _locate(patch.target)
        except (ImportError, AttributeError) as error:
            raise UserError(f'BasicSR {basicsr.__version__} lacks {patch.target} ({error}): reinstall it.') from None


@contextmanager
def installed(patches: list[Patch]) -> Iterator[None]:
    """Puts all replacements in place, and the originals back when the context ends."""
    check_basicsr(patches)
    originals = []
    try:
        for patch in patches:
            owner, name = _locate(patch.target)
            originals.append((owner, name, vars(owner)[name]))
            setattr(owner, name, patch.replacement)
        yield
    finally:
        for owner, name, original in reversed(originals):
            setattr(owner, name, original)
