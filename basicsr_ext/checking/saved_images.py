"""Whether the images that a run saves have a file each."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from basicsr_ext.checking.dataset_contents import Contents
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.structure import phase_of


def check_saved_images(report: Report, contents: Mapping[str, Contents]) -> None:
    """Notes images that would be saved over one another.

    BasicSR saves an image under the last part of its key, up to the last dot; in a test, whose result these images are, in
    a folder of the dataset's name.
    """
    if report.get('val', 'save_img') is not True:
        return
    saved: dict[tuple[Any, str], str] = {}
    for name, found in contents.items():
        if phase_of(name) == 'train':
            continue
        folder = None if report.is_train else report.get('datasets', name, 'name')
        for key in _keys(found.dataset):
            file, image = os.path.splitext(os.path.basename(key))[0], f'"{key}" of datasets.{name}'
            if (other := saved.setdefault((folder, file), image)) != image:
                lost = f'images {other} and {image} would be saved as one file, "{file}".'
                if report.is_train:
                    report.warn(('val', 'save_img'), lost)
                else:
                    report.error(('val', 'save_img'), f'{lost} Rename them, give datasets a name each, or set false.')
                return


def _keys(dataset: Any) -> list[str]:
    """LQ keys or files of this package's datasets and of BasicSR's; of others nothing is known."""
    if hasattr(dataset, 'lq_store'):
        return [lq for _, lq in dataset.pairs]
    paths = getattr(dataset, 'paths', None)
    files = [path.get('lq_path') if isinstance(path, Mapping) else path for path in paths or ()]
    return [file for file in files if isinstance(file, str)]
