"""Checks the metrics of validation."""

from __future__ import annotations

from typing import Any

from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.checking import stock_frame
from basicsr_ext.checking.registries import find_registered, origin
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.signatures import arguments_of, check_arguments
from basicsr_ext.errors import UserError
from basicsr_ext.options.kinds import integer, one_of

IMAGES = ('img', 'img2')
_OF_STOCK = {
    'crop_border': integer(0, 10_000),
    'input_order': one_of('HWC', 'CHW', 'HW'),
    'convert_to': one_of('y', 'gray'),
}


def check_metrics(report: Report) -> dict[str, Any]:
    """Checks every metric's block against its function.

    Returns:
        Name of the metric -> function, for those that are known.
    """
    functions = {}
    for name in report.block('val', 'metrics'):
        path = ('val', 'metrics', name)
        function = find_registered(report, (*path, 'type'), METRIC_REGISTRY, 'metric')
        if function is None:
            continue
        functions[name] = function
        arguments = arguments_of(function)
        also = {'better': stock_frame.METRIC['better'].kind}
        if origin(function) == 'stock':
            also |= {key: kind for key, kind in _OF_STOCK.items() if key in arguments.kinds}
        check_arguments(report, path, function, given=IMAGES, also=also, lenient=origin(function) == 'other')
        if origin(function) == 'stock' and function.__name__.endswith('_pt'):
            other = function.__name__.removesuffix('_pt')
            report.error(
                (*path, 'type'), f'{function.__name__} takes tensors, and validation gives arrays: use {other}.'
            )
        better = getattr(function, 'better', None)
        if report.is_train and better and report.block(*path).get('better', 'higher') != better:
            report.error((*path, 'better'), f'{function.__name__} is better when {better}: set better: {better}.')
        if hasattr(function, 'check_ready') and report.has_no_problems(*path):
            try:
                function.check_ready(
                    **{key: value for key, value in report.block(*path).items() if key not in ('type', 'better')}
                )
            except UserError as error:
                report.error(path, str(error))
    return functions


def compares(function: Any) -> bool:
    """Whether a metric compares an image with its GT image."""
    return 'img2' in arguments_of(function).required
