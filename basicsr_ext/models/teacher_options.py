"""The block of a trained network that another one learns from; without torch, so that options are checked at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from basicsr_ext.options.config import IS_NETWORK, IS_PATH, OptionBlock

if TYPE_CHECKING:
    import torch


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
            UserError: As of :func:`build_teacher`.
        """
        from basicsr_ext.models.teacher import build_teacher

        return build_teacher(self.network, self.weights, self.param_key, device)
