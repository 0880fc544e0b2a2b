"""Checks what a model reads: its networks, and its keys of the whole file, of ``train`` and of ``val``."""

from __future__ import annotations

from typing import Any

from basicsr.utils.registry import MODEL_REGISTRY
from torch import nn

from basicsr_ext.checking import stock_frame
from basicsr_ext.checking.blocks import check_annotated
from basicsr_ext.checking.losses import check_loss
from basicsr_ext.checking.networks import check_network
from basicsr_ext.checking.optimizers import check_optimizer, check_scheduler
from basicsr_ext.checking.registries import find_registered, look_up, origin, registered_names
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.stock_models import DEGRADATION, INFERENCE, MODELS, ModelKeys
from basicsr_ext.checking.structure import network_keys
from basicsr_ext.errors import UserError
from basicsr_ext.models.from_total import train_blocks
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.tiling import overlap_warning
from basicsr_ext.options.closest import closest_name
from basicsr_ext.options.kinds import ANY, BLOCK


def find_model(report: Report) -> type | None:
    """Returns the model's class; notes a problem where there is none of that name."""
    return find_registered(report, ('model_type',), MODEL_REGISTRY, 'model')


def keys_of(model: type) -> ModelKeys:
    """What a model reads: a table for BasicSR's, the class's own attributes for this package's and those made from them."""
    for cls in model.__mro__:
        if origin(cls) == 'stock' and cls.__name__ in MODELS:
            return MODELS[cls.__name__]
        if origin(cls) == 'ours':
            return ModelKeys(
                networks=model.network_names,
                optional_networks=model.optional_network_names,
                losses=model.loss_keys,
                any_loss=model.loss_keys,
                players=model.player_names,
                optional_players=model.optional_player_names,
                schedulers=(*model.player_names, *model.optional_player_names),
                val=INFERENCE,
            )
    return ModelKeys()


def check_model(report: Report) -> dict[str, nn.Module]:
    """Checks the model's name and everything that depends on it.

    Returns:
        Key of a network's block -> network, for those that were built; they have no memory for their weights.
    """
    model = find_model(report)
    built = {key: check_network(report, (key,)) for key in network_keys(report)}
    networks = {key: network for key, network in built.items() if network is not None}
    if model is None:
        _check_without_model(report)
        return networks
    keys, name = keys_of(model), model.__name__
    _check_top(report, keys, name)
    _check_val(report, keys, name)
    if report.is_train and isinstance(report.get('train'), dict):
        _check_train(report, keys, train_blocks(model), name)
    _check_unknown(report, keys, model)
    if not report.is_train and keys.networks:
        _check_tested_weights(report, keys.networks[0], networks)
    blocks = [('train',), ('datasets',), ('model_type',), ('network_g',)]
    if (
        report.is_train
        and hasattr(model, 'check_combination')
        and all(report.has_no_problems(*path) for path in blocks)
    ):
        try:
            model.check_combination(report.values)
        except UserError as error:
            report.refused((), error)
    return networks


def _check_tested_weights(report: Report, letter: str, networks: dict[str, nn.Module]) -> None:
    """BasicSR tests a network with random weights without a word."""
    network, path = networks.get(f'network_{letter}'), ('path', f'pretrain_network_{letter}')
    has_weights = network is not None and any(True for _ in network.parameters())
    if has_weights and report.get(*path) is None and report.has_no_problems('path'):
        report.error(path, 'expected the weights to test, found none. Set it, or give --weights FILE.')


def _check_without_model(report: Report) -> None:
    """Checks what can be known of the blocks of an unknown model, and keys by the model that was probably meant."""
    for key, value in report.block('train').items() if report.is_train else ():
        if value and str(key).endswith('_opt'):
            check_loss(report, ('train', key))
        elif value and str(key).startswith('optim_'):
            check_optimizer(report, ('train', key), 'training')
    for key, value in report.block('train').items() if report.is_train else ():
        if value and str(key).startswith('scheduler'):
            check_scheduler(report, ('train', key), 'training')
    closest = look_up(MODEL_REGISTRY, closest_name(report.get('model_type'), registered_names(MODEL_REGISTRY)) or '')
    if closest is not None:
        _check_unknown(report, keys_of(closest), closest)


