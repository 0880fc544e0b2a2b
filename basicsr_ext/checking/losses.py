"""Checks the options of losses."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from basicsr.archs.vgg_arch import NAMES, VGG_PRETRAIN_PATH, insert_bn
from basicsr.utils.registry import LOSS_REGISTRY

from basicsr_ext.checking.networks import quiet
from basicsr_ext.checking.registries import find_registered, origin
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.signatures import check_arguments
from basicsr_ext.errors import UserError
from basicsr_ext.models.from_total import fill_loss_from_total
from basicsr_ext.options.kinds import NUMBER
from basicsr_ext.options.problems import KeyPath, brief, found, known_names

# 1.4.2 knows l2 too, and fails with it: torch has no L2loss.
_PERCEPTUAL_CRITERIA = ('l1', 'fro')
_PIXEL_KEYS = ('pixel_opt', 'ldl_opt', 'pixel_p_opt', 'down_opt')
_ROLES = (
    (('L1Loss', 'MSELoss', 'CharbonnierLoss'), _PIXEL_KEYS),
    (('PerceptualLoss',), ('perceptual_opt',)),
    (('GANLoss', 'MultiScaleGANLoss'), ('gan_opt',)),
)
_VGG_LAYERS = {**NAMES, **{f'{vgg}_bn': insert_bn(layers) for vgg, layers in NAMES.items()}}


def check_loss(report: Report, path: KeyPath) -> None:
    """Checks a loss option: its type, its arguments, and that they make a loss where building one is cheap."""
    loss = find_registered(report, (*path, 'type'), LOSS_REGISTRY, 'loss')
    if loss is None:
        return
    check_arguments(report, path, loss, lenient=origin(loss) == 'other')
    if not report.has_no_problems(*path):
        return
    _check_role(report, path, loss)
    if loss.__name__ == 'PerceptualLoss' and origin(loss) == 'stock':
        _check_perceptual(report, path)
    elif origin(loss) == 'stock' or (origin(loss) == 'ours' and not getattr(loss, 'needs_weights', False)):
        _try_to_build(report, path, loss)


def _check_role(report: Report, path: KeyPath, loss: Any) -> None:
    """Checks that a loss gives a single number, and that one of BasicSR's stands where its arguments are given."""
    if path[-1] in _PIXEL_KEYS and origin(loss) != 'other' and report.get(*path, 'reduction') == 'none':
        report.error((*path, 'reduction'), 'expected mean or sum, since training needs a single number, found none.')
    if path[-1] != getattr(loss, 'only_as', path[-1]):
        report.error(
            (*path, 'type'), f'expected a loss of two images; {loss.__name__} belongs into train.{loss.only_as}.'
        )
    if origin(loss) != 'stock':
        return
    for losses, keys in _ROLES:
        if path[-1] in keys and loss.__name__ not in losses:
            report.error(
                (*path, 'type'),
                f'expected a loss such as {losses[0]}, found {loss.__name__}, which compares something else.',
            )


def _try_to_build(report: Report, path: KeyPath, loss: Any) -> None:
    arguments = {key: value for key, value in report.block(*path).items() if key != 'type'}
    total = report.get('train', 'total_iter')
    total = int(total) if report.has_no_problems('train', 'total_iter') and total is not None else None
    arguments = fill_loss_from_total(loss, arguments, total or 1)
    try:
        with quiet():
            built = loss(**arguments)
        if total is not None and hasattr(built, 'warning_for') and (warning := built.warning_for(total)):
            report.warn((*path, warning[0]), warning[1])
    except UserError as error:
        report.refused(path, error)
    except Exception as error:  # whatever the constructor makes of a wrong argument
        report.error(path, f'{loss.__name__} cannot be built with these options ({brief(error)}).')


def _check_perceptual(report: Report, path: KeyPath) -> None:
    """Building it reads, or downloads, the weights of a VGG."""
    block = report.block(*path)
    vgg = block.get('vgg_type', 'vgg19')
    known = _VGG_LAYERS.get(vgg)
    if known is None:
        report.error((*path, 'vgg_type'), f'unknown VGG {found(vgg)}; {known_names(vgg, _VGG_LAYERS)}')
    elif not _has_weights(vgg):
        report.warn((*path, 'vgg_type'), f'the weights of {vgg} are not on this machine; the run will download them.')
    criterion = block.get('criterion', 'l1')
    if criterion not in _PERCEPTUAL_CRITERIA:
        expected = ' or '.join(_PERCEPTUAL_CRITERIA)
        report.error((*path, 'criterion'), f'expected {expected}, found {found(criterion)}.')
    layers = block.get('layer_weights')
    if not isinstance(layers, Mapping) or not layers:
        report.error((*path, 'layer_weights'), f'expected weights by layer, such as conv5_4: 1, found {found(layers)}.')
        return
    for layer, weight in layers.items():
        report.check_value((*path, 'layer_weights', layer), weight, NUMBER)
        if known is not None and layer not in known:
            report.error((*path, 'layer_weights', layer), f'{vgg} has no such layer; {known_names(layer, known)}')


def _has_weights(vgg: str) -> bool:
    """Whether BasicSR's extractor finds the weights of a VGG, in its own place or torch's."""
    name = os.path.basename(torchvision.models.get_model_weights(vgg).DEFAULT.url)
    return os.path.isfile(VGG_PRETRAIN_PATH) or os.path.isfile(os.path.join(torch.hub.get_dir(), 'checkpoints', name))
