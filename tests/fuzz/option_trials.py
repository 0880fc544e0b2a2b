"""Runs the check on damaged option files, and small parts of a run on those that it accepts."""

from __future__ import annotations

import logging
import random
import traceback
from contextlib import chdir, suppress
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import torch
from fuzz.option_mutations import mutate

from basicsr_ext.checking import check_options
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.static import check_names_and_keys
from basicsr_ext.checking.structure import check_structure
from basicsr_ext.compat import cuda_calls
from basicsr_ext.errors import UserError
from basicsr_ext.options.resolve import find_root, resolved
from basicsr_ext.options.source import OptionSource, read_source


class Trial(NamedTuple):
    """One damaged option file, and what came of it.

    Attributes:
        number: Seeds what was done; the same number gives the same file.
        mutation: What was done last.
        text: The file.
        accepted: Whether the check found nothing wrong.
        failure: What broke the rules; ``None`` where nothing did.
    """

    number: int
    mutation: str
    text: str
    accepted: bool
    failure: str | None


def run_trial(root: Path, number: int, bases: list[tuple[bool, dict[str, Any]]], rehearse: bool = True) -> Trial:
    """Damages an option file, checks it, and does the first iteration of a run where the check accepts it.

    Args:
        root: Where the images of the options are, and where files must not be made.
        number: Of the trial.
        bases: Options to damage, with whether they are those of a training.
        rehearse: Do the first iteration of what is accepted; Real-ESRGAN's, which takes seconds, one time in four.
    """
    rng = random.Random(number)
    is_train, options = bases[number % len(bases)]
    text, mutation = mutate(rng, options)
    file = root / 'o.yml'
    file.write_bytes(text.encode('utf-8', 'surrogatepass'))
    before = _files(root)
    accepted, failure = False, None
    with chdir(root):
        try:
            report = _check(file, is_train, auto_resume=is_train and number % 6 == 0)
            accepted = True
            slow = options['model_type'] == 'RealESRGANModel'
            if rehearse and (not slow or number % 4 == 0) and _files(root) == before:
                _rehearse(report, is_train)
        except UserError as error:
            failure = None if accepted else _bad_message(str(error))
            if accepted:  # a run may still refuse what only running can tell, but the check should know nearly all
                failure = f'the run refused what the check accepted: {error}'
        except Exception:
            failure = traceback.format_exc()
    if _files(root) != before:
        failure = f'made files: {_files(root) ^ before}'
    return Trial(number, mutation, text, accepted, failure)


def _check(file: Path, is_train: bool, auto_resume: bool) -> Any:
    source = read_source(file)
    root = find_root(source.values)
    report = check_options(source, is_train=is_train, root=root, auto_resume=auto_resume, rehearse=True)
    stricter = _found_at_once(source, is_train) - set(map(str, report.problems))
    assert not stricter, f'the check without imports refuses what the whole one does not: {stricter}'
    report.raise_problems()
    return report


def _found_at_once(source: OptionSource, is_train: bool) -> set[str]:
    report = Report(source, is_train)
    check_structure(report)
    check_names_and_keys(report)
    return set(map(str, report.problems))


def _bad_message(message: str) -> str | None:
    lines = message.splitlines()
    if not message.strip() or 'Traceback' in message or ' object at 0x' in message:
        return f'a message that helps nobody: {message}'
    too_long = [line for line in lines if len(line) > 700]
    return f'a message too long to read: {too_long[0][:900]}' if too_long else None


def _files(root: Path) -> set[str]:
    return {str(path) for path in root.rglob('*')}


def _rehearse(report: Any, is_train: bool) -> None:
    """Builds everything, trains one iteration, validates; nothing that is written stays."""
    import basicsr.data
    import basicsr.models
    import basicsr.test

    from basicsr_ext.trainer.patches.table import all_patches, installed
    from basicsr_ext.trainer.session import Run

    root = find_root(report.values)
    source = resolved(report, root)
    source.values['val'] = deepcopy(source.values.get('val'))
    session = Run(source, is_train=is_train, root=root)
    session.lock = None  # it would make a file
    logging.disable(logging.CRITICAL)
    try:
        with installed(all_patches(session)), cuda_calls.ignored():
            opt, _ = session.parse_options(str(root))
            if not is_train:
                model = basicsr.models.build_model(opt)
                for block in opt['datasets'].values():
                    dataset = basicsr.test.build_dataset(block)
                    _validate(model, basicsr.data.build_dataloader(dataset, block, num_gpu=0))
                return
            loader, sampler, val_loaders, *_ = session.create_dataloaders(opt, logging.getLogger('fuzz'))
            model = basicsr.models.build_model(opt)
            if hasattr(model, 'bind'):
                model.bind(session.train_set)
            sampler.set_epoch(0)
            batch = next(iter(loader))
            model.update_learning_rate(1, warmup_iter=opt['train'].get('warmup_iter', -1))
            model.feed_data(batch)
            model.optimize_parameters(1)
            model.update_learning_rate(2, warmup_iter=opt['train'].get('warmup_iter', -1))
            if opt.get('val'):
                for val_loader in val_loaders:
                    _validate(model, val_loader)
    finally:
        logging.disable(logging.NOTSET)
        session.close()
        if session.lock is not None:
            with suppress(OSError):  # there or not empty
                session.lock.file.parent.rmdir()


def _validate(model: Any, loader: Any) -> None:
    with torch.no_grad():
        model.validation(loader, 1, None, False)
