"""Makes datasets as BasicSR does, and says which one could not be made of what it found."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import basicsr.data

from basicsr_ext.checking.meta_info import LISTS, write_clean_list
from basicsr_ext.data.pairing import found_template
from basicsr_ext.errors import UserError
from basicsr_ext.options.problems import brief
from basicsr_ext.storage.folder import find_images


def build_dataset(options: Mapping[str, Any]) -> Any:
    """Builds a registered dataset.

    Args:
        options: Its block, with ``name``, ``type`` and ``phase``.

    Raises:
        UserError: It cannot be made of its files; the check before a run opens small folders only.
    """
    try:
        return make_with_clean_lists(basicsr.data.build_dataset, options)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # BasicSR's datasets assert what they expect of folders
        raise UserError(f'Dataset {options["name"]}: {not_made(options, error)}') from error


def make_with_clean_lists(make: Callable[[dict[str, Any]], Any], options: Mapping[str, Any]) -> Any:
    """Makes a dataset of BasicSR's, which takes a blank line of a list for a name.

    Args:
        make: Makes the dataset of its options; it reads its lists then.
        options: Its block.
    """
    lists = {key: options[key] for key in LISTS if isinstance(options.get(key), str) and os.path.isfile(options[key])}
    with TemporaryDirectory() as folder:
        clean = {
            key: str(Path(folder, key)) for key, file in lists.items() if write_clean_list(file, Path(folder, key))
        }
        dataset = make({**options, **clean})
    if clean:
        dataset.opt.update({key: lists[key] for key in clean})
    return dataset


def not_made(options: Mapping[str, Any], error: Exception) -> str:
    """Says that a dataset of these options failed on its files, and which names of LQ images would fit."""
    found = _found_template(options)
    hint = f' LQ images are named otherwise: set filename_tmpl: "{found}".' if found else ''
    return f'{options["type"]} cannot be made from these files ({brief(error) or type(error).__name__}).{hint}'


def _found_template(options: Mapping[str, Any]) -> str | None:
    try:
        gt, lq = (list(find_images(Path(options[f'dataroot_{kind}']))) for kind in ('gt', 'lq'))
    except (KeyError, TypeError, UserError):  # no pairs of folders
        return None
    return found_template(gt, lq, str(options.get('filename_tmpl', '{}')))
