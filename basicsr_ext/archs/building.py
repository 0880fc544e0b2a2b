"""What several networks share: checks of their options, enlarging, names of published weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import upsample


def check_at_least(network: nn.Module, least: int, **arguments: int) -> None:
    """Refuses arguments of a network that are no integers, or too small.

    Args:
        network: Named in the message.
        least: Smallest value allowed.
        **arguments: Values by their names.

    Raises:
        UserError: Names the first wrong argument.
    """
    for name, value in arguments.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise UserError(
                f'{name} of {type(network).__name__}: expected an integer of at least {least}, found {value!r}.'
            )


def enlarge(image: Tensor, upscale: int) -> Tensor:
    """Enlarges images as networks of enlarged input take them: MATLAB's bicubic, differentiable, never rounded.

    Args:
        image: (N, C, H, W), floating point.
        upscale: Factor; 1 where the data are enlarged already.

    Returns:
        (N, C, H * upscale, W * upscale), of the same type.
    """
    if upscale == 1:
        return image
    if torch.compiler.is_compiling():  # the matrices are made by numpy, and kept between calls
        return torch.compiler.disable(upsample)(image, upscale)
    return upsample(image, upscale)


def he_initialisation(convolutions: Iterable[nn.Conv2d], negative_slope: float = 0.0) -> None:
    """Draws weights from a normal distribution of variance 2 / ((1 + slope^2) inputs); biases become 0.

    Args:
        convolutions: With the weights to draw; inputs are channels times kernel pixels.
        negative_slope: Of the rectifier that follows.

    Source: He et al., "Delving Deep into Rectifiers", 2015, Eqs. 10 and 15.
    """
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, a=negative_slope, nonlinearity='leaky_relu')
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)


def rename_keys(
    state: Mapping[str, Tensor], rules: Mapping[str, str | Callable[[re.Match[str]], str]]
) -> dict[str, Tensor]:
    """Renames tensors; those whose names no rule knows keep them.

    Args:
        state: Tensors by name.
        rules: Regular expression that the beginning of a name matches -> its replacement.
    """
    renamed = {}
    for key, tensor in state.items():
        for pattern, replacement in rules.items():
            new_key, found = re.subn(rf'\A{pattern}', replacement, key)
            if found:
                break
        renamed[new_key if found else key] = tensor
    return renamed
