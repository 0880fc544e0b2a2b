"""Networks of the library spandrel, which has some forty architectures of super-resolution and restoration."""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from types import ModuleType
from typing import Annotated, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError, brief
from basicsr_ext.networks.weights import check_kinds, read_weights
from basicsr_ext.options.closest import closest_name
from basicsr_ext.options.config import IS_PATH

# Architectures that cannot be trained here, and why.
NOT_TRAINED = {
    'AuraSR': 'it is the generator of a GAN, and draws noise for each image',
    'GFPGAN': 'it restores faces of 512x512 pixels around a fixed generator of faces',
    'LaMa': 'it takes a mask beside the image',
    'RestoreFormer': 'it restores faces by a fixed dictionary, which a pixel loss does not train',
}
# Networks that take one image at a time, as spandrel calls them (SeemoRe: in evaluation).
_IMAGE_BY_IMAGE = ('DRUNet', 'IPT', 'SeemoRe')
# Parts that are constants, or that are computed from others: SPAN's convolutions of evaluation, shifts of the mean.
_FIXED = ('eval_conv', 'sub_mean', 'add_mean')


def import_spandrel() -> ModuleType:
    """Imports spandrel.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module('spandrel')
    except ImportError as error:
        raise UserError(
            f'Networks of spandrel need the library: pip install "basicsr-ext[spandrel]" ({error}).'
        ) from error


class SpandrelNetwork(nn.Module):
    """A network that takes an image and gives one, of any architecture of spandrel; in options ``type: spandrel``.

    Weights have the names that they have in spandrel and where they were published: what is saved is read by both.

    Args:
        architecture: Name of the architecture or of one of its classes, such as ``HAT`` or ``RealPLKSR``.
        weights: File of weights instead: architecture and arguments are those that spandrel recognises, and training starts
            from these weights.
        **arguments: Of the class, with ``architecture``; others have spandrel's defaults.

    Raises:
        UserError: spandrel is missing; the name is unknown, or of an architecture that is not for this; an argument is
            unknown; the weights are of no architecture that it knows.
    """

    def __init__(
        self, architecture: str | None = None, weights: Annotated[str | None, IS_PATH] = None, **arguments: Any
    ) -> None:
        super().__init__()
        if (architecture is None) == (weights is None) or (weights is not None and arguments):
            raise UserError('spandrel: expected either architecture, with its arguments, or weights.')
        descriptor = _build(architecture, arguments) if architecture is not None else _load(str(weights))
        self._setup(descriptor)

    @classmethod
    def of(cls, descriptor: Any) -> SpandrelNetwork:
        """Makes a network of what spandrel recognised (an ``ImageModelDescriptor``)."""
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        network._setup(descriptor)
        return network

    def _setup(self, descriptor: Any) -> None:
        self.model = descriptor.model
        self.scale = descriptor.scale
        self.channels = descriptor.input_channels
        self.size_multiple = descriptor.size_requirements.multiple_of
        self._requirements = descriptor.size_requirements
        self._call = descriptor._call_fn  # what some networks need beside the image, or give beside it
        self._image_by_image = descriptor.architecture.id in _IMAGE_BY_IMAGE
        for name, module in self.model.named_modules():
            if name.rpartition('.')[2] in _FIXED:
                module.requires_grad_(False)
        self._register_state_dict_hook(_remove_prefix)
        self._register_load_state_dict_pre_hook(_add_prefix)

    def forward(self, image: Tensor) -> Tensor:
        """Maps images (N, channels, H, W) to (N, channels, H * scale, W * scale); sizes that it needs are padded to."""
        height, width = image.shape[-2:]
        right, bottom = self._requirements.get_padding(width, height)
        reflected = min(right, width - 1), min(bottom, height - 1)
        padded = image.clone()  # RCAN changes its input
        if any(reflected):
            padded = functional.pad(padded, (0, reflected[0], 0, reflected[1]), 'reflect')
        rest = right - reflected[0], bottom - reflected[1]
        if any(rest):
            padded = functional.pad(padded, (0, rest[0], 0, rest[1]), 'replicate')
        parts = padded.split(1) if self._image_by_image else [padded]
        output = torch.cat([self._call(self.model, part) for part in parts])
        return output[..., : height * self.scale, : width * self.scale]

    @property
    def own_option(self) -> dict[str, Any] | None:
        """Network option that builds it without the file that it came from; ``None`` where there is none."""
        changed = _changed_arguments(self.model)
        name = next((name for name, kind in _classes().items() if kind is type(self.model)), None)
        try:
            json.dumps(changed)
        except TypeError:
            return None
        return None if name is None else {'type': 'spandrel', 'architecture': name, **changed}

    @staticmethod
    def class_of(option: Mapping[str, Any]) -> type[nn.Module] | None:
        """The class that takes the arguments of a network option, where it is known."""
        try:
            return _classes().get(option.get('architecture'))
        except UserError:
            return None

    @staticmethod
    def input_needs(option: Mapping[str, Any]) -> tuple[int, int]:
        """What an option's network needs: a side that its input's must be multiples of, and channels."""
        return _input_needs(json.dumps({key: value for key, value in option.items() if key != 'type'}, sort_keys=True))


ARCH_REGISTRY._do_register('spandrel', SpandrelNetwork)


@lru_cache(maxsize=64)
def _input_needs(arguments: str) -> tuple[int, int]:
    with torch.random.fork_rng(devices=[]):
        network = SpandrelNetwork(**json.loads(arguments))
    return network.size_multiple, network.channels


def _remove_prefix(network: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    for key in [key for key in state if key.startswith(f'{prefix}model.')]:
        state[prefix + key[len(prefix) + len('model.') :]] = state.pop(key)


def _add_prefix(state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key in [key for key in state if key.startswith(prefix)]:
        state[f'{prefix}model.{key[len(prefix) :]}'] = state.pop(key)


@lru_cache(maxsize=1)
def _classes() -> dict[str, type[nn.Module]]:
    """Classes of networks by their names, of all architectures but those that cannot be trained."""
    classes = {}
    for support in import_spandrel().MAIN_REGISTRY:
        module = importlib.import_module(type(support.architecture).__module__)
        if support.architecture.id not in NOT_TRAINED:
            classes.update(
                {
                    name: kind
                    for name, kind in vars(module).items()
                    if inspect.isclass(kind)
                    and issubclass(kind, nn.Module)
                    and kind.__module__.startswith(module.__name__)
                }
            )
    return classes


def _architecture_of(kind: type[nn.Module]) -> Any:
    for support in import_spandrel().MAIN_REGISTRY:
        if kind.__module__.startswith(f'{type(support.architecture).__module__}.'):
            return support.architecture
    raise AssertionError(kind)


def _build(name: str, arguments: Mapping[str, Any]) -> Any:
    """Builds a network with random weights, and lets spandrel describe it."""
    if name in NOT_TRAINED:
        raise UserError(f'architecture: {name} of spandrel is not built here, since {NOT_TRAINED[name]}.')
    kinds = _classes()
    if name not in kinds:
        variants = [other for other in kinds if _architecture_of(kinds[other]).id == name]
        close = closest_name(name, kinds)
        hint = f'did you mean "{close}"?' if close else f'known: {", ".join(sorted(kinds))}.'
        hint = f'it has several classes: {", ".join(variants)}.' if variants else hint
        raise UserError(f'architecture: expected one of spandrel, found "{brief(name)}"; {hint}')
    kind = kinds[name]
    known = inspect.signature(kind).parameters
    for key in arguments:
        if key not in known:
            close = closest_name(key, known)
            hint = f'did you mean "{close}"?' if close else f'known: {", ".join(known)}.'
            raise UserError(f'{name} of spandrel has no argument "{brief(key)}"; {hint}')
    network = kind(**arguments)
    descriptor = _architecture_of(kind).load(network.state_dict())
    descriptor._model = network  # spandrel built its own, to describe it
    return descriptor


def _load(weights: str) -> Any:
    """Builds the network that spandrel recognises in a file of weights."""
    spandrel = import_spandrel()
    state = read_weights(os.path.expanduser(weights))
    try:
        descriptor = spandrel.MAIN_REGISTRY.load(dict(state))
    except Exception as error:  # spandrel's own, and whatever its architectures make of unfit tensors
        reason = brief(' '.join(str(error).split()), 200) or type(error).__name__
        raise UserError(
            f'Weights {weights}: spandrel {spandrel.__version__} does not recognise the network ({reason}).'
        ) from None
    name = descriptor.architecture.id
    if name in NOT_TRAINED:
        raise UserError(f'Weights {weights}: {name} of spandrel is not built here, since {NOT_TRAINED[name]}.')
    check_kinds(descriptor.model, state, weights)
    return descriptor


def _changed_arguments(model: Any) -> dict[str, Any]:
    defaults = {name: parameter.default for name, parameter in inspect.signature(type(model)).parameters.items()}
    given = getattr(model, 'hyperparameters', {})
    return {name: value for name, value in given.items() if name in defaults and value != defaults[name]}
