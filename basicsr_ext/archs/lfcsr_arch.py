"""The two stages of LFC-SR as one network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, overload

from basicsr.archs import build_network
from torch import Tensor, nn

from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.errors import UserError
from basicsr_ext.options.config import IS_NETWORK

PREFIXES = {'D.': 'stage_o.', 'P.': 'stage_p.'}  # of published weights of both stages
ORDERS = ('op', 'po')


class Stages(NamedTuple):
    """The images of both stages, by their roles, whichever runs first.

    Attributes:
        objective: Stage O's, (N, C, H scale, W scale).
        perceptual: Stage P's, of the same shape.
    """

    objective: Tensor
    perceptual: Tensor


@ARCH_REGISTRY.register()
class LFCSR(nn.Module):
    """Super-resolves with one stage, and refines with the other: ``Y = G_P(G_O(X))``, or in the order ``po`` the reverse.

    Weights of stage O alone start a network whose stage P is new, with ``path.pretrain_network_g_leave_out: [stage_p.]``.

    Args:
        stage_o: Option of the objective stage, with its ``type``; any registered network.
        stage_p: Option of the perceptual stage. The stage that runs first enlarges, the other one keeps an image's size.
        order: ``op`` runs the objective stage first, ``po`` the perceptual one (the paper's Fig. 8).

    Raises:
        UserError: A stage is no option of a network, or the order is unknown.

    Source: "Perception-Distortion Balanced ADMM Optimization for Single-Image Super-Resolution", arXiv 2208.03324.
    """

    has_stages = True  # for models that train them in turn

    def __init__(
        self,
        stage_o: Annotated[Mapping[str, Any], IS_NETWORK],
        stage_p: Annotated[Mapping[str, Any], IS_NETWORK] | None = None,
        order: Literal['op', 'po'] = 'op',
    ):
        super().__init__()
        if order not in ORDERS:
            raise UserError(f'order of LFCSR: expected one of {", ".join(ORDERS)}, found {order!r}.')
        stage_p = {'type': 'CliqueRefiner'} if stage_p is None else stage_p
        for name, option in (('stage_o', stage_o), ('stage_p', stage_p)):
            if not isinstance(option, Mapping) or 'type' not in option:
                raise UserError(f'{name} of LFCSR: expected the option of a network, with its type, found {option!r}.')
        self.order = order
        self.stage_o = build_network(dict(stage_o))
        self.stage_p = build_network(dict(stage_p))

    @staticmethod
    def stage_options(option: Mapping[str, Any]) -> tuple[Any, Any]:
        """Options of the stages in the order in which they run, from the network's option."""
        stages = option.get('stage_o'), option.get('stage_p') or {'type': 'CliqueRefiner'}
        return stages if option.get('order', 'op') == 'op' else stages[::-1]

    @property
    def first(self) -> nn.Module:
        """The stage that runs first, and enlarges."""
        return self.stage_o if self.order == 'op' else self.stage_p

    @property
    def second(self) -> nn.Module:
        """The stage that makes the final image."""
        return self.stage_p if self.order == 'op' else self.stage_o

    @overload
    def forward(self, x: Tensor, return_stages: Literal[False] = False) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, return_stages: Literal[True]) -> Stages: ...

    def forward(self, x: Tensor, return_stages: bool = False) -> Tensor | Stages:
        """Super-resolves images.

        Args:
            x: (N, C, H, W) in [0, 1].
            return_stages: Asks for the images of both stages.

        Returns:
            The image of the stage that runs second, (N, C, H scale, W scale); or those of both, by their roles.

        Raises:
            UserError: The stage that runs second does not keep the image's size.
        """
        first = self.first(x)
        second = self.second(first)
        if first.shape != second.shape:
            enlarging, keeping = (f'stage_{stage}' for stage in self.order)
            raise UserError(
                f'LFCSR: with order: {self.order} {enlarging} enlarges and {keeping} keeps the size, found images of '
                f'{first.shape[-2]}x{first.shape[-1]} and {second.shape[-2]}x{second.shape[-1]}. Check upscale of both.'
            )
        return self.by_role(first, second) if return_stages else second

    def by_role(self, first: Tensor, second: Tensor) -> Stages:
        """Gives what belongs to the stages in the order in which they run to their roles."""
        return Stages(first, second) if self.order == 'op' else Stages(second, first)

    def published_keys(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gives this network's names to published weights of both stages (``D.``, ``P.``), or of the first one alone."""
        if not any(key.startswith((*PREFIXES, *PREFIXES.values())) for key in state):
            state = {f'stage_{self.order[0]}.{key}': tensor for key, tensor in state.items()}
        named: dict[str, Tensor] = {}
        for published, prefix in PREFIXES.items():
            stage = self.get_submodule(prefix.rstrip('.'))
            own = {
                key.removeprefix(published).removeprefix(prefix): tensor
                for key, tensor in state.items()
                if key.startswith((published, prefix))
            }
            if hasattr(stage, 'published_keys') and not own.keys() <= stage.state_dict().keys():
                own = stage.published_keys(own)
            named.update({f'{prefix}{key}': tensor for key, tensor in own.items()})
        return named
