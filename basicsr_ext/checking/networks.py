"""Checks network options; the network itself is built without memory for its weights."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from basicsr.utils.registry import ARCH_REGISTRY
from torch import nn
from torch.overrides import TorchFunctionMode

from basicsr_ext.checking.registries import find_registered, look_up, origin
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.signatures import arguments_of, check_arguments
from basicsr_ext.errors import UserError
from basicsr_ext.options.kinds import CLASS, integer
from basicsr_ext.options.problems import KeyPath, brief, found

_MAX_TENSORS = 20_000
# Arguments of BasicSR's networks that say how often a block is repeated.
_DEPTHS = ('num_block', 'num_blocks', 'num_group', 'num_conv', 'num_extract_block', 'num_reconstruct_block', 'depths')
_DEPTH = integer(0, 1000)
_EXTRACTOR = 'VGGFeatureExtractor'  # reads the weights of a VGG, or downloads them
_INITIALISERS = {function for name, function in vars(nn.init).items() if callable(function) and name.endswith('_')}

# Errors of a network that needs an operator compiled for a GPU: nothing that options could mend.
CANNOT_RUN_HERE = (NameError, ImportError, NotImplementedError, AttributeError)


class TooLarge(UserError):
    """A network of more tensors than any has."""


class _WithoutMemory(TorchFunctionMode):
    """Lets layers allocate their weights on the device "meta", and leaves these uninitialised.

    ``torch.device('meta')`` would do the same to every tensor, and so break constructors that compute with some.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tensors = 0

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            self.tensors += 1
            if self.tensors > _MAX_TENSORS:
                raise TooLarge(f'expected a network of at most {_MAX_TENSORS:,} tensors, found more.')
            kwargs['device'] = 'meta'
        elif function in _INITIALISERS:
            tensor = args[0] if args else kwargs.get('tensor')
            if isinstance(tensor, torch.Tensor) and tensor.is_meta:
                return tensor
        return function(*args, **kwargs)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Swallows what constructors print, log and warn of, and puts torch's generator back as it was."""
    state, logging_disabled = torch.get_rng_state(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(logging_disabled)
        torch.set_rng_state(state)


def build_without_memory(network: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """Builds a network whose weights take no memory, to see that it can be built.

    Arguments that name files of weights are left out where they may be.
    """
    arguments = _without_files(network, arguments)
    collecting = gc.isenabled()
    gc.disable()  # thousands of small objects, none of them garbage
    try:
        with quiet(), _WithoutMemory():
            return network(**arguments)
    finally:
        if collecting:
            gc.enable()


def build_with_memory(network: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """Builds a network on the CPU as a run does, but for files of weights, as :func:`build_without_memory`."""
    with quiet():
        return network(**_without_files(network, arguments))


def _without_files(network: Callable, arguments: Mapping[str, Any]) -> dict[str, Any]:
    required = arguments_of(network).required
    return {key: value for key, value in arguments.items() if key in required or not key.endswith('_path')}


def _build(network: Callable[..., nn.Module], arguments: Mapping[str, Any]) -> nn.Module:
    """Builds a network without memory, or with memory where its constructor computes with its own weights."""
    try:
        return build_without_memory(network, arguments)
    except RuntimeError as error:
        if 'meta' not in str(error):
            raise
    return build_with_memory(network, arguments)


def check_network(report: Report, path: KeyPath) -> nn.Module | None:
    """Checks a network option: its type, its arguments, and that they make a network.

    Arguments that are network options themselves are checked alike.

    Returns:
        The network, without memory for its weights where it can be built so, and less deep where it repeats itself; ``None``
        where something is wrong, or where it was not built.
    """
    network = find_registered(report, (*path, 'type'), ARCH_REGISTRY, 'network')
    if network is None:
        return None
    inner = network.class_of(report.block(*path)) if hasattr(network, 'class_of') else None
    also = None if inner is None else arguments_of(inner).kinds
    check_arguments(report, path, network, also=also, lenient=origin(network) == 'other')
    for name in arguments_of(network).networks:
        if report.has_no_problems(*path, name) and report.get(*path, name) is not None:
            if 'type' in report.block(*path, name):
                report.check_value((*path, name, 'type'), report.get(*path, name, 'type'), CLASS)
                check_network(report, (*path, name))
            else:
                report.missing((*path, name, 'type'), CLASS)
    if network.__name__ == _EXTRACTOR and path == ('network_g',):
        report.error(
            (*path, 'type'), f'expected a network that makes images, found {_EXTRACTOR}, which makes features.'
        )
    if not report.has_no_problems(*path) or not _can_be_built(report, path):
        return None
    arguments = _less_deep(report, path, network)
    return _try_to_build(report, path, network, arguments) if report.has_no_problems(*path) else None


def build_whole(report: Report, path: KeyPath) -> nn.Module | None:
    """Builds a network that :func:`check_network` found sound, as deep as it is; ``None`` where it cannot be built here."""
    if not _can_be_built(report, path):
        return None
    options = dict(report.block(*path))
    return _build(look_up(ARCH_REGISTRY, options.pop('type')), options)


def build_to_run(report: Report, path: KeyPath) -> nn.Module:
    """Builds a network that :func:`check_network` built, less deep where it repeats itself, with memory on the CPU."""
    network = look_up(ARCH_REGISTRY, report.get(*path, 'type'))
    return build_with_memory(network, _less_deep(report, path, network))


def _can_be_built(report: Report, path: KeyPath) -> bool:
    """Whether a network, and those within it, are of classes that are safe to build, without files."""
    network = look_up(ARCH_REGISTRY, report.get(*path, 'type'))
    inner = [name for name in arguments_of(network).networks if report.get(*path, name) is not None]
    return (
        origin(network) != 'other'
        and not _loads_files(network)
        and all(_can_be_built(report, (*path, name)) for name in inner)
    )


def _less_deep(report: Report, path: KeyPath, network: Any) -> dict[str, Any]:
    """Arguments with lower numbers of alike blocks: what can be wrong with hundreds of them is wrong with two."""
    arguments = {key: value for key, value in report.block(*path).items() if key != 'type'}
    lowered = dict(arguments)
    for name in arguments_of(network).networks:
        if arguments.get(name) is not None:
            within = look_up(ARCH_REGISTRY, arguments[name]['type'])
            lowered[name] = {'type': arguments[name]['type'], **_less_deep(report, (*path, name), within)}
    for key in set(_DEPTHS) & set(arguments) if origin(network) == 'stock' else ():
        depths = arguments[key] if isinstance(arguments[key], (list, tuple)) else [arguments[key]]
        if all(_DEPTH.accepts(depth) for depth in depths):
            lowered[key] = [min(depth, 2) for depth in depths] if depths is arguments[key] else min(depths[0], 2)
        else:
            report.error((*path, key), f'expected {_DEPTH.expected}, found {found(arguments[key])}.')
    return lowered


def _loads_files(network: Callable) -> bool:
    """Whether it cannot be built without the files that it reads, or downloads."""
    return network.__name__ == _EXTRACTOR or any(name.endswith('_path') for name in arguments_of(network).required)


def _try_to_build(report: Report, path: KeyPath, network: Callable, arguments: Mapping[str, Any]) -> nn.Module | None:
    try:
        model = _build(network, arguments)
    except UserError as error:
        report.refused(path, error)
        return None
    except Exception as error:  # whatever the constructor makes of a wrong argument
        reason = brief(str(error).strip().partition('\n')[0]) or 'no reason given'
        report.error(path, f'{network.__name__} cannot be built with these options ({type(error).__name__}: {reason}).')
        return None
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())
    if size > _memory():
        report.error(
            path, f'expected weights that fit into memory ({_memory() / 1e9:,.0f} GB), found {size / 1e9:,.0f} GB.'
        )
        return None
    return model


def _memory() -> int:
    """Bytes of this machine's memory."""
    try:
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    except (AttributeError, ValueError, OSError):
        return 1 << 40