def _check_unknown(report: Report, keys: ModelKeys, model: type) -> None:
    """Checks that the whole file, ``train`` and ``val`` have no keys but those that a model reads."""
    name, lenient = model.__name__, origin(model) == 'other'
    unread = [key for key in keys.unread if '.' not in key]
    networks = [f'network_{letter}' for letter in (*keys.networks, *keys.optional_networks)]
    nulls = [key for key, value in report.values.items() if value is None and str(key).startswith('network_')]
    known = [*stock_frame.TOP, *keys.top, *networks]
    _warn_of_unread(report, [*stock_frame.TOP_UNREAD, *unread], name)
    report.check_unknown((), [*known, *stock_frame.TOP_UNREAD, *unread, *nulls], name, lenient, suggestions=known)
    report.check_unknown(('val',), {**stock_frame.VAL, **keys.val}, name, lenient)
    if not report.is_train:
        return
    unread = [key.removeprefix('train.') for key in keys.unread if key.startswith('train.')]
    known = [*stock_frame.TRAIN, *keys.train, *train_blocks(model), *keys.losses]
    known += [f'optim_{player}' for player in (*keys.players, *keys.optional_players)]
    known += [f'scheduler_{player}' for player in keys.schedulers]
    _warn_of_unread(report, unread, name, 'train')
    elsewhere = (
        dict.fromkeys(TrainingModel.train_blocks, 'model_type: TrainingModel has it.') if name == 'SRModel' else {}
    )
    report.check_unknown(('train',), [*known, *unread], name, lenient, suggestions=known, elsewhere=elsewhere)


def _check_top(report: Report, keys: ModelKeys, name: str) -> None:
    report.check_values((), keys.top)
    if report.is_train:
        degrades = report.get('high_order_degradation') is not False
        needed = {key: known for key, known in keys.top.items() if degrades or key not in DEGRADATION}
        report.check_needed((), needed, by=name)
    for letter in keys.networks if report.is_train else keys.networks[:1]:
        if report.get(f'network_{letter}') is None:
            report.missing((f'network_{letter}',), BLOCK, name)
    network = f'network_{keys.networks[0]}'
    for key in keys.of_network:
        if isinstance(report.get(network), dict) and key not in report.block(network):
            report.missing((network, key), ANY, name)


def _check_train(report: Report, keys: ModelKeys, blocks: dict[str, Any], name: str) -> None:
    train = report.block('train')
    report.check_values(('train',), keys.train)
    report.check_needed(('train',), keys.train, by=name)
    for key, annotation in blocks.items():
        check_annotated(report, ('train', key), annotation)
    for key in keys.losses:
        if train.get(key):
            check_loss(report, ('train', key))
        elif key in keys.needed_losses:
            report.missing(('train', key), BLOCK, name)
    if keys.any_loss and not any(train.get(key) for key in keys.any_loss):
        message = f'{name} needs a loss: expected {" or ".join(keys.any_loss)}, found neither.'
        report.error(('train', keys.any_loss[0]), message)
    players = [*keys.players, *(player for player in keys.optional_players if train.get(f'optim_{player}'))]
    optimizers = {player: check_optimizer(report, ('train', f'optim_{player}'), name) for player in players}
    shared = []  # those without a scheduler of their own
    for player, optimizer in optimizers.items():
        if player in keys.schedulers and train.get(f'scheduler_{player}'):
            check_scheduler(report, ('train', f'scheduler_{player}'), name, [optimizer])
        else:
            shared.append(optimizer)
    for player in keys.schedulers:
        if player not in optimizers and train.get(f'scheduler_{player}'):
            check_scheduler(report, ('train', f'scheduler_{player}'), name)
    if shared or train.get('scheduler'):
        check_scheduler(report, ('train', 'scheduler'), name, shared)


def _check_val(report: Report, keys: ModelKeys, name: str) -> None:
    if report.get('val') is None and keys.needs_val:
        report.missing(('val',), BLOCK, name)
    if not isinstance(report.get('val'), dict):
        return
    report.check_values(('val',), keys.val)
    report.check_needed(('val',), keys.val, by=name)
    tile, overlap = (report.get('val', key) for key in ('tile', 'overlap'))
    if (
        'tile' in keys.val
        and tile is not None
        and report.has_no_problems('val', 'tile')
        and report.has_no_problems('val', 'overlap')
    ):
        if overlap is not None and overlap >= tile:
            report.error(('val', 'overlap'), f'expected less than tile ({tile}), found {overlap}.')
        elif warning := overlap_warning(tile, overlap):
            report.warn(('val', 'overlap'), warning)
    if report.is_train and not keys.saves_in_training and report.get('val', 'save_img') is True:
        report.error(('val', 'save_img'), f'expected false, since {name} saves no images during training.')


def _warn_of_unread(report: Report, keys: list[str], name: str, *path: str) -> None:
    for key in keys:
        if key in report.block(*path) if path else key in report.values:
            report.warn((*path, key), f'{name} does not read this option.')
