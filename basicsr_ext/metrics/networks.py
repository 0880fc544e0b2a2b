"""What metrics of other libraries share: finding the library, choosing the device, loading weights."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.networks.weights import fit_weights, read_weights

# As torchvision downloads them, into the folder hub/checkpoints of TORCH_HOME.
BACKBONES = {
    'alex': 'alexnet-owt-7be5be79.pth',
    'vgg': 'vgg16-397923af.pth',
    'squeeze': 'squeezenet1_1-b8a52dc0.pth',
}


def require(module: str, metric: str, extra: str) -> ModuleType:
    """Imports the library that a metric needs.

    Args:
        module: Name of the module.
        metric: Name of the metric, for the message.
        extra: The extra of this package that installs the library.

    Raises:
        UserError: It is not installed, or cannot be imported.
    """
    package = module.partition('.')[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package:
            raise UserError(f'{metric} needs the package {package}: pip install "basicsr-ext[{extra}]".') from None
        raise UserError(
            f'{metric} needs the package {package}, which cannot be imported ({error}): pip install '
            f'"basicsr-ext[{extra}]" installs what it needs.'
        ) from None


def pyiqa_metric(metric: str, device: str, color_space: str, model_path: str | os.PathLike | None = None) -> Any:
    """Makes one of pyiqa's metrics.

    Args:
        metric: Name of the metric.
        device: Where it computes.
        color_space: Whose luminance it takes, ``yiq`` or ``ycbcr``.
        model_path: Its parameters; default: pyiqa's, which are downloaded once.

    Raises:
        UserError: pyiqa is missing.
    """
    pyiqa = require('pyiqa', metric, 'iqa')
    model = {} if model_path is None else {'pretrained_model_path': str(model_path)}
    return pyiqa.create_metric(metric.lower(), device=torch.device(device), color_space=color_space, **model)


@contextmanager
def fetching(metric: str, file: str, option: str) -> Iterator[None]:
    """Says what to do where a library cannot download its weights.

    Args:
        metric: Name of the metric.
        file: Name of the file.
        option: The metric's option that names a file instead.

    Raises:
        UserError: Instead of the library's error.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # of arguments that torchvision will rename
            yield
    except (OSError, RuntimeError) as error:  # no connection, no such file, a file cut off
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f'{metric}: its weights, {file}, are not on this machine, and the library that makes it could not download '
            f'them ({reason}). Download them elsewhere, and name the file in {option}.'
        ) from None


def load_features(network: nn.Module, path: str) -> None:
    """Loads a backbone's weights from a file of torchvision's classification network, or of its features alone.

    Args:
        network: Slices of the backbone's features: its keys are theirs, such as ``3.weight``, below the slices' names.
        path: Such as ``squeezenet1_1-b8a52dc0.pth``.

    Raises:
        UserError: The file cannot be read, or is another network's.
    """
    path = os.path.expanduser(path)
    names = {key.partition('.')[2]: key for key, _ in network.named_parameters()}
    stored = {key.removeprefix('features.'): value for key, value in read_weights(path).items()}
    weights = {names.get(key, key): value for key, value in stored.items() if not key.startswith('classifier.')}
    fit_weights(network, weights, path, leave_out=[name for name, _ in network.named_buffers()])


def freeze(network: nn.Module) -> nn.Module:
    """Makes a network ready for measuring: evaluation mode, no gradients."""
    return network.eval().requires_grad_(False)
