"""Checks that networks and training images fit together.

Only shapes are computed, on the device "meta"; pixels of a small image on the CPU where a network does not run there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn
from torch.overrides import TorchFunctionMode

from basicsr_ext.checking.dataset_contents import Contents
from basicsr_ext.checking.networks import CANNOT_RUN_HERE, build_to_run, build_whole, quiet
from basicsr_ext.checking.registries import look_up, origin
from basicsr_ext.checking.report import Report
from basicsr_ext.errors import UserError
from basicsr_ext.networks.requirements import requirements_of
from basicsr_ext.options.problems import KeyPath, brief

# What torch says of tensors that do not fit; other errors on "meta" may come from computing without memory.
_SHAPES = re.compile(
    r'size of tensor|sizes? must match|Sizes of tensors|to have \d+ channels|size mismatch|shapes? |must be|than input'
    r'|broadcast|size per channel|is too small'
)
_SIDE = 48  # LQ pixels; a multiple of the usual windows
_SIDE_ON_CPU = 16
# Their discriminators take something else than images of the generator's size,
_OTHER_DISCRIMINATORS = ('HiFaceGANModel', 'StyleGAN2Model', 'VideoRecurrentGANModel')
_OTHER_GENERATORS = ('StyleGAN2Model',)  # and its generator takes noise.


def check_shapes(report: Report, networks: Mapping[str, nn.Module], contents: Mapping[str, Contents]) -> None:
    """Checks that ``network_g`` and its teachers make images like GT images out of LQ images; ``network_d`` takes GT images.

    Args:
        report: Takes the problems.
        networks: Built without memory.
        contents: Of the datasets that were opened.
    """
    scale = report.get('scale')
    scale = 1 if scale is None else scale
    if not report.has_no_problems('scale') or not report.has_no_problems('gt_size'):
        return
    for name, held in contents.items():
        size = _gt_size(report, name, scale)
        if held.channels is None or size is None or not report.has_no_problems('datasets', name):
            continue
        lq = torch.empty(1, held.channels, size // scale, size // scale, device='meta')
        gt = torch.empty(1, held.channels, size, size, device='meta')
        if report.get('model_type') not in _OTHER_GENERATORS:
            _check_generator(report, networks, name, lq, gt if held.has_gt else None)
        if name == 'train':
            _check_teachers(report, lq, gt if held.has_gt else None)
        if name == 'train' and 'network_d' in networks and report.get('model_type') not in _OTHER_DISCRIMINATORS:
            _run(report, ('network_d',), networks['network_d'], gt)


def _gt_size(report: Report, name: str, scale: int) -> int | None:
    """Side of the GT images in training; some side for whole images, which most networks can take."""
    if name != 'train':
        return _SIDE * scale
    size = report.get('gt_size') if report.get('datasets', name, 'type') == 'RealESRGANDataset' else None
    size = size or report.get('datasets', name, 'gt_size')
    return size if isinstance(size, int) else None


def _check_generator(
    report: Report, networks: Mapping[str, nn.Module], name: str, lq: torch.Tensor, gt: torch.Tensor | None
) -> None:
    if 'network_g' not in networks or not report.has_no_problems('network_g'):
        return
    if name != 'train' and requirements_of(report.block('network_g')).luminance:
        lq, gt = lq[:, :1], None if gt is None else gt[:, :1]  # tests give it the luminance of colour images
    _compare(report, ('network_g',), networks['network_g'], name, lq, gt)


def _check_teachers(report: Report, lq: torch.Tensor, gt: torch.Tensor | None) -> None:
    """Checks networks that a method learns from, each beside its ``weights``: they must make what ``network_g`` makes."""
    for path in [(*path[:-1], 'network') for path in report.paths if path[-1] == 'weights']:
        if isinstance(report.get(*path), Mapping) and report.has_no_problems(*path):
            network = build_whole(report, path)
            if network is not None:
                _compare(report, path, network, 'train', lq, gt)


def _compare(
    report: Report, path: KeyPath, network: nn.Module, name: str, lq: torch.Tensor, gt: torch.Tensor | None
) -> None:
    images, output = _run(report, path, network, lq)
    if output is None:
        return
    if not isinstance(output, torch.Tensor):
        message = f'expected a network that makes images, found {type(network).__name__}, which makes something else.'
        _note(report, (*path, 'type'), message)
        return
    if gt is None:
        return
    expected = (*gt.shape[:2], *(side * gt.shape[-1] // lq.shape[-1] for side in images.shape[-2:]))
    if output.shape != expected:
        _note(
            report,
            path,
            f'{type(network).__name__} makes images of {_shape(output.shape)} out of LQ images of {_shape(images.shape)} as '
            f'datasets.{name} has, expected {_shape(expected)}, like its GT images. Check channels and scale of both.'
            f'{_grey_hint(images, output)}',
        )


def _grey_hint(images: torch.Tensor, made: torch.Tensor | None = None) -> str:
    """How grey images are read by networks that take or make colours."""
    if images.shape[1] != 1 or (made is not None and made.shape[1] != 3):
        return ''
    return (
        ' The images are grey. For a network in colour make their store with basicsr prepare lmdb --channels 3, and the LR '
        'images from that store; of folders, set channels: 3 in the block of the dataset.'
    )


def _note(report: Report, path: KeyPath, message: str) -> None:
    """Notes a problem; a warning where the model is of another package, which may feed its networks otherwise."""
    model = look_up(MODEL_REGISTRY, str(report.get('model_type')))
    note = report.warn if model is not None and origin(model) == 'other' else report.error
    note(path, message)


class _CheckedConvolutions(TorchFunctionMode):
    """Refuses images of a wrong number of channels, as torch does only where it computes pixels."""

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if function in (torch.conv1d, torch.conv2d, torch.conv3d) and len(args) >= 2:
            images, weight = args[:2]
            groups = args[6] if len(args) > 6 else (kwargs or {}).get('groups', 1)
            expected = weight.shape[1] * groups
            if images.ndim == weight.ndim and images.shape[1] != expected:
                raise ValueError(f'a convolution expects {expected} channels, and gets {images.shape[1]}')
        return function(*args, **(kwargs or {}))


def _run(report: Report, path: KeyPath, network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Runs a network on "meta", or on the CPU where that says nothing about shapes; notes what it does not take.

    Returns:
        The images that it was run on, and its output; ``None`` where there is none.
    """
    try:
        return images, _forward(network.to('meta'), images)
    except Exception as error:
        if _is_of_shapes(error):
            _refuse(report, path, network, images, error)
            return images, None
    return _run_on_cpu(report, path, network, images)


