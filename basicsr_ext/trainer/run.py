"""Runs BasicSR's pipelines from options."""

from __future__ import annotations

import errno
import logging
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from basicsr_ext.checking import check_options
from basicsr_ext.errors import RankLost, UserError, first_of
from basicsr_ext.files import follow_links
from basicsr_ext.options.resolve import find_root, print_warnings, resolved
from basicsr_ext.options.source import OptionSource, read_source
from basicsr_ext.registration import register
from basicsr_ext.trainer import out_of_memory

if TYPE_CHECKING:
    from basicsr_ext.trainer.session import Run

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


class Best(NamedTuple):
    """The best value of a metric in a training.

    Attributes:
        value: In the metric's unit.
        iteration: Of its validation.
    """

    value: float
    iteration: int


class TrainRun(NamedTuple):
    """What came out of a training.

    Attributes:
        folder: The experiment's: weights, states, log, ``metrics.jsonl``, options as they were used.
        weights: Label of a network, such as ``net_g`` -> file of its weights at the end of the run.
        last: Set -> metric -> value in the last validation; empty without validation.
        best: Set -> metric -> its best value, and the iteration of that.
        iteration: The last one.
        opt: Options as BasicSR completed them.
    """

    folder: Path
    weights: dict[str, Path]
    last: dict[str, dict[str, float]]
    best: dict[str, dict[str, Best]]
    iteration: int
    opt: dict[str, Any]


class TestRun(NamedTuple):
    """What came out of a test.

    Attributes:
        scores: Set -> image -> metric -> value; of all ranks.
        folder: Where its images and its log are.
        opt: Options as BasicSR completed them.
    """

    __test__ = False  # no test of pytest's

    scores: dict[str, dict[str, dict[str, float]]]
    folder: Path
    opt: dict[str, Any]


def train(
    options: str | os.PathLike | Mapping[str, Any],
    *,
    launcher: str = 'none',
    auto_resume: bool = False,
    debug: bool = False,
    force_yml: Iterable[str] = (),
    root: str | os.PathLike | None = None,
    quiet: bool = False,
) -> TrainRun:
    """Trains with BasicSR's ``train_pipeline``.

    Args:
        options: Path of an option file, or the options as a mapping, in which ``_base_`` may name option files.
        launcher: ``none``, ``pytorch`` (under torchrun) or ``slurm``.
        auto_resume: Go on from the experiment's newest state, if there is one.
        debug: BasicSR's debug mode: short intervals, a name of its own.
        force_yml: Assignments such as ``train:total_iter=1000``.
        root: Where ``experiments`` and ``tb_logger`` are made; default: the option ``path.root``, or the working directory.
        quiet: Leave BasicSR's banner and the networks' layers out of the log.

    Returns:
        What came out; the same on all ranks.

    Raises:
        UserError: Options, files or devices are not as they must be, or memory is short.
        Stopped: Ctrl-C or SIGTERM: the iteration was finished and saved.
    """
    session = _run(
        True,
        options,
        launcher=launcher,
        auto_resume=auto_resume,
        debug=debug,
        force_yml=force_yml,
        root=root,
        quiet=quiet,
    )
    last, best = session.validations
    return TrainRun(
        folder=Path(session.opt['path']['experiments_root']),
        weights={
            path.stem.removesuffix('_latest'): path
            for path in sorted(Path(session.opt['path']['models']).glob('*_latest.pth'))
        },
        last=last,
        best={name: {metric: Best(**record) for metric, record in of_set.items()} for name, of_set in best.items()},
        iteration=session.keeper.iteration,
        opt=session.opt,
    )


def test(
    options: str | os.PathLike | Mapping[str, Any],
    *,
    launcher: str = 'none',
    debug: bool = False,
    force_yml: Iterable[str] = (),
    root: str | os.PathLike | None = None,
    subfolder: str = '',
    leave_ranks: bool = True,
    quiet: bool = False,
) -> TestRun:
    """Tests with BasicSR's ``test_pipeline``; for several checkpoints, and tables, see ``evaluation.testing``.

    Args:
        options: As for :func:`train`, or options that were read.
        launcher: As for :func:`train`.
        debug: As for :func:`train`.
        force_yml: As for :func:`train`.
        root: Where ``results`` is made.
        subfolder: Of ``results/<name>``, for what this test writes.
        leave_ranks: Whether this is the last test of the process: ranks can be joined once only.
        quiet: As for :func:`train`.

    Returns:
        What came out.

    Raises:
        UserError: As for :func:`train`.
    """
    session = _run(
        False,
        options,
        launcher=launcher,
        debug=debug,
        force_yml=force_yml,
        root=root,
        subfolder=subfolder,
        stay_in_ranks=not leave_ranks,
        quiet=quiet,
    )
    return TestRun(session.gathered_scores, Path(session.opt['path']['results_root']), session.opt)


