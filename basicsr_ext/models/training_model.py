"""The shared base of all models: it owns the training step; for plain losses it is a model of its own."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import torch
from basicsr.archs import build_network
from basicsr.losses import build_loss
from basicsr.models.base_model import BaseModel
from basicsr.models.sr_model import SRModel
from basicsr.utils import get_root_logger
from basicsr.utils.registry import MODEL_REGISTRY
from pydantic import Field
from torch import distributed, nn

from basicsr_ext.distributed import sum_over_ranks
from basicsr_ext.errors import UserError
from basicsr_ext.functional.pixels import to_unit_range
from basicsr_ext.functional.precision import autocast, exact_float32
from basicsr_ext.models.cuda_graphs import GraphedNetwork
from basicsr_ext.models.from_total import fill_from_total
from basicsr_ext.models.grad_clip import GradClip
from basicsr_ext.models.guard import Guard, GuardOptions
from basicsr_ext.models.inference_options import infer, store_luminance
from basicsr_ext.models.loss_record import LossRecord, zero_losses
from basicsr_ext.models.optimizers import build_optimizer, build_scheduler
from basicsr_ext.models.players import Player, tell_unreached
from basicsr_ext.models.step_options import StepOptions
from basicsr_ext.networks.devices import is_for_device

Losses = Mapping[str, torch.Tensor]


class TrainingModel(SRModel):
    """Trains a network ``net_g`` with one player; methods change one or several of its steps.

    An iteration is :meth:`training_step`: :meth:`prepare_batch`, a forward, :meth:`generator_losses`, :meth:`update`.
    Methods with more than one update compose them in a ``training_step`` of their own, over players that
    :meth:`setup_players` made. No method calls ``backward()`` or ``step()`` itself.

    ``net_g`` is the bare network: saved, averaged (EMA) and tested as such. A player's ``network`` is the view that
    training forwards run through.

    Options beyond those of BasicSR's ``SRModel``:
        train.grad_clip: :class:`~basicsr_ext.models.grad_clip.GradClip`; for all players, or those that it names.
        train.guard: :class:`~basicsr_ext.models.guard.GuardOptions`; off where it is missing.
        train.precision, channels_last, compile, accumulate: :class:`~basicsr_ext.models.step_options.StepOptions`.
    """

    # What a check of options knows of this class. Subclasses say theirs; train_blocks adds to those of the classes above.
    network_names = ('g',)  # networks that training needs; the first is the one that is tested
    optional_network_names: tuple[str, ...] = ()  # networks that may be there
    player_names = ('g',)  # each has its train.optim_<name>, and may have a train.scheduler_<name>
    optional_player_names: tuple[str, ...] = ()  # players that may be there
    loss_keys = ('pixel_opt', 'perceptual_opt')
    train_blocks = {  # noqa: RUF012  # further keys of train -> structure or type; "or None" where it may be missing
        'ema_decay': Annotated[float, Field(ge=0, le=1)],
        'grad_clip': GradClip | None,
        'guard': GuardOptions | None,
        **{name: Annotated[field.annotation, field] for name, field in StepOptions.model_fields.items()},
    }

    def __init__(self, opt: dict[str, Any]):
        if opt['is_train']:
            fill_from_total(opt)
            self.check_combination(opt)  # BasicSR's own command checks nothing
        BaseModel.__init__(self, opt)
        self.net_g = self.build_network('g')
        self.print_network(self.net_g)
        if self.is_train:
            self.init_training_settings()

    # ---- building ------------------------------------------------------------------------------------------------

    def build_network(self, name: str) -> nn.Module:
        """Builds ``network_<name>`` on the device, with the weights of ``path.pretrain_network_<name>`` if there are."""
        network = build_network(self.opt[f'network_{name}']).to(self.device)
        path = self.opt['path'].get(f'pretrain_network_{name}')
        if path is not None:
            strict = self.opt['path'].get(f'strict_load_{name}', True)
            self.load_network(network, path, strict, self.opt['path'].get(f'param_key_{name}', 'params'))
        if self.opt['dist']:  # each rank draws first weights of its own; EMA and validation need the same ones
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, 0)
        return network

    def init_training_settings(self) -> None:
        """Builds what only training needs: losses, EMA network, players, guard."""
        train_opt = self.opt['train']
        self.iteration = 0
        self.players: dict[str, Player] = {}
        self.saved_networks: dict[str, nn.Module] = {'net_g': self.net_g}
        self.criteria = nn.ModuleDict()
        self._logged: dict[str, torch.Tensor | float] = {}
        self._keys: list[str] = []
        self._skipped = self._taken = 0  # steps since the last line
        self._checked: set[str] = set()  # players of which it is known what their losses reach
        self._losses = LossRecord()
        self._told_zero: set[str] = set()
        self.last_step_refused = False  # by the guard, of any player
        self.step = StepOptions.parse({k: train_opt[k] for k in StepOptions.model_fields if k in train_opt}, 'train')
        self.step.apply_globally()
        clip, guard = train_opt.get('grad_clip'), train_opt.get('guard')
        self.grad_clip = None if clip is None else self._parse_clip(clip)
        self.guard = None if guard is None else Guard(GuardOptions.parse(guard, 'train.guard'))
        self.ema_decay = train_opt.get('ema_decay', 0)
        if self.ema_decay > 0:
            self._build_ema_network()
        self.build_criteria()
        for criterion in self.criteria.values():
            sum_over_ranks(criterion, self.opt['world_size'])
        self.setup_players()
        self.step.check_accumulation(self.opt, len(self.players))
        self.net_g.train()

    def _build_ema_network(self) -> None:
        self.net_g_ema = build_network(self.opt['network_g']).to(self.device).eval().requires_grad_(False)
        self.net_g_ema.load_state_dict(self.net_g.state_dict())
        path = self.opt['path'].get('pretrain_network_g')
        if path is not None:
            self.load_network(self.net_g_ema, path, self.opt['path'].get('strict_load_g', True), 'params_ema')
        self._averaged = dict(zip(self.net_g.parameters(), self.net_g_ema.parameters(), strict=True))

    def build_criteria(self) -> None:
        """Builds the losses named in the options into ``self.criteria``."""
        for name in ('pixel', 'perceptual'):
            if self.opt['train'].get(f'{name}_opt'):
                self.criteria[name] = build_loss(self.opt['train'][f'{name}_opt']).to(self.device)
        if not self.criteria:
            raise UserError('train: expected a loss in pixel_opt or perceptual_opt, found neither.')

    def setup_players(self) -> None:
        """Makes the players; here one, ``g``, over all of ``net_g``."""
        self.add_player('g', self.net_g)

    @classmethod
    def trained_by(cls, player: str, networks: Mapping[str, nn.Module]) -> nn.Module | None:
        """Returns what a player moves, of the networks by their letters; here the network of its letter."""
        return networks.get(player)

    def moving_players(self, iteration: int) -> list[Player]:
        """Returns the players that move in an iteration; here all."""
        return list(self.players.values())

    def add_player(self, name: str, network: nn.Module) -> Player:
        """Makes a player over a network, from ``train.optim_<name>`` and ``train.scheduler_<name>`` or ``train.scheduler``.

        Args:
            name: Key of the player.
            network: Bare network (or a part of ``net_g``) on the device; wrapped for several ranks here.

        Raises:
            UserError: The optimizer's or scheduler's options are missing or wrong.
        """
        train_opt = self.opt['train']
        parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
        optim = dict(train_opt.get(f'optim_{name}') or {})
        if 'type' not in optim or 'lr' not in optim:
            raise UserError(
                f'train.optim_{name}: expected the keys type and lr, found {", ".join(optim) or "nothing"}.'
            )
        optimizer = self.get_optimizer(optim.pop('type'), parameters, optim.pop('lr'), **optim)
        scheduler = build_scheduler(optimizer, train_opt.get(f'scheduler_{name}') or train_opt.get('scheduler') or {})
        if self.step.channels_last:
            for tensor in (*network.parameters(), *network.buffers()):
                if tensor.ndim == 4:  # Module.to would fail on the weights of 3-D convolutions
                    tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        view = self.model_to_device(network)
        if self.step.compile:
            view = torch.compile(view, dynamic=False)  # training crops have one size
        pairs = []
        if self.ema_decay > 0:
            pairs = [(self._averaged[p], p) for p in network.parameters() if p in self._averaged]
        scaler = torch.amp.GradScaler(self.device.type, enabled=self.step.precision == 'fp16')
        clip = self.grad_clip if self.grad_clip is not None and self.grad_clip.limits(name) else None
        graphed = None
        if self.step.cuda_graph and self.device.type == 'cuda':
            if self.opt['dist']:
                get_root_logger().warning('train.cuda_graph has no effect under a launcher: it is for one GPU.')
            else:
                graphed = GraphedNetwork(view, parameters, self.device, self.step.autocast_precision)
        player = Player(name, view, parameters, optimizer, scheduler, scaler, clip, pairs, graphed)
        self.players[name] = player
        self.optimizers.append(optimizer)
        self.schedulers.append(scheduler)
        return player

    def get_optimizer(self, optim_type: str, params: Iterable, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Builds any optimizer of torch or pytorch_optimizer, also under BasicSR's own command."""
        return build_optimizer(optim_type, params, lr, **kwargs)

    @classmethod
    def check_combination(cls, opt: Mapping[str, Any]) -> None:
        """Refuses options that contradict each other, before anything is made; each block is known to be right by itself.

        Args:
            opt: The whole options of a training.

        Raises:
            UserError: Begins with the key path of the option to change.
        """
        step = StepOptions.parse({k: opt['train'][k] for k in StepOptions.model_fields if k in opt['train']}, 'train')
        step.check_accumulation(opt, len(cls.player_names))
        if opt['train'].get('grad_clip'):
            cls._parse_clip(opt['train']['grad_clip'])

    @classmethod
    def _parse_clip(cls, block: Mapping[str, Any]) -> GradClip:
        clip = GradClip.parse(block, 'train.grad_clip')
        clip.check_players([*cls.player_names, *cls.optional_player_names])
        return clip

    def bind(self, train_set: Any) -> None:
        """Meets the training set after both are built; here nothing is done."""

    # ---- an iteration --------------------------------------------------------------------------------------------

    def feed_data(self, data: dict[str, Any]) -> None:
        """Moves a batch to the device; integer images become float32 in [0, 1] there.

        Args:
            data: Images (N, C, H, W) by name, and whatever else the dataset gives.
        """
        self.batch = {key: self._to_device(value) for key, value in data.items()}
        self.lq = self.batch['lq']
        if 'gt' in self.batch:
            self.gt = self.batch['gt']
        elif hasattr(self, 'gt'):
            del self.gt  # of a batch before: BasicSR's validation would score against it
        self._keys = list(data.get('gt_path', data.get('lq_path', [])))

    def _to_device(self, value: Any) -> Any:
        if not is_for_device(value):
            return value
        # batches of stored values have channels last in memory; which order networks get is said by channels_last
        value = value.to(self.device, non_blocking=True).contiguous()
        return to_unit_range(value)

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Moves the schedulers, but for those that the guard holds; called by BasicSR's training loop before an iteration."""
        schedulers, guard = self.schedulers, self.guard
        if guard is not None:
            held = [player.scheduler for player in self.players.values() if guard.holds_scheduler(player.name)]
            self.schedulers = [scheduler for scheduler in schedulers if scheduler not in held]
        try:
            super().update_learning_rate(current_iter, warmup_iter)
        finally:
            self.schedulers = schedulers

    def optimize_parameters(self, current_iter: int) -> None:
        """Runs one iteration; called by BasicSR's training loop.

        Args:
            current_iter: Counted from 1.
        """
        self.iteration = current_iter
        self._logged = {}
        self.last_step_refused = False
        for criterion in self.criteria.values():
            if hasattr(criterion, 'set_iteration'):
                criterion.set_iteration(current_iter)
        self.training_step(self.batch, current_iter)
        for criterion in self.criteria.values():
            for name, value in criterion.values_to_log().items() if hasattr(criterion, 'values_to_log') else ():
                self.log(name, value)

    def training_step(self, batch: dict[str, Any], iteration: int) -> None:
        """Composes the updates of one iteration; here one.

        Args:
            batch: As the dataset gave it, on the device.
            iteration: Counted from 1.
        """
        lq, gt = self.prepare_batch(batch, iteration)
        player = self.players['g']
        self.update(player, self._losses_of_parts(player, lq, gt))

    def _losses_of_parts(
        self, player: Player, lq: torch.Tensor, gt: torch.Tensor, **arguments: Any
    ) -> Iterator[Losses]:
        """Losses of each micro-batch, one forward at a time, so that only one graph is in memory (``accumulate``)."""
        parts = self.step.accumulate
        for lq_part, gt_part in zip(lq.chunk(parts), gt.chunk(parts), strict=True):
            self.output = self.forward(player, lq_part, **arguments)
            losses = self.generator_losses(self.output, gt_part)
            yield losses if parts == 1 else {name: value / parts for name, value in losses.items()}

    def forward(self, player: Player, images: torch.Tensor, *, exact: bool = False, **arguments: Any) -> Any:
        """Runs a player's view in the precision asked for; losses are computed in float32 outside of it.

        Args:
            player: Whose network runs.
            images: (N, C, H, W).
            exact: In float32 without TF32, whatever precision is asked for: for what is stored or reported.
            arguments: Further ones of the network's forward.

        Returns:
            The network's output, float32: a tensor, or a tuple of tensors.
        """
        if self.step.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if player.graphed is not None and not exact:
            output = player.graphed(images, **arguments)
        else:
            with exact_float32(self.device) if exact else autocast(self.device, self.step.autocast_precision):
                output = player.network(images, **arguments)
        if isinstance(output, torch.Tensor):
            return output.float()
        values = [value.float() for value in output]
        return type(output)(*values) if hasattr(output, '_fields') else tuple(values)

    def prepare_batch(self, batch: dict[str, Any], iteration: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns input and target of an iteration; methods mix or weigh here."""
        return batch['lq'], batch['gt']

    def generator_losses(self, output: torch.Tensor, gt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the named, weighted losses of the network's output; their sum is minimised.

        Args:
            output: (N, C, H, W), [0, 1].
            gt: Target of the same shape.
        """
        losses = {}
        if 'pixel' in self.criteria:
            losses['l_pix'] = self.criteria['pixel'](output, gt)
        if 'perceptual' in self.criteria:
            losses.update(self.perceptual_losses(output, gt))
        return losses

    def perceptual_losses(self, output: torch.Tensor, gt: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns what ``perceptual_opt`` gives: one loss, or BasicSR's two, of which one may be ``None``."""
        values = self.criteria['perceptual'](output, gt)
        if isinstance(values, torch.Tensor):
            return {'l_percep': values}
        named = zip(('l_percep', 'l_style'), values, strict=True)
        return {name: value for name, value in named if value is not None}

    def update(self, player: Player, losses: Losses | Iterable[Losses]) -> bool:
        """Takes one optimizer step of a player: backward, clip, guard, step, EMA, log.

        Args:
            player: Who moves.
            losses: Named scalars, whose sum is minimised. Or an iterable of such mappings: each is propagated back before
                the next one is asked for, and one step is taken over the summed gradients.

        Returns:
            Whether the weights moved; False where the guard refused the step, or it was skipped since gradients overflowed.
        """
        player.optimizer.zero_grad(set_to_none=True)
        total: torch.Tensor | float = 0.0
        values: dict[str, torch.Tensor] = {}
        for named in [losses] if isinstance(losses, Mapping) else losses:
            loss = sum(named.values())
            player.scaler.scale(loss).backward()
            total = total + loss.detach()
            for name, value in named.items():
                values[name] = values[name] + value.detach() if name in values else value.detach()
        if player.name not in self._checked:
            self._checked.add(player.name)
            tell_unreached(player.unreached(), player.network, f'player {player.name}')
        self._logged.update(values)
        accepted = self._step(player, total)
        overflowed = self._update_scale(player)
        taken = accepted and not overflowed
        self._skipped += not taken
        self._taken += taken
        self.last_step_refused |= not accepted
        self._losses.note(values, self.iteration, taken)
        if taken:
            self._average(player)
        else:
            player.optimizer.zero_grad(set_to_none=True)
        if player.graphed is not None:
            player.graphed.release()
        return taken

    def _step(self, player: Player, total: torch.Tensor) -> bool:
        """Clips, asks the guard, and steps; gradients that overflowed in half precision are skipped by the scaler."""
        player.scaler.unscale_(player.optimizer)
        if player.grad_clip is not None:
            player.grad_clip.apply(player.parameters)
        if self.guard is not None and not self.guard.accepts(player.name, total, self._keys):
            return False
        player.scaler.step(player.optimizer)
        return True

    @staticmethod
    def _update_scale(player: Player) -> bool:
        """Adapts the scale of losses in fp16; says whether the scaler skipped the step, since gradients overflowed."""
        if not player.scaler.is_enabled():
            return False
        before = player.scaler.get_scale()
        player.scaler.update()
        return player.scaler.get_scale() < before

    @torch.no_grad()
    def _average(self, player: Player) -> None:
        if not player.ema:
            return
        averaged, current = zip(*player.ema, strict=True)
        torch._foreach_lerp_(list(averaged), list(current), 1 - self.ema_decay)
        for target, source in zip(self.net_g_ema.buffers(), self.net_g.buffers(), strict=True):
            target.copy_(source)

    # ---- logging -------------------------------------------------------------------------------------------------

    def check_losses(self) -> None:
        """Ends a run that diverged; asked when a line is printed and before saving, by all ranks.

        Raises:
            UserError: A step was taken with a loss that is not finite; names loss and iteration.
        """
        self._losses.check()

    def log(self, name: str, value: torch.Tensor | float) -> None:
        """Keeps a value for the next printed line; tensors stay on the device until then."""
        self._logged[name] = value.detach() if isinstance(value, torch.Tensor) else value

    def get_current_log(self) -> OrderedDict[str, float]:
        """Returns losses and logged values of the last iteration, averaged over the ranks; all ranks must call it.

        Where steps can be skipped (a guard, fp16), ``skipped`` counts those skipped since the last call, of all players.

        Where there are several players, ``lr_<player>`` is the learning rate of each that moves.

        Warns, once, of a loss that was exactly 0 since the last call.

        Raises:
            UserError: As of :meth:`check_losses`.
        """
        zero = [name for name in self._losses.check() if name not in self._told_zero]
        self._losses.begin_interval()
        if zero:
            self._told_zero.update(zero)
            get_root_logger().warning(zero_losses(zero, self.iteration))
        if len(self.players) > 1:
            for player in self.moving_players(self.iteration):
                self.log(f'lr_{player.name}', player.optimizer.param_groups[0]['lr'])
        if self.guard is not None or self.step.precision == 'fp16':
            self.log('skipped', self._skipped)
            if self._skipped > 1 and not self._taken:
                get_root_logger().warning(
                    f'All {self._skipped} steps up to iteration {self.iteration} since the last line were skipped: nothing is '
                    'trained. Look at the losses, the learning rate, train.precision and train.guard.initial.'
                )
            self._skipped = self._taken = 0
        if not self._logged:
            return OrderedDict()
        values = [
            torch.as_tensor(value, dtype=torch.float32, device=self.device).mean() for value in self._logged.values()
        ]
        stacked = torch.stack(values)
        if self.opt['dist']:
            distributed.all_reduce(stacked)
            stacked /= self.opt['world_size']
        return OrderedDict(zip(self._logged, stacked.tolist(), strict=True))

    # ---- testing -------------------------------------------------------------------------------------------------

    def test(self) -> None:
        """Runs ``self.lq`` through the EMA network where there is one, else through ``net_g``.

        Networks that work in windows get images padded to whole windows; of colour images, a network of one channel gets the
        luminance. ``self.output_luminance`` is what it makes of it; where images are luminance, ``self.gt_luminance`` is
        theirs: metrics measure on both as they are, not rounded to 8 bits.

        Options: :class:`~basicsr_ext.models.inference_options.InferenceOptions`.
        """
        network = self.net_g_ema if hasattr(self, 'net_g_ema') else self.net_g
        self.output, self.output_luminance = infer(network, self.lq, self.opt)
        store_luminance(self)

    # ---- state ---------------------------------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """Returns what this rank keeps beyond weights, optimizers and schedulers: plain values and tensors only."""
        state = {
            f'criterion_{name}': criterion.extra_state()
            for name, criterion in self.criteria.items()
            if hasattr(criterion, 'extra_state')
        }
        if self._skipped:
            state.update(skipped=self._skipped, taken=self._taken)
        if self.guard is not None:
            state['guard'] = self.guard.extra_state()
        if self.step.precision == 'fp16':
            state['scalers'] = {name: player.scaler.state_dict() for name, player in self.players.items()}
        return state

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Restores what :meth:`extra_state` gave on this rank."""
        for name, criterion in self.criteria.items():
            if f'criterion_{name}' in state:
                criterion.load_extra_state(state[f'criterion_{name}'])
        self._skipped, self._taken = state.get('skipped', 0), state.get('taken', 0)
        if self.guard is not None and 'guard' in state:
            self.guard.load_extra_state(state['guard'])
        for name, scaler_state in state.get('scalers', {}).items():
            self.players[name].scaler.load_state_dict(scaler_state)

    def shared_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Returns that part of one rank's extra state that any rank may go on from, with another number of ranks; here all.

        Args:
            state: What :meth:`extra_state` gave on the first rank.
        """
        return state

    def save(self, epoch: int, current_iter: int) -> None:
        """Saves the networks and the training state; all ranks must call it.

        Raises:
            UserError: As of :meth:`check_losses`; nothing is written.
        """
        self.check_losses()
        for label, network in self.saved_networks.items():
            if label == 'net_g' and self.ema_decay > 0:
                self.save_network([network, self.net_g_ema], label, current_iter, ['params', 'params_ema'])
            else:
                self.save_network(network, label, current_iter)
        self.save_training_state(epoch, current_iter)


MODEL_REGISTRY.register(TrainingModel)
