"""Lists of images that option files name, for BasicSR's datasets: ``meta_info`` and ``meta_info_file``."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from basicsr_ext.checking.files import is_lmdb
from basicsr_ext.checking.registries import origin
from basicsr_ext.checking.report import Report
from basicsr_ext.errors import first_of
from basicsr_ext.files import read_file
from basicsr_ext.options.problems import KeyPath, brief, shown_path

LISTS = ('meta_info', 'meta_info_file')
# Datasets of single images -> options of their folders; other datasets' lists name clips, which are folders.
_OF_IMAGES = {
    'PairedImageDataset': ('dataroot_gt', 'dataroot_lq'),
    'RealESRGANDataset': ('dataroot_gt',),
    'RealESRGANPairedDataset': ('dataroot_gt', 'dataroot_lq'),
    'SingleImageDataset': ('dataroot_lq',),
}
_COLUMNS = {'REDSDataset': 3, 'REDSRecurrentDataset': 3, 'Vimeo90KRecurrentDataset': 3}


def read_list(file: str | os.PathLike) -> list[tuple[int, str]]:
    """Reads the lines of a list that are not blank, with their numbers.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no text in UTF-8.
    """
    lines = read_file(file).decode('utf-8-sig').splitlines()
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def check_lists(report: Report, datasets: Mapping[str, type]) -> None:
    """Checks that every line of a list names what is there, once."""
    folders = _Folders()
    for name, dataset in datasets.items():
        path = ('datasets', name)
        if origin(dataset) != 'stock' or is_lmdb(report, path) or not report.has_no_problems(*path):
            continue
        for key in LISTS:
            if isinstance(report.get(*path, key), str):
                _check_list(report, (*path, key), dataset.__name__, folders)


def _check_list(report: Report, path: KeyPath, dataset: str, folders: _Folders) -> None:
    file = os.path.expanduser(report.get(*path))
    try:
        lines = read_list(file)
    except OSError as error:
        report.error(path, f'{shown_path(file)} cannot be read: {error.strerror}.')
        return
    except UnicodeDecodeError:
        report.error(path, f'{shown_path(file)}: expected a text file in UTF-8, found other bytes.')
        return
    if not lines:
        report.error(path, f'{shown_path(file)}: expected names of images, found a list without any.')
        return
    block = report.block(*path[:-1])
    wrong = [f'line {number}: {text}' for number, line in lines for text in _wrong(block, dataset, line, folders)]
    if wrong:
        report.error(path, f'{shown_path(file)}: {first_of(wrong)}.')
    first: dict[str, int] = {}
    doubled = [
        f'line {number}: {brief(line)} as in line {first[line]}'
        for number, line in lines
        if first.setdefault(line, number) != number
    ]
    if doubled:
        report.warn(path, f'{shown_path(file)}: names occur more than once: {first_of(doubled)}.')


def _wrong(block: Mapping[str, Any], dataset: str, line: str, folders: _Folders) -> Iterator[str]:
    """What is wrong with a line."""
    columns = _COLUMNS.get(dataset, 1)
    if len(line.split(' ')) < columns:
        yield f'expected {columns} columns with a space between them, found {brief(line)}'
        return
    if dataset == 'RealESRGANPairedDataset' and line.count(', ') != 1:
        yield f'expected the names of a GT and an LQ image with ", " between them, found {brief(line)}'
        return
    is_clip = dataset not in _OF_IMAGES
    for key, name in _named(block, dataset, line).items():
        root = os.path.expanduser(str(block.get(key)))
        file = os.path.join(root, name)
        if is_clip and not os.path.isdir(file):
            yield f'expected the folder of a clip at {shown_path(file)}, found none'
        elif not is_clip and not folders.has(file):
            spaces = name != line and folders.has(os.path.join(root, line))
            yield f'expected an image at {shown_path(file)}, found none{" (a name ends at its first space)" if spaces else ""}'


def _named(block: Mapping[str, Any], dataset: str, line: str) -> dict[str, str]:
    """What a line names, as BasicSR reads it: option of the folder -> path in there."""
    first = line.split(' ')[0]
    if dataset == 'RealESRGANPairedDataset':
        gt, lq = line.split(', ')
        return {'dataroot_gt': gt, 'dataroot_lq': lq}
    if dataset == 'PairedImageDataset':
        stem, extension = os.path.splitext(os.path.basename(first))
        return {'dataroot_gt': first, 'dataroot_lq': f'{block.get("filename_tmpl", "{}").format(stem)}{extension}'}
    return dict.fromkeys(_OF_IMAGES.get(dataset, ('dataroot_gt', 'dataroot_lq')), first)


class _Folders:
    """Knows the files in folders: one look at a folder costs less than one at each of its files."""

    def __init__(self) -> None:
        self._files: dict[str, frozenset[str]] = {}

    def has(self, file: str) -> bool:
        """Whether there is a file at a path."""
        folder, name = os.path.split(file)
        if folder not in self._files:
            try:
                with os.scandir(folder) as entries:
                    self._files[folder] = frozenset(entry.name for entry in entries if entry.is_file())
            except OSError:
                self._files[folder] = frozenset()
        return name in self._files[folder]


def write_clean_list(file: str | os.PathLike, clean: Path) -> bool:
    """Writes a list anew where it has what BasicSR would take for a name: a blank line, or a byte order mark.

    Args:
        file: The list.
        clean: File to write.

    Returns:
        Whether there was such a thing.
    """
    content = read_file(file)
    lines = [line for _, line in read_list(file)]
    if not content.startswith(codecs.BOM_UTF8) and len(lines) == len(content.decode().splitlines()):
        return False
    clean.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')
    return True
