"""Scores of methods on sets of images, as tables and as files."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import strftime
from typing import Any

from basicsr_ext.errors import UserError, writing_failed
from basicsr_ext.report.tables import align, markdown_table

DECIMALS = 4
FILES = ('metrics.json', 'metrics.md', 'metrics.csv')
_MEAN = '(mean)'  # among names of images


@dataclass(frozen=True)
class Scores:
    """What one method scores on one set of images.

    Attributes:
        dataset: Name of the set, such as ``Set5``.
        method: Name of the method: a checkpoint, or the folder that its images lie in.
        images: Name of an image -> name of a metric -> value; every image has the same metrics, in the same order.

    Raises:
        ValueError: There are no images, or their metrics differ.
    """

    dataset: str
    method: str
    images: Mapping[str, Mapping[str, float]]

    def __post_init__(self) -> None:
        found = {tuple(values) for values in self.images.values()}
        if len(found) != 1:
            raise ValueError(f'{self.method} on {self.dataset}: expected images with the same metrics, found {found}.')

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics."""
        return tuple(next(iter(self.images.values())))

    @property
    def mean(self) -> dict[str, float]:
        """Name of a metric -> its mean over the images; infinite where the PSNR of one of them is (identical images)."""
        return {
            metric: sum(values[metric] for values in self.images.values()) / len(self.images) for metric in self.metrics
        }


def as_text(results: Sequence[Scores]) -> str:
    """Sets a table of the images and their mean for each method on each set, then, where there are several, of the means."""
    blocks = [align(table) for table in _tables_of_images(results)]
    if len(results) > 1:
        blocks += [align(table) for table in _tables_of_means(results)]
    return '\n\n'.join(blocks)


def as_markdown(results: Sequence[Scores], settings: Mapping[str, Any] | None = None) -> str:
    """Sets the means first, then the settings, then a table of the images for each method on each set."""
    means = [markdown_table(table) for table in _tables_of_means(results)]
    lines = [f'- {key}: {json.dumps(value, ensure_ascii=False)}' for key, value in (settings or {}).items()]
    images = [markdown_table(table) for table in _tables_of_images(results)]
    return '\n\n'.join([*means, *(['\n'.join(lines)] if lines else []), *images]) + '\n'


def as_csv(results: Sequence[Scores]) -> str:
    """One line an image, and one with ``(mean)`` as its name for each method on each set, in full precision.

    The metrics' columns are those of all results together; a cell is empty where a metric was not computed.
    """
    metrics = _all_metrics(results)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(['dataset', 'method', 'image', *metrics])
    for scores in results:
        for image, values in [*scores.images.items(), (_MEAN, scores.mean)]:
            cells = [values.get(metric, '') for metric in metrics]
            writer.writerow([scores.dataset, scores.method, image, *cells])
    return stream.getvalue()


def as_json(results: Sequence[Scores], settings: Mapping[str, Any] | None = None) -> str:
    """Settings, then each method on each set with its means and its images, in full precision.

    JSON has no infinite number: it is the text "inf", which ``float`` reads.

    Args:
        results: Scores.
        settings: How they were computed, such as the border that was cropped; plain values.
    """
    content = {
        'settings': dict(settings or {}),
        'results': [
            {
                'dataset': scores.dataset,
                'method': scores.method,
                'mean': _finite(scores.mean),
                'images': {image: _finite(values) for image, values in scores.images.items()},
            }
            for scores in results
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + '\n'


def check_output(folder: str | Path, endings: Collection[str] = ()) -> None:
    """Checks, before the work begins and without making anything, that a folder can be made and written to.

    Args:
        folder: Where it is to be.
        endings: Of names that mean a file, such as ``.png``.

    Raises:
        UserError: It cannot, or is named like a file.
    """
    folder = Path(folder).absolute()
    if folder.suffix.lower() in endings and not folder.is_dir():
        raise UserError(
            f'output {folder}: expected a folder, which the files are written into, found the name of a file '
            f'({folder.suffix}). Name a folder.'
        )
    nearest = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise UserError(f'output {folder}: expected a folder, but {nearest} is a file. Choose another one.')
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f'output {folder}: {nearest} is not writable. Choose another folder.')


def check_new_report(folder: str | Path) -> None:
    """Checks, before the work begins, that :func:`write_results` will find a folder, and replace nothing in it.

    Raises:
        UserError: It will not.
    """
    check_output(folder, [Path(name).suffix for name in FILES])
    if earlier := _files_in(Path(folder)):
        raise UserError(f'{", ".join(map(str, earlier))} exist already. Choose another folder (-o), or remove them.')


def set_aside(folder: Path) -> None:
    """Moves an earlier report into a folder within its own, named as BasicSR names what it renames.

    Raises:
        UserError: It cannot be moved.
    """
    earlier = _files_in(folder)
    archive = folder / f'metrics_archived_{strftime("%Y%m%d_%H%M%S")}'
    try:
        if earlier:
            archive.mkdir()
        for file in earlier:
            file.rename(archive / file.name)
    except OSError as error:
        raise writing_failed(f'output {folder}', error) from None


def write_results(results: Sequence[Scores], folder: str | Path, settings: Mapping[str, Any] | None = None) -> None:
    """Writes ``metrics.json``, ``metrics.md`` and ``metrics.csv``; earlier ones are replaced when all three are whole.

    Args:
        results: Scores.
        folder: Made where it does not exist.
        settings: As for :func:`as_json`.

    Raises:
        UserError: Writing fails; nothing is left of it.
    """
    folder = Path(folder)
    texts = dict(zip(FILES, (as_json(results, settings), as_markdown(results, settings), as_csv(results)), strict=True))
    partial = {name: folder / f'{name}.partial' for name in FILES}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            with partial[name].open('w', encoding='utf-8', newline='') as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for name in FILES:
            os.replace(partial[name], folder / name)
    except OSError as error:
        raise writing_failed(f'output {folder}', error) from None
    finally:
        for path in partial.values():
            if os.path.lexists(path):
                path.unlink()


def _files_in(folder: Path) -> list[Path]:
    return [file for name in FILES if os.path.lexists(file := folder / name)]


def _tables_of_images(results: Sequence[Scores]) -> list[list[list[str]]]:
    return [
        [
            [f'{scores.dataset}: {scores.method}', *scores.metrics],
            *([image, *_cells(values, scores.metrics)] for image, values in scores.images.items()),
            ['mean', *_cells(scores.mean, scores.metrics)],
        ]
        for scores in results
    ]


def _tables_of_means(results: Sequence[Scores]) -> list[list[list[str]]]:
    """One table a set, a row a method."""
    tables = []
    for dataset in dict.fromkeys(scores.dataset for scores in results):
        rows = [scores for scores in results if scores.dataset == dataset]
        metrics = _all_metrics(rows)
        tables.append(
            [[f'{dataset} (mean)', *metrics], *([scores.method, *_cells(scores.mean, metrics)] for scores in rows)]
        )
    return tables


def _all_metrics(results: Sequence[Scores]) -> list[str]:
    return list(dict.fromkeys(metric for scores in results for metric in scores.metrics))


def _cells(values: Mapping[str, float], metrics: Sequence[str]) -> list[str]:
    return [f'{values[metric]:.{DECIMALS}f}' if metric in values else '-' for metric in metrics]


def _finite(values: Mapping[str, float]) -> dict[str, float | str]:
    return {metric: float(value) if math.isfinite(value) else str(float(value)) for metric, value in values.items()}
