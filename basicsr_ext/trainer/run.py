"""Runs BasicSR's pipelines from options."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from basicsr_ext.errors import UserError
from basicsr_ext.registration import register
from basicsr_ext.trainer.checking import check_options
from basicsr_ext.trainer.checking.resolving import find_root, print_warnings, resolved
from basicsr_ext.trainer.checking.source import read_source


def train(
    options: str | os.PathLike | Mapping[str, Any],
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
    force_yml: Iterable[str] = (),
    root: str | os.PathLike | None = None,
) -> None:
    """Trains with BasicSR's ``train_pipeline``.

    Args:
        options: Path of an option file, or the options as a mapping.
        launcher: ``none``, ``pytorch`` (under torchrun) or ``slurm``.
        auto_resume: Go on from the experiment's newest state, if there is one.
        debug: BasicSR's debug mode: short intervals, a name of its own.
        force_yml: Assignments such as ``train:total_iter=1000``.
        root: Where ``experiments`` and ``tb_logger`` are made; default: the option ``path.root``, or the working directory.

    Raises:
        UserError: Options, files or devices are not as they must be, or memory is short.
        Stopped: Ctrl-C or SIGTERM: the iteration was finished and saved.
    """
    _run(True, options, launcher=launcher, auto_resume=auto_resume, debug=debug, force_yml=force_yml, root=root)


def test(
    options: str | os.PathLike | Mapping[str, Any],
    *,
    launcher: str = 'none',
    debug: bool = False,
    force_yml: Iterable[str] = (),
    root: str | os.PathLike | None = None,
) -> None:
    """Tests with BasicSR's ``test_pipeline``; arguments and errors as of :func:`train`."""
    _run(False, options, launcher=launcher, debug=debug, force_yml=force_yml, root=root)


def _run(
    is_train: bool,
    options: Any,
    *,
    root: str | os.PathLike | None,
    launcher: str,
    auto_resume: bool = False,
    debug: bool,
    force_yml: Iterable[str],
) -> None:
    source = read_source(options, force_yml)  # before torch is imported: a file that is no YAML is refused at once
    register()
    import basicsr.test
    import basicsr.train

    from basicsr_ext.compat import cuda_calls
    from basicsr_ext.trainer.ranks import leave_ranks
    from basicsr_ext.trainer.seams import all_seams, installed
    from basicsr_ext.trainer.session import Session

    root = Path(root).resolve() if root else find_root(source.values)
    report = check_options(
        source, is_train=is_train, root=root, launcher=launcher, auto_resume=auto_resume, rehearse=True
    )
    report.raise_problems()
    print_warnings(report)
    session = Session(
        resolved(report, root), is_train=is_train, root=root, launcher=launcher, auto_resume=auto_resume, debug=debug
    )
    _forget_logger()
    pipeline = basicsr.train.train_pipeline if is_train else basicsr.test.test_pipeline
    try:
        with (
            installed(all_seams(session)),
            session.stop_requests,
            cuda_calls.ignored() if session.on_cpu else nullcontext(),
        ):
            pipeline(str(root))
            if session.keeper is not None:
                session.keeper.end_run()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise UserError(f'The disk is full ({error}). Make room, then go on with --auto_resume.') from error
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        raise UserError(_memory_message(session.opt)) from error
    finally:
        leave_ranks()
        _forget_logger()


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _memory_message(opt: dict[str, Any]) -> str:
    data, train = opt['datasets'].get('train', {}), opt.get('train') or {}
    found = {
        'datasets.train.batch_size_per_gpu': data.get('batch_size_per_gpu'),
        'datasets.train.gt_size': data.get('gt_size'),
        'train.accumulate': train.get('accumulate', 1),
        'train.precision': train.get('precision', 'fp32'),
    }
    return (
        f'Out of memory with {", ".join(f"{key}: {value}" for key, value in found.items())}. Lower the batch or the crop, '
        'raise accumulate, or choose bf16.'
    )


def _forget_logger() -> None:
    """Closes BasicSR's log, which a process opens once only, so that each run gets a file of its own."""
    from basicsr.utils import logger as basicsr_logger

    for name in list(basicsr_logger.initialized_logger):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
    basicsr_logger.initialized_logger.clear()
