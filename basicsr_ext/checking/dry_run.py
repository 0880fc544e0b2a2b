"""Does small parts of a run for real: reads samples, runs networks and metrics on them."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from basicsr.metrics import calculate_metric
from basicsr.utils import tensor2img
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from basicsr_ext.checking.networks import CANNOT_RUN_HERE, quiet
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.structure import datasets, phase_of
from basicsr_ext.errors import UserError
from basicsr_ext.functional.pixels import to_unit_range
from basicsr_ext.networks.requirements import requirements_of
from basicsr_ext.networks.tiling import pad_to_multiple
from basicsr_ext.networks.weights import fit_weights, read_weights
from basicsr_ext.options.problems import brief

METRIC_SIDE = 512  # HR pixels; whole images would take metrics such as NIQE many seconds


class Cost(NamedTuple):
    """What a forward of a network costs.

    Attributes:
        multiply_adds: Of convolutions and matrix products.
        input_size: Height and width of the LQ image.
        output_shape: Of the network's output, without the batch.
    """

    multiply_adds: int
    input_size: tuple[int, int]
    output_shape: tuple[int, ...]


def read_sample(report: Report, name: str, dataset: Any) -> dict[str, Any]:
    """Reads the first sample of a dataset; empty, with a problem noted, where that fails."""
    try:
        with quiet():
            return dict(dataset[0])
    except UserError as error:
        report.refused(('datasets', name), error)
    except Exception as error:  # whatever a stock dataset makes of a damaged image
        report.error(('datasets', name), f'the first sample cannot be read ({type(error).__name__}: {brief(error)}).')
    return {}


def image_of(sample: Mapping[str, Any], key: str) -> torch.Tensor | None:
    """Returns an image of a sample as float32 in [0, 1]."""
    image = sample.get(key)
    if not isinstance(image, torch.Tensor):
        return None
    return to_unit_range(image).float()


def run_network(report: Report, network: nn.Module, sample: Mapping[str, Any], scale: int | None) -> Cost | str:
    """Runs a network on a sample's LQ image, and counts.

    Args:
        report: Takes the problem, where the network does not take the image, or its output is not as large as the GT image.
        network: On the CPU.
        sample: With ``lq``, and ``gt`` where there is one; without ``lq`` an image of 64x64 is made up.
        scale: HR pixels per LQ pixel along each side.

    Returns:
        What it costs, or why that is not known.
    """
    lq = image_of(sample, 'lq')
    gt = image_of(sample, 'gt')
    made_up = lq is None
    lq = torch.rand(1, 3, 64, 64) if lq is None else lq[None]
    needs = requirements_of(report.block('network_g'))
    if not report.is_train and needs.luminance:
        lq, gt = lq[:, :1], None if gt is None else gt[:1]  # tests give it the luminance of colour images
    if not report.is_train and needs.window > 1:
        lq, gt = pad_to_multiple(lq, needs.window), None  # and whole windows
    path = ('network_g',)
    try:
        with torch.no_grad(), quiet(), FlopCounterMode(display=False) as counter:
            output = network.eval()(lq)
    except Exception as error:  # whatever a network makes of an image that it was not made for
        reason = f'{type(error).__name__}: {brief(error)}'
        if not made_up and not isinstance(error, CANNOT_RUN_HERE):
            report.error(
                path, f'{type(network).__name__} does not take the images of datasets, {_shape(lq[0])} ({reason}).'
            )
        return f'not run on this machine ({reason})'
    output = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(output, torch.Tensor):
        report.error(path, f'expected a network that makes images, found {type(network).__name__}, which does not.')
        return 'it makes no image'
    if gt is not None and not made_up and output.shape[1:] != gt.shape:
        made = f'{type(network).__name__} makes {_shape(output[0])} of {_shape(lq[0])}'
        report.error(path, f'{made}, expected {_shape(gt)} as the GT image. Check channels, and scale ({scale}).')
    return Cost(counter.get_total_flops() // 2, tuple(lq.shape[-2:]), tuple(output.shape[1:]))


def compare_weights(report: Report, key: str, network: nn.Module) -> str:
    """Loads a network's pretrained weights as a run does, and says how much of them fits.

    Args:
        report: Takes the problem, where too little does.
        key: Of the network's block, such as ``network_g``.
        network: On the CPU; receives the weights.
    """
    letter = key.removeprefix('network_')
    path = ('path', f'pretrain_{key}')
    file, strict = report.get(*path), report.get('path', f'strict_load_{letter}') is not False
    if file is None:
        return ''
    file = os.path.expanduser(file)
    try:
        weights = read_weights(file, report.get('path', f'param_key_{letter}') or 'params', exact_key=False)
        leave_out = report.get(*path[:-1], f'{path[-1]}_leave_out') or ()
        return f'; {fit_weights(network, weights, file, strict, leave_out, key)}'
    except UserError as error:
        report.error(path, str(error))
        return ''


def run_metrics(
    report: Report, sample: Mapping[str, Any], scale: int, shown: str = 'the first image of validation'
) -> dict[str, float]:
    """Runs every metric of ``val.metrics`` on a sample's middle, with its LQ image enlarged by bicubic interpolation.

    Args:
        report: Takes a problem for each metric that fails.
        sample: With ``lq``, and ``gt`` where there is one.
        scale: HR pixels per LQ pixel along each side.
        shown: What the image is called in messages.

    Returns:
        Name of the metric -> its value.
    """
    lq, gt = image_of(sample, 'lq'), image_of(sample, 'gt')
    if lq is None:
        return {}
    lq, gt = (image[image.shape[0] // 2] if image is not None and image.ndim == 4 else image for image in (lq, gt))
    side = _side(report, scale)
    top, left = (max(0, (length - side) // 2) for length in lq.shape[-2:])
    lq = lq[..., top : top + side, left : left + side]
    enlarged = functional.interpolate(lq[None], scale_factor=scale, mode='bicubic', align_corners=False)
    data: dict[str, np.ndarray] = {'img': tensor2img([enlarged.clamp(0, 1)])}
    if gt is not None:
        height, width = enlarged.shape[-2:]
        data['img2'] = tensor2img([gt[..., top * scale : top * scale + height, left * scale : left * scale + width]])
    results = {}
    for name, options in report.block('val', 'metrics').items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                results[name] = float(calculate_metric(data, dict(options)))
            if math.isnan(results[name]):
                raise ValueError('the result is not a number; crop_border may leave no pixels')
        except Exception as error:  # missing weights, sizes that a metric cannot take, ...
            message = f'{options["type"]} fails on {shown} ({type(error).__name__}: {brief(error)}).'
            report.error(('val', 'metrics', name), message)
    return results


def dry_run_metrics(report: Report) -> None:
    """Runs every metric on the first image of a dataset for validation or testing; on a made-up one where none was opened."""
    names = [name for name in datasets(report) if phase_of(name) != 'train']
    if not names or not report.block('val', 'metrics'):
        return
    scale = report.get('scale') or 1
    for name in names:
        if name in report.opened:
            run_metrics(report, read_sample(report, name, report.opened[name]), scale)
            return
    lq = torch.rand(3, *(_side(report, scale),) * 2, generator=torch.Generator().manual_seed(0))
    gt = functional.interpolate(lq[None], scale_factor=scale, mode='bilinear', align_corners=False)[0]
    run_metrics(report, {'lq': lq, 'gt': gt}, scale, 'a made-up image')


def _side(report: Report, scale: int) -> int:
    """Side in LQ pixels of the image that metrics are run on."""
    borders = [options.get('crop_border') for options in report.block('val', 'metrics').values()]
    return METRIC_SIDE // scale + 2 * max((border for border in borders if isinstance(border, int)), default=0)


def _shape(image: torch.Tensor) -> str:
    return 'x'.join(map(str, image.shape))
