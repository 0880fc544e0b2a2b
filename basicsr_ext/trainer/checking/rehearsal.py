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

from basicsr_ext.errors import UserError
from basicsr_ext.models.weights import fit_weights, read_weights
from basicsr_ext.trainer.checking.networks import quiet
from basicsr_ext.trainer.checking.problems import brief
from basicsr_ext.trainer.checking.report import Report
from basicsr_ext.trainer.checking.structure import phase_of

METRIC_SIDE = 512  # HR pixels; whole images would take metrics such as NIQE many seconds
_RANGES = {torch.uint8: 255.0, torch.uint16: 65535.0}
# A network that needs an operator compiled for a GPU: nothing that options could mend.
_CANNOT_RUN_HERE = (NameError, ImportError, NotImplementedError, AttributeError)


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
    return image.float() / _RANGES[image.dtype] if image.dtype in _RANGES else image.float()


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
    made_up = lq is None
    lq = torch.rand(1, 3, 64, 64) if lq is None else lq[None]
    path = ('network_g',)
    try:
        with torch.no_grad(), quiet(), FlopCounterMode(display=False) as counter:
            output = network.eval()(lq)
    except Exception as error:  # whatever a network makes of an image that it was not made for
        reason = f'{type(error).__name__}: {brief(error)}'
        if not made_up and not isinstance(error, _CANNOT_RUN_HERE):
            report.error(
                path, f'{type(network).__name__} does not take the images of datasets, {_shape(lq[0])} ({reason}).'
            )
        return f'not run on this machine ({reason})'
    output = output[0] if isinstance(output, (tuple, list)) else output
    gt = image_of(sample, 'gt')
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
        return f'; {fit_weights(network, weights, file, strict, leave_out)}'
    except UserError as error:
        report.error(path, str(error))
        return ''


def run_metrics(report: Report, sample: Mapping[str, Any], scale: int) -> dict[str, float]:
    """Runs every metric of ``val.metrics`` on a sample's middle, with its LQ image enlarged by bicubic interpolation.

    Args:
        report: Takes a problem for each metric that fails.
        sample: With ``lq``, and ``gt`` where there is one.
        scale: HR pixels per LQ pixel along each side.

    Returns:
        Name of the metric -> its value.
    """
    lq, gt = image_of(sample, 'lq'), image_of(sample, 'gt')
    if lq is None:
        return {}
    lq, gt = (image[image.shape[0] // 2] if image is not None and image.ndim == 4 else image for image in (lq, gt))
    borders = [options.get('crop_border') for options in report.block('val', 'metrics').values()]
    side = METRIC_SIDE // scale + 2 * max((border for border in borders if isinstance(border, int)), default=0)
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
            message = (
                f'{options["type"]} fails on the first image of validation ({type(error).__name__}: {brief(error)}).'
            )
            report.error(('val', 'metrics', name), message)
    return results


def rehearse_metrics(report: Report, datasets: Mapping[str, Any]) -> None:
    """Runs every metric on the first image of the first of some datasets that is for validation or testing."""
    for name, dataset in datasets.items():
        if phase_of(name) != 'train' and report.block('val', 'metrics'):
            run_metrics(report, read_sample(report, name, dataset), report.get('scale') or 1)
            return


def _shape(image: torch.Tensor) -> str:
    return 'x'.join(map(str, image.shape))
