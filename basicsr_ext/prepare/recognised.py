"""Teachers of any architecture that the library spandrel recognises by their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

import basicsr_ext
from basicsr_ext.errors import UserError, brief
from basicsr_ext.networks.weights import check_kinds, read_weights
from basicsr_ext.prepare.teacher import print_remarks


class Recognised(NamedTuple):
    """A teacher that needs no network option.

    Attributes:
        network: Ready to run, on the CPU.
        scale: Factor by which it enlarges.
        record: What it is, for the stores that it makes.
    """

    network: nn.Module
    scale: int
    record: dict[str, Any]


def detect_architecture(weights: str | Path, param_key: str | None = None, scale: int | None = None) -> Recognised:
    """Builds the network that a file of weights belongs to.

    Args:
        weights: File of weights; it is read as one of BasicSR's, so nothing in it is executed.
        param_key: Entry of that file; ``None`` chooses.
        scale: What the user expects; ``None`` takes the network's.

    Raises:
        UserError: spandrel is missing, does not recognise the weights, or finds something else than super-resolution by
            ``scale``.
    """
    basicsr_ext.register()  # spandrel needs torchvision, which that mends where it is broken
    from basicsr_ext.archs.spandrel_arch import SpandrelNetwork

    try:
        import spandrel
    except ImportError as error:
        raise UserError(
            f'Weights {weights} come without a network. Give it (-opt or --network), or let the library spandrel '
            f'recognise it: pip install "basicsr-ext[spandrel]" ({error}).'
        ) from error
    state = read_weights(weights, param_key)
    try:
        found = spandrel.ModelLoader(device='cpu').load_from_state_dict(dict(state))
    except Exception as error:  # spandrel's own, and whatever its architectures make of unfit tensors
        reason = brief(' '.join(str(error).split()), 200) or type(error).__name__
        raise UserError(
            f'Weights {weights}: spandrel {spandrel.__version__} does not recognise the network ({reason}). Give it '
            '(-opt or --network).'
        ) from None
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise UserError(f'Weights {weights}: expected a network that takes one image, found {found.architecture.name}.')
    if scale not in (None, found.scale):
        raise UserError(f'--scale: the network of {weights} enlarges {found.scale} times, and {scale} was given.')
    check_kinds(found.model, state, weights)
    print_remarks(weights, state.remarks)
    record = {'type': found.architecture.name, 'recognised_by': 'spandrel'}
    return Recognised(SpandrelNetwork.of(found).eval().requires_grad_(False), found.scale, record)
