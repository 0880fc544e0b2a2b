"""Other names of the same tensors: those that wrappers leave, and those of published weights.

Names are given by known rules alone. Tensors are never matched by their shapes or their order: weights of another network
that happens to be as large would be loaded silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from basicsr_ext.errors import UserError

# Whose tensors these are in state dicts that hold several networks (mmediting, Lightning).
GENERATORS = ('generator.', 'netG.', 'net_g.')
_BESIDE_GENERATORS = (
    'generator_ema.',
    'discriminator.',
    'netD.',
    'net_d.',
    'perceptual_loss.',
    'loss.',
    'step_counter',
)


def without_wrappers(name: str) -> str:
    """Removes what torch.compile and (distributed) data parallelism put into a tensor's name, in whatever order."""
    name = re.sub(r'(^|\.)_orig_mod\.', r'\1', name)
    return re.sub(r'\A(module\.)+', '', name)


def generator_prefix(names: Iterable[str]) -> str:
    """Returns how the generator's names begin where a state dict holds it and what trains it; else nothing."""
    names = list(names)
    for prefix in GENERATORS:
        if any(name.startswith(prefix) for name in names) and all(
            name.startswith((prefix, *_BESIDE_GENERATORS)) for name in names
        ):
            return prefix
    return ''


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


def known_names(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gives tensors the names of a network, by the rules of its class and of wrappers.

    Args:
        network: Its class may have a function ``published_keys(state)`` that knows other names; some of BasicSR's networks
            have theirs here.
        state: Tensors by name.

    Returns:
        The same tensors, under as many of the network's names as the rules give; as they were where none fits.
    """
    own = network.state_dict().keys()
    return max(_namings(network, dict(state)), key=lambda named: len(own & named.keys()))


def _namings(network: nn.Module, state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    own = network.state_dict().keys()
    yield state
    if state.keys() <= own:
        return
    wrapped = [state]
    firsts = {name.partition('.')[0] for name in state}
    if len(firsts) == 1 and not any(name.startswith(f'{min(firsts)}.') for name in own):
        wrapped.append({name.partition('.')[2]: tensor for name, tensor in state.items()})
        yield wrapped[-1]
    published = getattr(network, 'published_keys', None) or _published_names(network)
    if published is not None:
        yield from (published(candidate) for candidate in wrapped)


def _published_names(network: nn.Module) -> Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None:
    """The function ``published_keys`` of a network of BasicSR's, which has none itself."""
    name = type(network).__name__
    if not type(network).__module__.startswith('basicsr.archs.') or name not in _OF_BASICSR:
        return None
    return lambda state: _OF_BASICSR[name](network, state)


def _rrdbnet(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Both namings of ESRGAN's code before BasicSR: by order in a sequence (``model.0``), and with ``RRDB_trunk``."""
    in_sequence = {
        r'model\.0\.': 'conv_first.',
        r'model\.1\.sub\.(\d+)\.RDB([123])\.conv(\d)\.0\.': r'body.\1.rdb\2.conv\3.',
        r'model\.1\.sub\.\d+\.(?=weight|bias)': 'conv_body.',
        r'model\.3\.': 'conv_up1.',
        r'model\.6\.': 'conv_up2.',
        r'model\.8\.': 'conv_hr.',
        r'model\.10\.': 'conv_last.',
    }
    with_trunk = {
        r'RRDB_trunk\.(\d+)\.RDB([123])\.': r'body.\1.rdb\2.',
        r'trunk_conv\.': 'conv_body.',
        r'upconv([12])\.': r'conv_up\1.',
        r'HRconv\.': 'conv_hr.',
    }
    return rename_keys(state, in_sequence | with_trunk)


def _edsr(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of EDSR's code for PyTorch, which ECO's weights have too."""
    rules = {
        r'head\.0\.': 'conv_first.',
        r'body\.(\d+)\.body\.0\.': r'body.\1.conv1.',
        r'body\.(\d+)\.body\.2\.': r'body.\1.conv2.',
        r'body\.\d+\.(?=weight|bias)': 'conv_after_body.',
        r'tail\.0\.': 'upsample.',
        r'tail\.1\.': 'conv_last.',
    }
    return rename_keys(without_mean_shift(network, state), rules)


def _rcan(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of RCAN's code for PyTorch, which ECO's weights have too."""
    rules = {
        r'head\.0\.': 'conv_first.',
        r'body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.0\.': r'body.\1.residual_group.\2.rcab.3.attention.1.',
        r'body\.(\d+)\.body\.(\d+)\.body\.3\.conv_du\.2\.': r'body.\1.residual_group.\2.rcab.3.attention.3.',
        r'body\.(\d+)\.body\.(\d+)\.body\.': r'body.\1.residual_group.\2.rcab.',
        r'body\.(\d+)\.body\.\d+\.(?=weight|bias)': r'body.\1.conv.',
        r'body\.\d+\.(?=weight|bias)': 'conv_after_body.',
        r'tail\.0\.': 'upsample.',
        r'tail\.1\.': 'conv_last.',
    }
    return rename_keys(without_mean_shift(network, state), rules)


def without_mean_shift(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leaves out the layers that shift the mean, which is an option here; it must be the same one.

    Raises:
        UserError: It is another one: images would come out in other colours.
    """
    mean, img_range = getattr(network, 'mean', None), getattr(network, 'img_range', 0)
    bias = state.get('sub_mean.bias')
    if bias is not None and isinstance(mean, Tensor) and not mean.is_meta and not bias.is_meta:
        found, expected = bias.double().flatten(), -float(img_range) * mean.double().flatten()
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
            shown = [', '.join(f'{value:.4g}' for value in values.tolist()) for values in (-found, -expected)]
            raise UserError(
                f'Published weights of {type(network).__name__}: they subtract the mean ({shown[0]}), the network '
                f'({shown[1]}), which is rgb_mean x img_range. Set these two as they were in the training.'
            )
    return {key: tensor for key, tensor in state.items() if not key.startswith(('sub_mean.', 'add_mean.'))}


_OF_BASICSR: dict[str, Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Tensor]]] = {
    'EDSR': _edsr,
    'RCAN': _rcan,
    'RRDBNet': _rrdbnet,
}
