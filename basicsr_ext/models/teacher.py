"""A trained network that another one learns from."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from basicsr.archs import build_network

from basicsr_ext.config import IS_NETWORK, IS_PATH, OptionBlock
from basicsr_ext.storage.weights import load_weights


class Teacher(OptionBlock):
    """A block ``teacher``.

    Attributes:
        network: Network option, with its ``type``; any registered network.
        weights: Its checkpoint.
        param_key: Key of the weights in the checkpoint; default: ``params_ema``, else ``params``.
    """

    network: Annotated[dict[str, Any], IS_NETWORK]
    weights: Annotated[str, IS_PATH]
    param_key: str | None = None

    def build(self, device: torch.device) -> torch.nn.Module:
        """Builds the network with its weights, in evaluation mode, without gradients.

        Raises:
            UserError: The weights cannot be read or do not fit.
        """
        network = build_network(dict(self.network)).to(device).eval().requires_grad_(False)
        load_weights(network, self.weights, self.param_key)
        return network
