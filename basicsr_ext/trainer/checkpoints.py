"""Checkpoints: written whole or not at all, checked before they are used, and with everything an exact resume needs.

A checkpoint of an iteration is its network files ``models/<label>_<iteration>.pth`` and its state
``training_states/<iteration>.state``. The state is written last and names the sha256 of the network files: it is the
commit record. A checkpoint without a state, or whose files do not match, does not exist.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from basicsr_ext import __version__
from basicsr_ext.errors import UserError, first_of
from basicsr_ext.files import open_file
from basicsr_ext.networks.weight_file import NETWORK_KEY
from basicsr_ext.networks.weights import not_finite, sha256
from basicsr_ext.trainer.patches.basicsr_losses import load_loss_states, loss_states
from basicsr_ext.trainer.randomness import generator_states, restore_generator_states

FORMAT = 1
_INCOMPLETE = '.incomplete'  # beside the states: of this iteration there is no checkpoint, only files to remove


def write_atomically(content: Any, path: Path) -> None:
    """Saves with ``torch.save`` to a temporary name, flushes to the disk, and renames.

    Args:
        content: Plain values and tensors.
        path: Of the file; what stood there before is replaced only when the new file is whole.

    Raises:
        UserError: The file cannot be written, as on a full disk; nothing is left of it.
    """
    partial = path.with_name(path.name + '.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open('wb') as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f'{path} cannot be written ({str(error).splitlines()[0]}). Make room or choose another place, then go on with '
            '--auto_resume; earlier checkpoints are unharmed.'
        ) from None


def flush_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def network_content(
    nets: list[torch.nn.Module], keys: list[str], label: str = '', options: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Returns the weights of bare networks on the CPU, by parameter key; and with them what it takes to use them.

    Args:
        nets: Of one architecture, such as a network and its moving average.
        keys: Where each one's weights go.
        label: Of the network, such as ``net_g``.
        options: Of the run; where they have the network's block, it goes under a key of its own, which BasicSR does not
            look at.
    """
    content: dict[str, dict[str, Any]] = {
        key: {name.removeprefix('module.'): value.detach().cpu() for name, value in net.state_dict().items()}
        for key, net in zip(keys, nets, strict=True)
    }
    network = (options or {}).get(label.replace('net_', 'network_', 1))
    network = getattr(nets[0], 'own_option', None) or network  # which needs no file
    if options is not None and isinstance(network, Mapping):
        content[NETWORK_KEY] = plain(
            {'label': label, 'network': dict(network), 'scale': options.get('scale', 1), 'version': __version__}
        )
    return content


def plain(value: Any) -> Any:
    """Turns NumPy scalars, paths, and subclasses of plain types into what ``weights_only`` loading accepts."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str):
        return str(value)  # of a subclass too, such as torch.__version__
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def tensors_of(value: Any, name: str) -> dict[str, torch.Tensor]:
    """All tensors of more than one number in nested plain containers, by name."""
    if isinstance(value, torch.Tensor):
        return {name: value} if value.ndim else {}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return {path: tensor for key, item in items for path, tensor in tensors_of(item, f'{name}.{key}').items()}


def rank_state(model: Any) -> dict[str, Any]:
    """Returns what one rank keeps for itself: generators, and the model's extra state."""
    state = {'generators': generator_states()}
    if hasattr(model, 'extra_state'):
        state['extra_state'] = model.extra_state()
    losses = loss_states(model)
    if losses:
        state['losses'] = losses
    pool = {key: getattr(model, key) for key in ('queue_lr', 'queue_gt', 'queue_ptr') if hasattr(model, key)}
    if pool:  # Real-ESRGAN's pool of training pairs
        state['training_pair_pool'] = {k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in pool.items()}
    return state


def restore_rank_state(model: Any, state: dict[str, Any]) -> None:
    """Restores what :func:`rank_state` returned; the generators last, so that restoring draws nothing from them."""
    if 'extra_state' in state:
        model.load_extra_state(state['extra_state'])
    load_loss_states(model, state.get('losses', {}))
    for key, value in state.get('training_pair_pool', {}).items():
        setattr(model, key, value.to(model.device) if isinstance(value, torch.Tensor) else value)
    restore_generator_states(state['generators'])


