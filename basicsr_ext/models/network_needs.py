"""What a network needs of its input, as its option says."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

_CHANNELS = ('num_in_ch', 'in_channels', 'in_chans')  # as BasicSR's networks, ours, and SwinIR's relatives call them


class Needs(NamedTuple):
    """What a network needs of its input.

    Attributes:
        window: Its sides must be multiples of it.
        luminance: Whether it has one channel.
    """

    window: int
    luminance: bool


def needs_of(network: Mapping[str, Any]) -> Needs:
    """Finds out what a network needs, from its option, or from its constructor where that leaves it to the default.

    Args:
        network: Network option: ``type`` and the arguments of that registered class.
    """
    stages = [needs_of(part) for part in network.values() if isinstance(part, Mapping) and 'type' in part]
    if stages:  # a network made of others
        return Needs(math.lcm(*(stage.window for stage in stages)), any(stage.luminance for stage in stages))
    window = _argument(network, 'window_size')
    windows = [side for side in (window if isinstance(window, (list, tuple)) else [window]) if isinstance(side, int)]
    channels = next((value for value in (_argument(network, name) for name in _CHANNELS) if value is not None), None)
    return Needs(max(1, math.lcm(*windows)), channels == 1)


def _argument(network: Mapping[str, Any], name: str) -> Any:
    if name in network:
        return network[name]
    from basicsr.utils.registry import ARCH_REGISTRY

    kind = next((kind for kind in (network['type'], f'{network["type"]}_basicsr') if kind in ARCH_REGISTRY), None)
    if kind is None:
        return None
    parameter = inspect.signature(ARCH_REGISTRY.get(kind)).parameters.get(name)
    return None if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default
