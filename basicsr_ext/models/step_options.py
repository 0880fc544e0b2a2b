"""Speed and precision of the training step."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field

from basicsr_ext.errors import UserError
from basicsr_ext.options.config import OptionBlock


class StepOptions(OptionBlock):
    """Keys of the block ``train`` that say how a step is computed.

    Attributes:
        precision: ``fp32`` is torch's default (where cuDNN's convolutions may use TF32, as under BasicSR); ``tf32`` lets
            matrix products use it too; ``bf16`` and ``fp16`` run the networks' forwards in autocast, with float32
            weights, outputs and losses, ``fp16`` with a gradient scaler.
        channels_last: Memory layout of networks and images.
        compile: ``torch.compile`` on the training forward.
        cuda_graph: Forward and backward are recorded once and replayed, each in one launch: much faster where the GPU waits
            for Python, as it does in small networks or batches. Images of one size, on one GPU; no effect elsewhere.
        accumulate: Splits each loaded batch into so many micro-batches, to save memory; an iteration stays one
            optimizer step over the same samples; batch normalisation, and the centre of a ContextualLoss, are those of a
            micro-batch. For models with one player and losses with ``reduction: mean``.
    """

    precision: Literal['fp32', 'tf32', 'bf16', 'fp16'] = 'fp32'
    channels_last: bool = False
    compile: bool = False
    cuda_graph: bool = False
    accumulate: int = Field(default=1, ge=1)

    @property
    def autocast_precision(self) -> str:
        """What autocast is asked for."""
        return 'fp32' if self.precision == 'tf32' else self.precision

    def apply_globally(self) -> None:
        """Sets what is torch-wide: the precision of float32 matrix products."""
        torch.set_float32_matmul_precision('high' if self.precision == 'tf32' else 'highest')

    def check_accumulation(self, opt: dict[str, Any], players: int) -> None:
        """Refuses micro-batches where they would change what is computed.

        Raises:
            UserError: The model has several players, the batch cannot be split evenly, or a loss is a sum.
        """
        if self.accumulate == 1:
            return
        where = f'train.accumulate: {self.accumulate}'
        if players > 1:
            raise UserError(f'{where} needs a model of one player, and {opt["model_type"]} has {players}; remove it.')
        batch = opt['datasets']['train']['batch_size_per_gpu']
        if batch % self.accumulate:
            raise UserError(f'{where} does not divide datasets.train.batch_size_per_gpu: {batch}; change one of them.')
        for name, block in opt['train'].items():
            if name.endswith('_opt') and isinstance(block, dict) and block.get('reduction', 'mean') != 'mean':
                raise UserError(f'{where} needs reduction: mean, and train.{name} has {block["reduction"]}.')
