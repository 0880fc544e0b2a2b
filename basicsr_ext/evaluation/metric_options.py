"""The metrics of a command line, as blocks of options like those of ``val.metrics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from basicsr_ext.errors import UserError
from basicsr_ext.options.problems import raise_problems
from basicsr_ext.options.yaml import read_yaml

DEFAULT = ('psnr', 'ssim')
_ALSO_CALLED = {'ma': 'NRQM'}
_OF_WHOLE_IMAGES = ('LPIPS', 'DISTS')  # published numbers leave out no border
_NOT_IN_NAME = ('type', 'better', 'device')


def metric_blocks(texts: Sequence[str], crop_border: int = 0, on_luminance: bool = True) -> dict[str, dict[str, Any]]:
    """Reads metrics as they are named on the command line.

    Args:
        texts: Names, in any case (``psnr``), or blocks of options in YAML (``{type: LPIPS, net: vgg}``).
        crop_border: For metrics that take it and do not set it, but not for LPIPS and DISTS.
        on_luminance: Whether metrics that can (``test_y_channel``) are measured on luminance; else on RGB.

    Returns:
        Name of the column -> options, as ``val.metrics`` has them.

    Raises:
        UserError: A block is no valid YAML, has no type, or a metric is named twice.
    """
    from basicsr.utils.registry import METRIC_REGISTRY

    from basicsr_ext.checking.registries import look_up
    from basicsr_ext.checking.signatures import arguments_of

    registered = {name.lower(): name for name in METRIC_REGISTRY.keys()} | _ALSO_CALLED
    blocks: dict[str, dict[str, Any]] = {}
    for text in texts:
        block = _block(text)
        block['type'] = registered.get(block['type'].lower(), block['type'])
        name = _column(block)
        if name in blocks:
            raise UserError(f'--metrics: {name} is named twice.')
        function = look_up(METRIC_REGISTRY, block['type'])
        known = arguments_of(function).kinds if function is not None else {}
        if 'crop_border' in known:
            block.setdefault('crop_border', 0 if block['type'] in _OF_WHOLE_IMAGES else crop_border)
        if 'test_y_channel' in known:
            block.setdefault('test_y_channel', on_luminance)
        blocks[name] = block
    return blocks


def check_blocks(blocks: Mapping[str, Mapping[str, Any]], has_gt: bool) -> None:
    """Checks the options of metrics as those of an option file, and that metrics are ready to be computed.

    Raises:
        UserError: Names every wrong option, missing package and missing file of weights.
    """
    from basicsr_ext.checking.metrics import check_metrics, compares
    from basicsr_ext.checking.report import Report
    from basicsr_ext.options.source import read_source

    report = Report(read_source({'val': {'metrics': dict(blocks)}}), is_train=False)
    functions = check_metrics(report)
    try:
        report.raise_problems()
    except UserError as error:
        raise UserError(str(error).replace('val.metrics.', '--metrics ')) from None
    if not has_gt and (needy := [name for name, function in functions.items() if compares(function)]):
        raise UserError(
            f'--gt: {", ".join(needy)} compare with GT images. Give their folder, or ask for metrics that judge an image '
            'alone, such as --metrics niqe.'
        )


def describe(blocks: Mapping[str, Mapping[str, Any]]) -> str:
    """Says in one line how metrics are computed, so that numbers can be compared."""
    return '; '.join(
        f'{name} ({", ".join(f"{key} {_shown(value)}" for key, value in block.items() if key not in _NOT_IN_NAME)})'
        for name, block in blocks.items()
    )


def _block(text: str) -> dict[str, Any]:
    if not text.lstrip().startswith('{'):
        return {'type': text}
    value, problems = read_yaml(text, f'--metrics {text}')
    raise_problems(problems)
    if not isinstance(value, Mapping) or not isinstance(value.get('type'), str):
        raise UserError(f'--metrics: expected a name or a block such as "{{type: LPIPS, net: vgg}}", found {text!r}.')
    return dict(value)


def _column(block: Mapping[str, Any]) -> str:
    options = [
        f'{key} {_shown(value)}'
        for key, value in block.items()
        if key not in _NOT_IN_NAME and not key.endswith('_path')
    ]
    return f'{block["type"]} ({", ".join(options)})' if options else block['type']


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
