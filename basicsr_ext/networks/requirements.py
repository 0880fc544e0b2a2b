"""What a network needs of its input, as its option and its class say."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

_CHANNELS = ('num_in_ch', 'in_channels', 'in_chans')  # as BasicSR's networks, ours, and SwinIR's relatives call them
_FACTORS = ('upscale', 'scale')
# Networks of BasicSR's that rearrange blocks of pixels into channels: scale -> side of a block.
_SHUFFLED = {'RRDBNet': {1: 4, 2: 2}}


class SizeRequirements(NamedTuple):
    """What a network needs of its input.

    Attributes:
        window: Its sides must be multiples of it, and so must the beginnings of tiles.
        luminance: Whether it has one channel.
    """

    window: int
    luminance: bool


def requirements_of(network: Mapping[str, Any]) -> SizeRequirements:
    """Finds out what a network needs, from its option, or from its class where that leaves it to the default.

    A class of networks that rearrange pixels or take wavelets says so by an attribute ``size_multiple``; one that has to be
    built to know has a function ``input_needs(option)``.

    Args:
        network: Network option: ``type`` and the arguments of that registered class.
    """
    kind = _class_of(network)
    if hasattr(kind, 'input_needs'):  # it knows only when it is built
        multiple, channels = kind.input_needs(network)
        return SizeRequirements(multiple, channels == 1)
    in_order = hasattr(kind, 'stage_options')
    parts = kind.stage_options(network) if in_order else network.values()
    stages = [part for part in parts if isinstance(part, Mapping) and 'type' in part]
    if stages:  # a network made of others
        needs = [requirements_of(stage) for stage in stages]
        enlarged = [1, *(_factor(stage) for stage in stages[:-1])] if in_order else [1] * len(stages)
        windows = [each.window // math.gcd(each.window, by) for each, by in zip(needs, enlarged, strict=True)]
        return SizeRequirements(math.lcm(*windows), any(each.luminance for each in needs))
    window = argument_of(network, 'window_size')
    windows = [side for side in (window if isinstance(window, (list, tuple)) else [window]) if isinstance(side, int)]
    blocks = _SHUFFLED.get(network['type'], {})
    windows.append(blocks.get(_factor(network), getattr(kind, 'size_multiple', 1)))
    channels = next((value for value in (argument_of(network, name) for name in _CHANNELS) if value is not None), None)
    return SizeRequirements(max(1, math.lcm(*windows)), channels == 1)


def _factor(network: Mapping[str, Any]) -> int:
    """How many times a network enlarges; 1 where its option does not say."""
    values = (argument_of(network, name) for name in _FACTORS)
    return next((value for value in values if isinstance(value, int) and value > 0), 1)


def argument_of(network: Mapping[str, Any], name: str) -> Any:
    """Returns an argument of a network option; where it is left out, its class's default (``None``: there is none)."""
    if name in network:
        return network[name]
    kind = _class_of(network)
    if kind is None:
        return None
    parameter = inspect.signature(kind).parameters.get(name)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def _class_of(network: Mapping[str, Any]) -> Any:
    from basicsr.utils.registry import ARCH_REGISTRY

    name = next(
        (name for name in (network.get('type'), f'{network.get("type")}_basicsr') if name in ARCH_REGISTRY), None
    )
    return None if name is None else ARCH_REGISTRY.get(name)
