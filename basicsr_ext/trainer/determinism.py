"""What a run sets for its whole process, and ``deterministic: true``.

What the option promises: on the same kind of GPU, with the same versions of torch, CUDA and cuDNN and the same number of
ranks, a run and its repetition, and a run that was stopped and resumed and one that was not, end with the same weights to
the bit. CPU runs keep that promise without it. It costs speed: cuDNN no longer measures which of its algorithms is fastest.

An operation that has no deterministic implementation stops the run with an error that names it, where it is first used: a
warning that scrolls past would leave a promise that nobody keeps.

Not promised: equal numbers on other GPUs, with other versions, or with another number of ranks; with ``train.compile``,
whose kernels are chosen anew in each process; and after resuming with more than two ranks, since the order in which NCCL adds
more than two gradients depends on how they are bundled, which the first iteration of a process does in its own way.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from basicsr_ext.errors import UserError

# cuBLAS repeats its sums only with a workspace of fixed size; read once, before its first use.
_CUBLAS_VARIABLE = 'CUBLAS_WORKSPACE_CONFIG'
_CUBLAS_WORKSPACES = (':4096:8', ':16:8')


@contextmanager
def process_settings_kept() -> Iterator[None]:
    """Puts back, when the context ends, what a run changes in torch for the whole process."""
    cudnn = torch.backends.cudnn
    flags = cudnn.benchmark, cudnn.deterministic
    strict, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    precision, workspace = torch.get_float32_matmul_precision(), os.environ.get(_CUBLAS_VARIABLE)
    try:
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = flags
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.set_float32_matmul_precision(precision)
        if workspace is None:
            os.environ.pop(_CUBLAS_VARIABLE, None)
        else:
            os.environ[_CUBLAS_VARIABLE] = workspace


def fix_cublas_workspace() -> None:
    """Gives cuBLAS a workspace of fixed size, unless the environment does; before anything in the process uses cuBLAS.

    Raises:
        UserError: The environment gives it one that it cannot repeat its sums with.
    """
    workspace = os.environ.setdefault(_CUBLAS_VARIABLE, _CUBLAS_WORKSPACES[0])
    if workspace not in _CUBLAS_WORKSPACES:
        raise UserError(
            f'deterministic: the environment variable {_CUBLAS_VARIABLE} is {workspace}; expected '
            f'{" or ".join(_CUBLAS_WORKSPACES)}, or that it is not set.'
        )


def use_deterministic_algorithms() -> None:
    """Leaves torch no others; BasicSR turns cuDNN's benchmark on after reading the options, so call it later than that."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True)


def refusal(error: BaseException) -> UserError | None:
    """Turns torch's refusal of an operation that is not deterministic into a message for the user; else gives ``None``."""
    text = str(error).partition('\n')[0]
    if 'uses CuBLAS' in text:
        return UserError(
            'deterministic: this process has used cuBLAS before the run began. Start the run in a process of its own, or set '
            f'the environment variable {_CUBLAS_VARIABLE} to {_CUBLAS_WORKSPACES[0]} before the process starts.'
        )
    if 'does not have a deterministic implementation' not in text:
        return None
    return UserError(
        f'deterministic: true cannot be kept: {text.partition(", but")[0]}. Choose another network, loss or metric, or set '
        'deterministic: false.'
    )