def _run_on_cpu(report: Report, path: KeyPath, network: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, Any]:
    """Runs a network on pixels: a small image, and one of the right size before anything is said to be wrong."""
    channels, side = images.shape[1], images.shape[-1]
    window = requirements_of(report.block(*path)).window
    small = min(side, -(-_SIDE_ON_CPU // window) * window)
    reason: Exception | None = None
    for size in dict.fromkeys((small, side)):
        pixels = torch.rand(1, channels, size, size)
        try:
            return pixels, _forward(build_to_run(report, path), pixels)
        except Exception as error:  # whatever a network makes of an image that it was not made for
            reason = error
    if isinstance(reason, CANNOT_RUN_HERE) and report.get('num_gpu') != 0:
        message = f'{type(network).__name__} was not tried on images: it does not run on the CPU ({_brief(reason)}).'
        report.warn(path, message)
    else:
        _refuse(report, path, network, images, reason)
    return images, None


def _forward(network: nn.Module, images: torch.Tensor) -> Any:
    with torch.no_grad(), quiet(), _CheckedConvolutions():
        return network.eval()(images)


def _is_of_shapes(error: Exception) -> bool:
    return isinstance(error, (UserError, AssertionError, ValueError)) or (
        isinstance(error, RuntimeError) and _SHAPES.search(str(error).strip().partition('\n')[0]) is not None
    )


def _refuse(report: Report, path: KeyPath, network: nn.Module, images: torch.Tensor, error: Exception) -> None:
    if isinstance(error, UserError):
        report.refused(path, error)
    else:
        reason = _brief(error) if _is_of_shapes(error) else f'{type(error).__name__}: {_brief(error)}'
        message = f'{type(network).__name__} does not take images of {_shape(images.shape)} ({reason}).'
        _note(report, path, message + _grey_hint(images))


def _brief(error: Exception) -> str:
    return brief(str(error).strip().partition('\n')[0])


def _shape(sizes: Sequence[int]) -> str:
    return 'x'.join(map(str, sizes[1:]))