def restore_shared_state(model: Any, state: dict[str, Any]) -> None:
    """Restores, of one rank's :func:`rank_state`, what any rank may use: all but random numbers and pools of samples.

    A model says which of its extra state that is (``shared_state``); BasicSR's have none.
    """
    if 'extra_state' in state and hasattr(model, 'shared_state'):
        model.load_extra_state(model.shared_state(state['extra_state']))
    load_loss_states(model, state.get('losses', {}))


def versions() -> dict[str, str]:
    """Names and versions of what a run depends on."""
    return {
        'basicsr_ext': __version__,
        'torch': torch.__version__,
        'numpy': np.__version__,
        'python': platform.python_version(),
    }


def read_state(path: Path) -> dict[str, Any]:
    """Reads a training state, and checks it and the network files that it names.

    Args:
        path: ``<experiment>/training_states/<iteration>.state``.

    Raises:
        UserError: The state or one of its network files is missing, damaged or not finite.
    """
    try:
        with open_file(path) as file:
            with zipfile.ZipFile(file) as archive:  # what torch.save writes; torch.load does not look at its checksums
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f'checksum of {damaged} is wrong')
            file.seek(0)
            state = torch.load(file, map_location='cpu', weights_only=True)
        iteration = state['iter']
        names = state.get('networks', {})
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f'path.resume_state: expected a training state that was saved in training, found {path} ({reason}).'
        ) from None
    optimizers, networks = tensors_of(state.get('optimizers', []), 'optimizer'), {}
    for name, digest in names.items():
        file = path.parents[1] / 'models' / name
        if not file.is_file():
            raise UserError(f'{path}: its network file {file} is missing, so iteration {iteration} cannot be resumed.')
        if sha256(file) != digest:
            raise UserError(f'{path}: its network file {file} is damaged, so iteration {iteration} cannot be resumed.')
        networks |= tensors_of(torch.load(file, map_location='cpu', weights_only=True), name)
    if spoiled := not_finite(networks | optimizers, masks=networks):
        raise UserError(
            f'{path}: NaN or infinity is in {first_of(spoiled)}, since the training had diverged, so iteration {iteration} '
            'cannot be resumed.'
        )
    return state


def newest_state(folder: Path) -> tuple[Path | None, list[str]]:
    """Finds the newest checkpoint that is whole.

    Args:
        folder: ``<experiment>/training_states``.

    Returns:
        Path of its state (``None`` where there is none), and a message for each newer one that is damaged.
    """
    problems = []
    for path in sorted(
        (p for p in folder.glob('*.state') if p.stem.isdecimal()), key=lambda p: int(p.stem), reverse=True
    ):
        try:
            read_state(path)
        except UserError as error:
            problems.append(str(error).removeprefix('path.resume_state: '))
        else:
            return path, problems
    return None, problems


def remove_partial_files(experiment: Path) -> None:
    """Removes what a killed run had half written, or half removed."""
    for folder in ('models', 'training_states'):
        for path in (experiment / folder).glob('*.partial'):
            path.unlink()
    for path in (experiment / 'training_states').glob(f'*{_INCOMPLETE}'):
        if path.with_suffix('.state').exists():
            path.unlink()
        elif path.stem.isdecimal():
            _remove_checkpoint(experiment, int(path.stem))


@contextmanager
def incomplete(experiment: Path, iteration: int) -> Iterator[None]:
    """Marks a checkpoint as incomplete while it is written, so that nothing of it stays after a kill or on a full disk."""
    note = experiment / 'training_states' / f'{iteration}{_INCOMPLETE}'
    if note.with_suffix('.state').exists():  # written anew; by its hashes a part of it is known as damaged
        yield
        return
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()
    try:
        yield
    except BaseException:  # such as a full disk
        _remove_checkpoint(experiment, iteration)
        raise
    note.unlink()


