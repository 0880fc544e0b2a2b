"""What several networks share: checks of their options, enlarging, first weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import upsample

He = Literal['fan_in', 'fan_out', 'default']


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
    exporting = getattr(torch.compiler, 'is_exporting', bool)()  # then they are constants, of a call before
    if torch.compiler.is_compiling() and not exporting:  # the matrices are made by numpy, and kept between calls
        return torch.compiler.disable(upsample)(image, upscale)
    return upsample(image, upscale)


def he_initialisation(convolutions: Iterable[nn.Conv2d], negative_slope: float = 0.0, init: He = 'fan_in') -> None:
    """Draws weights from a normal distribution of variance 2 / ((1 + slope^2) n); biases become 0.

    Args:
        convolutions: With the weights to draw.
        negative_slope: Of the rectifier that follows.
        init: What n counts, times the pixels of a kernel: the input channels (``fan_in``) or the output channels
            (``fan_out``). ``default`` draws nothing: weights and biases stay as PyTorch made them.

    Raises:
        UserError: ``init`` is none of these.

    Source: He et al., "Delving Deep into Rectifiers", 2015, Eqs. 10, 14 and 15.
    """
    if init not in get_args(He):
        raise UserError(f'init: expected one of {", ".join(get_args(He))}, found {init!r}.')
    if init == 'default':
        return
    for convolution in convolutions:
        nn.init.kaiming_normal_(convolution.weight, a=negative_slope, mode=init, nonlinearity='leaky_relu')
        if convolution.bias is not None:
            nn.init.zeros_(convolution.bias)


class Normalization(nn.Module):
    """Takes images from [0, 1] to where a network works, and its output back; without weights.

    Args:
        img_range: Images are multiplied by it, positive: 255 for networks whose training was published on [0, 255].
        rgb_mean: Subtracted before that, a number in [0, 1] for each channel; ``None``: 0.
        in_channels: Channels of the images.

    Raises:
        UserError: The range is not positive, or there is not one mean for each channel.
    """

    def __init__(self, img_range: float, rgb_mean: Sequence[float] | None, in_channels: int):
        super().__init__()
        if not img_range > 0:
            raise UserError(f'img_range: expected a positive number, found {img_range!r}.')
        if rgb_mean is not None and len(rgb_mean) != in_channels:
            raise UserError(f'rgb_mean: expected {in_channels} numbers, one for each channel, found {rgb_mean!r}.')
        self.img_range = img_range
        self.mean: Tensor | None
        mean = None if rgb_mean is None else torch.tensor(rgb_mean, dtype=torch.float32).view(1, -1, 1, 1)
        self.register_buffer('mean', mean, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Returns ``(image - mean) img_range``."""
        image = image if self.mean is None else image - self.mean
        return image if self.img_range == 1 else image * self.img_range

    def undo(self, image: Tensor) -> Tensor:
        """Returns ``image / img_range + mean``."""
        image = image if self.img_range == 1 else image / self.img_range
        return image if self.mean is None else image + self.mean
