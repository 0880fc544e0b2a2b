"""Scoring images that anything may have made."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from basicsr_ext.errors import UserError
from basicsr_ext.evaluation.images import Images, open_images
from basicsr_ext.evaluation.metric_options import check_blocks
from basicsr_ext.files import expand_home
from basicsr_ext.prepare.jobs import check_workers, run_jobs
from basicsr_ext.report.results import Scores
from basicsr_ext.storage import open_store
from basicsr_ext.storage.alpha import keys_with_alpha

_SAYS_NOTHING = ('hr', 'gt', 'original', 'target')  # as the name of a set


class Job(NamedTuple):
    """One image of one method."""

    method: int
    image: str


def open_methods(sr: Mapping[str, str | Path], gt: str | Path | None, scale: int = 1) -> list[Images]:
    """Opens the images of methods, and checks names and sizes; torch is not imported for it.

    Args:
        sr: Name of a method -> folder of its images, or store.
        gt: Folder or store of GT images; ``None`` where no metric compares.
        scale: GT images are cropped at the right and the bottom to a multiple of it.

    Raises:
        UserError: There is nothing to read, or images do not fit.
    """
    if not isinstance(scale, int) or isinstance(scale, bool) or scale < 1:
        raise UserError(f'scale: expected an integer of at least 1, found {scale!r}.')
    gt_store = open_store(gt) if gt is not None else None
    return [open_images(name, path, gt_store, scale) for name, path in sr.items()]


def evaluate(
    methods: Sequence[Images],
    metrics: Mapping[str, Mapping[str, Any]],
    *,
    dataset: str | None = None,
    num_workers: int | None = None,
) -> list[Scores]:
    """Scores the images of methods.

    Args:
        methods: Their images, of :func:`open_methods`.
        metrics: Name of a metric -> its options, as in ``val.metrics``.
        dataset: Name of the set; default: after the folder of GT images.
        num_workers: Processes; ``None``: one for each processor. Metrics on a GPU run in this process.

    Returns:
        A result for each method.

    Raises:
        UserError: Options are wrong, images are damaged, or a metric cannot be computed; nothing is computed before options
            have been checked.
    """
    num_workers = check_workers(num_workers)
    gt = methods[0].gt
    _register()
    check_blocks(metrics, gt is not None)
    _warn_of_alpha([gt, *(images.store for images in methods)])
    jobs = [Job(index, name) for index, images in enumerate(methods) for name in images.pairs]
    values: dict[Job, dict[str, float]] = dict(
        run_jobs(
            _Measure(methods, metrics), jobs, num_workers=1 if _uses_gpu() else num_workers, description='Evaluating'
        )
    )
    return [
        Scores(dataset or name_of(images), images.method, {name: values[Job(index, name)] for name in images.pairs})
        for index, images in enumerate(methods)
    ]


def name_methods(folders: Sequence[str]) -> dict[str, str]:
    """Names methods after their folders.

    Args:
        folders: Paths, or ``NAME=PATH``.

    Returns:
        Name -> path: the given name, or as many of the path's last parts as tell the methods apart.

    Raises:
        UserError: Two have the same name, or one is given twice.
    """
    paths: dict[str, str] = {}
    unnamed = []
    for text in folders:
        name, separator, path = text.partition('=')
        if separator and name and '/' not in name and not Path(text).exists():
            if name in paths:
                raise UserError(f'--sr: two methods are called "{name}".')
            paths[name] = path
        else:
            unnamed.append(text)
    parts = {text: expand_home(text).absolute().parts for text in unnamed}
    if len(set(parts.values())) < len(unnamed):
        raise UserError(f'--sr: a folder is named twice: {", ".join(unnamed)}.')
    length = 1
    while len({part[-length:] for part in parts.values()}) < len(parts):
        length += 1
    for text, part in parts.items():
        name = '/'.join(part[-length:]).removesuffix('.lmdb')
        if name in paths:
            raise UserError(f'--sr: two methods are called "{name}".')
        paths[name] = text
    return paths


def name_of(images: Images) -> str:
    """Names a set after its folder, or the one above where that is called HR or the like."""
    path = (images.store if images.gt is None else images.gt).path.absolute()
    return path.parent.name if path.name.lower() in _SAYS_NOTHING else path.name.removesuffix('.lmdb')


class _Measure(NamedTuple):
    """Computes all metrics of one image."""

    methods: Sequence[Images]
    metrics: Mapping[str, Mapping[str, Any]]

    def __call__(self, job: Job) -> tuple[Job, dict[str, float]]:
        _register()
        from basicsr.metrics import calculate_metric

        images = self.methods[job.method]
        data = images.read(job.image)
        values = {}
        for name, options in self.metrics.items():
            where = f'{images.store.path}, image "{images.pairs[job.image]}": {name}'
            try:
                values[name] = float(calculate_metric(data, dict(options)))
            except UserError as error:
                raise UserError(f'{where}: {error}') from None
            except Exception as error:  # whatever a metric of another library makes of an image
                raise UserError(f'{where} fails ({type(error).__name__}: {error}).') from error
            if math.isnan(values[name]):
                raise UserError(f'{where} is not a number; crop_border may leave too few pixels.')
        return job, values


def _warn_of_alpha(stores: Sequence[Any]) -> None:
    for store in stores:
        keys = keys_with_alpha(store) if store is not None else []
        if keys:
            print(
                f'Warning: {store.path}: alpha is left out, of {len(keys)} of {len(store)} images, such as "{keys[0]}".',
                file=sys.stderr,
            )


def _uses_gpu() -> bool:
    """Whether a metric has started the GPU: forked processes could not use it."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_initialized()


@lru_cache(maxsize=1)
def _register() -> None:
    from basicsr_ext.registration import register

    register()
