"""Errors for want of memory: how to know them, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIGNS = (
    'out of memory',
    "can't allocate memory",
    'not enough memory',
    'CUBLAS_STATUS_ALLOC_FAILED',
    'CUDNN_STATUS_ALLOC_FAILED',
    'CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED',
    'CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED',
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short, of the CPU or of a GPU."""
    return isinstance(error, MemoryError) or any(sign in str(error) for sign in _SIGNS)


def message(opt: Mapping[str, Any]) -> str:
    """Says what was used and what to lower, of what this model can do.

    Args:
        opt: Options as BasicSR completed them.
    """
    from basicsr.utils.registry import MODEL_REGISTRY

    from basicsr_ext.checking.models import keys_of, train_blocks

    model = MODEL_REGISTRY.get(opt['model_type'])
    tiled = 'tile' in keys_of(model).val
    if not opt['is_train']:
        return _message({'val.tile': (opt.get('val') or {}).get('tile')} if tiled else {}, ['lower val.tile'] * tiled)
    data, train, blocks = opt['datasets']['train'], opt['train'], train_blocks(model)
    found = {'datasets.train.batch_size_per_gpu': data.get('batch_size_per_gpu')}
    for key, block in (('datasets.train.gt_size', data), ('gt_size', opt)):  # Real-ESRGAN's is of the whole file
        if block.get('gt_size') is not None:
            found[key] = block['gt_size']
    advice = ['lower the batch or the crop']
    if 'accumulate' in blocks and len(model.player_names) == 1:
        found['train.accumulate'] = train.get('accumulate', 1)
        advice.append('raise train.accumulate')
    if 'precision' in blocks:
        found['train.precision'] = train.get('precision', 'fp32')
        advice.append('choose train.precision: bf16')
    elif opt['model_type'] == 'SRModel':
        advice.append('take model_type: TrainingModel, which has train.accumulate and train.precision: bf16')
    if tiled:
        advice.append('lower val.tile, if it was in validation')
    return _message(found, advice)


def _message(found: Mapping[str, Any], advice: list[str]) -> str:
    used = ', '.join(f'{key}: {"not set" if value is None else value}' for key, value in found.items())
    text = ', or '.join(advice) or 'use smaller images'
    return f'Out of memory{f" with {used}" if used else ""}. {text[0].upper()}{text[1:]}.'
