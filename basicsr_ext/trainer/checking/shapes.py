"""Checks that networks and training images fit together; only shapes are computed, no pixels."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from basicsr_ext.errors import UserError
from basicsr_ext.models.network_needs import needs_of
from basicsr_ext.trainer.checking.contents import Contents
from basicsr_ext.trainer.checking.networks import build_whole, quiet
from basicsr_ext.trainer.checking.problems import KeyPath, brief
from basicsr_ext.trainer.checking.report import Report

# What torch says of tensors that do not fit; other errors may come from computing without memory.
_SHAPES = re.compile(
    r'size of tensor|sizes? must match|Sizes of tensors|to have \d+ channels|size mismatch|shapes? |must be|than input'
    r'|broadcast|size per channel|is too small'
)
_SIDE = 48  # LQ pixels; a multiple of the usual windows
# Their discriminators take something else than images of the generator's size.
_OTHER_DISCRIMINATORS = ('HiFaceGANModel', 'StyleGAN2Model', 'VideoRecurrentGANModel')


def check_shapes(report: Report, networks: Mapping[str, nn.Module], contents: Mapping[str, Contents]) -> None:
    """Checks that ``network_g`` and its teachers make images like GT images out of LQ images; ``network_d`` takes GT images.

    Args:
        report: Takes the problems.
        networks: Built without memory.
        contents: Of the datasets that were opened.
    """
    scale = report.get('scale')
    scale = 1 if scale is None else scale
    if not report.is_sound('scale') or not report.is_sound('gt_size'):
        return
    for name, held in contents.items():
        size = _gt_size(report, name, scale)
        if held.channels is None or size is None or not report.is_sound('datasets', name):
            continue
        lq = torch.empty(1, held.channels, size // scale, size // scale, device='meta')
        gt = torch.empty(1, held.channels, size, size, device='meta')
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
    if 'network_g' not in networks or not report.is_sound('network_g'):
        return
    if name != 'train' and needs_of(report.block('network_g')).luminance:
        lq, gt = lq[:, :1], None if gt is None else gt[:, :1]  # tests give it the luminance of colour images
    _compare(report, ('network_g',), networks['network_g'], name, lq, gt)


def _check_teachers(report: Report, lq: torch.Tensor, gt: torch.Tensor | None) -> None:
    """Checks networks that a method learns from, each beside its ``weights``: they must make what ``network_g`` makes."""
    for path in [(*path[:-1], 'network') for path in report.paths if path[-1] == 'weights']:
        if isinstance(report.get(*path), Mapping) and report.is_sound(*path):
            network = build_whole(report, path)
            if network is not None:
                _compare(report, path, network, 'train', lq, gt)


def _compare(
    report: Report, path: KeyPath, network: nn.Module, name: str, lq: torch.Tensor, gt: torch.Tensor | None
) -> None:
    output = _run(report, path, network, lq)
    if isinstance(output, Mapping):
        report.error(
            (*path, 'type'), f'expected a network that makes images, found {type(network).__name__}, which does not.'
        )
    elif isinstance(output, torch.Tensor) and gt is not None and output.shape != gt.shape:
        report.error(
            path,
            f'{type(network).__name__} makes images of {_shape(output)} out of LQ images of {_shape(lq)} as '
            f'datasets.{name} has, expected {_shape(gt)}, like its GT images. Check channels and scale of both.',
        )


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


def _run(report: Report, path: KeyPath, network: nn.Module, images: torch.Tensor) -> Any:
    try:
        with torch.no_grad(), quiet(), _CheckedConvolutions():
            output = network.to('meta').eval()(images)
    except UserError as error:
        report.refused(path, error)
        return None
    except Exception as error:
        reason = brief(str(error).strip().partition('\n')[0])
        if isinstance(error, (AssertionError, ValueError)) or (
            isinstance(error, RuntimeError) and _SHAPES.search(reason)
        ):
            report.error(path, f'{type(network).__name__} does not take images of {_shape(images)} ({reason}).')
        return None
    return output


def _shape(images: torch.Tensor) -> str:
    return 'x'.join(map(str, images.shape[1:]))
