"""Checks options before a run makes anything: syntax and types, then names and keys, then files.

The syntax is checked in reading (:mod:`~basicsr_ext.options.source`), without torch and BasicSR.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from basicsr_ext.errors import UserError

if TYPE_CHECKING:
    from basicsr_ext.checking.report import Report
    from basicsr_ext.options.source import OptionSource


def check_at_once(source: OptionSource, *, is_train: bool) -> None:
    """Checks what can be known without torch and BasicSR: values of all runs, names of classes, keys of our own blocks.

    Args:
        source: The options.
        is_train: Training or testing.

    Raises:
        UserError: Names the problems that were found so; there may be more.
    """
    from basicsr_ext.checking.report import Report
    from basicsr_ext.checking.static import check_names_and_keys
    from basicsr_ext.checking.structure import check_structure

    report = Report(source, is_train)
    check_structure(report)
    check_names_and_keys(report)
    try:
        report.raise_problems()
    except UserError as error:
        raise UserError(f'{error}\nAll else is checked once this is right.') from None


def check_options(
    source: OptionSource,
    *,
    is_train: bool,
    root: Path,
    launcher: str | None = 'none',
    auto_resume: bool = False,
    rehearse: bool = False,
    thorough: bool = False,
    ranks: int | None = None,
) -> Report:
    """Checks options; makes nothing, and builds nothing large.

    Args:
        source: The options.
        is_train: Training or testing.
        root: Folder in which the run makes its folders.
        launcher: ``none``, ``pytorch`` or ``slurm``; ``None`` where the run will be started elsewhere, on other devices.
        auto_resume: Whether the run goes on from the experiment's newest state, if there is one.
        rehearse: Run every metric on an image of validation, where nothing else is wrong: one that lacks its weights shall
            not fail after hours.
        thorough: Open datasets even where that may take minutes, for tens of thousands of files.
        ranks: How many there will be; default: what the launcher says.

    Returns:
        All problems and warnings; raising is left to the caller.
    """
    from basicsr_ext.checking.report import Report
    from basicsr_ext.checking.structure import check_structure
    from basicsr_ext.registration import register

    report = Report(source, is_train)
    check_structure(report)
    register()
    from basicsr_ext.checking import combinations
    from basicsr_ext.checking.dataset_contents import open_contents
    from basicsr_ext.checking.datasets import check_datasets
    from basicsr_ext.checking.dry_run import dry_run_metrics
    from basicsr_ext.checking.files import check_files
    from basicsr_ext.checking.meta_info import check_lists
    from basicsr_ext.checking.metrics import check_metrics
    from basicsr_ext.checking.models import check_model
    from basicsr_ext.checking.saved_images import check_saved_images
    from basicsr_ext.checking.shapes import check_shapes
    from basicsr_ext.checking.weights import check_weights

    datasets = check_datasets(report)
    networks = check_model(report)
    metrics = check_metrics(report)

    states = root / 'experiments' / f'{report.get("name")}' / 'training_states'
    resumes = auto_resume and report.has_no_problems('name') and any(p.stem.isdecimal() for p in states.glob('*.state'))
    check_files(report, root, resumes)
    check_lists(report, datasets)
    check_weights(report, resumes or report.get('path', 'resume_state') is not None)

    opened = {name: open_contents(report, name, dataset, thorough) for name, dataset in datasets.items()}
    contents = {name: found for name, found in opened.items() if found is not None}
    combinations.check_devices(report, launcher)
    combinations.check_loaders(report)
    combinations.check_stored_values(report)
    combinations.check_validation(report, datasets, metrics)
    check_saved_images(report, contents)
    check_shapes(report, networks, contents)
    if is_train:
        combinations.check_training(report, contents, ranks or combinations.world_size(launcher or 'none'))
        if not auto_resume:
            combinations.check_resuming(report, root)
    if rehearse and not report.problems:
        dry_run_metrics(report)
    return report