def prune(experiment: Path, keep_last: int, keep: set[int], newest: int) -> None:
    """Removes old checkpoints; one of which a kill leaves a part is none any more, and is removed when the run goes on.

    Args:
        experiment: Folder of the experiment.
        keep_last: How many of the newest stay.
        keep: Iterations that stay besides.
        newest: The iteration just written; later ones, which a run that goes on from an earlier one has passed over, count
            for nothing, and stay until they are written anew.
    """
    states = {int(p.stem): p for p in (experiment / 'training_states').glob('*.state') if p.stem.isdecimal()}
    states = {iteration: path for iteration, path in states.items() if iteration <= newest}
    for iteration in sorted(states)[:-keep_last]:
        if iteration not in keep:
            states[iteration].rename(states[iteration].with_suffix(_INCOMPLETE))
            _remove_checkpoint(experiment, iteration)


def _remove_checkpoint(experiment: Path, iteration: int) -> None:
    """Removes the network files of an incomplete checkpoint, then what says that it is."""
    for file in (experiment / 'models').glob(f'*_{iteration}.pth'):
        file.unlink()
    (experiment / 'training_states' / f'{iteration}{_INCOMPLETE}').unlink()


def name_also(file: Path, other: Path) -> None:
    """Gives a file a second name, atomically: a link where the file system has them, else a copy."""
    partial = other.with_name(other.name + '.partial')
    partial.unlink(missing_ok=True)
    try:
        os.link(file, partial)
    except OSError:
        shutil.copyfile(file, partial)
    os.replace(partial, other)
    partial.unlink(missing_ok=True)  # renaming does nothing where both names are of one file already


# What may differ between a run and the one that goes on from its checkpoint.
_FREE = re.compile(
    r"""(name|num_gpu|deterministic|path|logger|val|dist_params|find_unused_parameters)(\..*)?
    |train\.total_iter
    |datasets\.(?!train\.).*
    |datasets\.train\.(name|dataroot\w*|meta_info\w*|io_backend.*|num_worker_per_gpu|prefetch_mode|num_prefetch_queue
        |pin_memory|persistent_workers)
    |train\.ail\.(update_tile|update_overlap|pictures.*)
    |train\.lfcsr\.forwards""",
    re.VERBOSE,
)


def check_same_run(saved: dict[str, Any] | None, now: dict[str, Any]) -> None:
    """Refuses to go on with another network, loss, data or batch than the checkpoint was trained with.

    Free to change are ``total_iter``, frequencies, workers and paths.

    Args:
        saved: Options kept with the checkpoint; ``None`` where BasicSR wrote it.
        now: Options of this run.

    Raises:
        UserError: Names every key that differs.
    """
    if saved is None:
        return
    before, after = dict(_leaves(saved)), dict(_leaves(plain(now)))
    missing = object()
    differing = [
        f'{key} (was {before.get(key, "not set")!r}, is {after.get(key, "not set")!r})'
        for key in {**before, **after}
        if before.get(key, missing) != after.get(key, missing)
        and not _FREE.fullmatch(key)
        and not _is_moved(before.get(key), after.get(key))
    ]
    if differing:
        raise UserError(
            f'The checkpoint to go on from was trained with other options: {"; ".join(differing)}. Set them back, or start a '
            'new run under another name, with path.pretrain_network_g for the weights.'
        )


def _is_moved(before: Any, after: Any) -> bool:
    """Whether both are absolute paths, as all paths of resolved options are, and hold the same as far as that can be seen."""
    if not all(isinstance(path, str) and os.path.isabs(path) for path in (before, after)):
        return False
    return not (os.path.isfile(before) and os.path.isfile(after)) or sha256(before) == sha256(after)


def _leaves(block: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    if isinstance(block, dict) and block:
        for key, value in block.items():
            yield from _leaves(value, f'{path}.{key}' if path else str(key))
    else:
        yield path, block