def _run(
    is_train: bool,
    options: Any,
    *,
    root: str | os.PathLike | None,
    launcher: str,
    auto_resume: bool = False,
    debug: bool,
    force_yml: Iterable[str],
    subfolder: str = '',
    stay_in_ranks: bool = False,
    quiet: bool = False,
) -> Run:
    # before torch is imported: a file that is no YAML is refused at once
    source = options if isinstance(options, OptionSource) else read_source(options, force_yml)
    if not is_train:
        source = source.for_test()
    register()
    from basicsr_ext.trainer.determinism import fix_cublas_workspace, process_settings_kept

    root = follow_links(root) if root else find_root(source.values)
    with process_settings_kept():
        if source.values.get('deterministic') is True:
            fix_cublas_workspace()
        return _run_checked(is_train, source, root, launcher, auto_resume, debug, subfolder, stay_in_ranks, quiet)


def _run_checked(
    is_train: bool,
    source: OptionSource,
    root: Path,
    launcher: str,
    auto_resume: bool,
    debug: bool,
    subfolder: str,
    stay_in_ranks: bool,
    quiet: bool,
) -> Run:
    """Checks the options, then runs BasicSR's pipeline."""
    import basicsr.test
    import basicsr.train

    from basicsr_ext.compat import cuda_calls
    from basicsr_ext.distributed import is_lost_rank, leave_ranks
    from basicsr_ext.trainer.determinism import refusal
    from basicsr_ext.trainer.patches.image_io import NO_ROOM
    from basicsr_ext.trainer.patches.table import all_patches, installed
    from basicsr_ext.trainer.session import Run

    report = check_options(
        source, is_train=is_train, root=root, launcher=launcher, auto_resume=auto_resume, rehearse=True
    )
    report.raise_problems()
    print_warnings(report)
    report.opened.clear()  # LMDB refuses to open a file twice in a process
    session = Run(
        resolved(report, root),
        is_train=is_train,
        root=root,
        launcher=launcher,
        auto_resume=auto_resume,
        debug=debug,
        quiet=quiet,
    )
    if subfolder:
        session.write_results_to(subfolder)
    _forget_logger()
    pipeline = basicsr.train.train_pipeline if is_train else basicsr.test.test_pipeline
    # A log that cannot be written for want of room would print a traceback for each line; what fails next says why.
    logs_raise, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with (
            installed(all_patches(session)),
            session.stop_requests if is_train else nullcontext(),  # a test has nothing to save: a signal ends it
            cuda_calls.ignored() if session.on_cpu else nullcontext(),
        ):
            pipeline(str(root))
            if session.keeper is not None:
                session.keeper.end_run()
                session.validations = session.keeper.validations()
            session.gathered_scores = session.scores.gathered()
        if not is_train:
            _refuse_nan(session.gathered_scores)
    except OSError as error:
        if error.errno in _REFUSED:
            raise UserError(
                f'{error.filename or "A file"}: {error.strerror}. Change its permissions, or choose another place (path.root).'
            ) from error
        if error.errno not in NO_ROOM:
            raise
        going_on = 'then go on with --auto_resume' if is_train else 'then test again'
        raise UserError(f'The disk is full ({error}). Make room, {going_on}.') from error
    except (RuntimeError, MemoryError) as error:
        if out_of_memory.is_out_of_memory(error):
            raise UserError(out_of_memory.message(session.opt)) from error
        if is_lost_rank(error):
            raise RankLost(error, bool(session.stop_requests.signal_number)) from error
        refused = refusal(error) if session.opt.get('deterministic') else None
        if refused is None:
            raise
        raise refused from error
    finally:
        session.close()
        if not stay_in_ranks:
            leave_ranks()
        _forget_logger()
        logging.raiseExceptions = logs_raise
    return session


def _refuse_nan(sets: dict[str, dict[str, dict[str, float]]]) -> None:
    spoiled = [
        f'{metric} of "{image}" in {name}'
        for name, images in sets.items()
        for image, scores in images.items()
        for metric, value in scores.items()
        if math.isnan(value)
    ]
    if spoiled:
        raise UserError(
            f'Scores are not numbers: {first_of(spoiled)}. Either the network gives values that are not finite: choose other '
            'weights, or val.precision: fp32; or val.metrics leave no pixels to measure: lower crop_border.'
        )


def _forget_logger() -> None:
    """Closes BasicSR's log, which a process opens once only, so that each run gets a file of its own."""
    from basicsr.utils import logger as basicsr_logger

    for name in list(basicsr_logger.initialized_logger):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            with suppress(OSError):  # a full disk, which is told where the run fails
                handler.close()
    basicsr_logger.initialized_logger.clear()
