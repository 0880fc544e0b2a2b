"""Keys of BasicSR 1.4.2's models, from what their classes read and from its option files; see also ``stock_frame``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from basicsr_ext.options.kinds import (
    BLOCK,
    COUNT,
    FLAG,
    NUMBER,
    SHARE,
    WEIGHT,
    ascending,
    integer,
    list_of,
    nullable,
    number,
    one_of,
    whole,
)
from basicsr_ext.options.tables import Table, may, need


@dataclass(frozen=True)
class ModelKeys:
    """What a model reads beyond ``stock_frame``.

    Attributes:
        networks: Letters of the networks that training needs; the first is the one that tests need.
        optional_networks: Of those that may be there.
        losses: Keys of ``train`` that hold a loss.
        needed_losses: Those of them without which training fails.
        any_loss: Those of them of which one is needed; none where this is empty.
        players: What ``train.optim_<player>`` must be given for.
        optional_players: What it may be given for.
        schedulers: Players that may have a ``train.scheduler_<player>`` of their own.
        train: Further keys of ``train``.
        top: Further keys of the whole file; needed ones are needed in training only.
        val: Further keys of ``val``.
        of_network: Arguments of ``network_g`` that it reads too, so that their defaults will not do.
        needs_val: Whether it fails without a block ``val``.
        saves_in_training: Whether its validation can save images during training.
        unread: Keys that its option files have and that nothing reads, as key paths; they are accepted with a warning.
    """

    networks: tuple[str, ...] = ('g',)
    optional_networks: tuple[str, ...] = ()
    losses: tuple[str, ...] = ('pixel_opt', 'perceptual_opt')
    needed_losses: tuple[str, ...] = ()
    any_loss: tuple[str, ...] = ('pixel_opt', 'perceptual_opt')
    players: tuple[str, ...] = ('g',)
    optional_players: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()
    train: Table = field(default_factory=dict)
    top: Table = field(default_factory=dict)
    val: Table = field(default_factory=dict)
    of_network: tuple[str, ...] = ()
    needs_val: bool = False
    saves_in_training: bool = True
    unread: tuple[str, ...] = ()


_EMA: Table = {'ema_decay': may(SHARE)}
_TURNS: Table = {'net_d_iters': may(integer(1)), 'net_d_init_iters': may(whole(0))}
# The video models ask for this key, even where it is null.
_METRICS: Table = {'metrics': need(nullable(BLOCK))}
_PERCENT = ascending(number(0, 100))

_FIRST_DEGRADATION: Table = {
    'resize_prob': need(list_of(WEIGHT, 3)),
    'resize_range': need(ascending(number(0.01, 100))),
    'gaussian_noise_prob': need(SHARE),
    'noise_range': need(ascending(WEIGHT)),
    'poisson_scale_range': need(ascending(WEIGHT)),
    'gray_noise_prob': need(SHARE),
    'jpeg_range': need(_PERCENT),
}
# All of it is read only where high_order_degradation is on, as it is where that key is missing.
DEGRADATION: Table = {
    **_FIRST_DEGRADATION,
    **{f'{key}2': known for key, known in _FIRST_DEGRADATION.items()},
    'second_blur_prob': need(SHARE),
    'gt_size': need(integer(1, 400)),  # of the 400 pixels that RealESRGANDataset crops
}
# This package's: how networks run in validation (models/inference_options.py).
INFERENCE: Table = {
    'tile': may(nullable(integer(1, 100_000))),
    'overlap': may(integer(0, 100_000)),
    'self_ensemble': may(FLAG),
    'precision': may(one_of('fp32', 'bf16', 'fp16')),
}
_POOL: Table = {'queue_size': may(integer(1, 1_000_000)), 'high_order_degradation': may(FLAG)}

_SR = ModelKeys(train=_EMA, val=INFERENCE)
_VIDEO = ModelKeys(train=_EMA, val=_METRICS, saves_in_training=False)
_GAN = ModelKeys(
    networks=('g', 'd'),
    losses=('pixel_opt', 'perceptual_opt', 'ldl_opt', 'gan_opt'),
    needed_losses=('gan_opt',),
    any_loss=(),
    players=('g', 'd'),
    train={**_EMA, **_TURNS},
    val=INFERENCE,
)

_USM: Table = {'l1_gt_usm': need(FLAG), 'percep_gt_usm': need(FLAG), 'gan_gt_usm': need(FLAG)}
_RECURRENT_VAL: Table = {**_METRICS, 'flip_seq': may(FLAG), 'center_frame_only': may(FLAG)}

MODELS: dict[str, ModelKeys] = {
    'SRModel': _SR,
    'SwinIRModel': replace(_SR, of_network=('window_size',)),
    'SRGANModel': _GAN,
    'ESRGANModel': _GAN,
    'RealESRNetModel': replace(_SR, top={**DEGRADATION, **_POOL, 'gt_usm': need(FLAG)}),
    'RealESRGANModel': replace(_GAN, top={**DEGRADATION, **_POOL, **_USM}),
    'VideoBaseModel': _VIDEO,
    'VideoGANModel': replace(_GAN, val=_METRICS, saves_in_training=False),
    'EDVRModel': replace(
        _VIDEO,
        train={**_EMA, 'tsa_iter': may(nullable(COUNT)), 'dcn_lr_mul': may(WEIGHT)},
        unread=('network_d', 'train.optim_d', 'train.gan_opt', 'train.net_d_iters', 'train.net_d_init_iters'),
    ),
    'VideoRecurrentModel': replace(
        _VIDEO,
        train={**_EMA, 'fix_flow': may(nullable(COUNT)), 'flow_lr_mul': may(WEIGHT)},
        val=_RECURRENT_VAL,
    ),
    'VideoRecurrentGANModel': replace(
        _GAN,
        losses=('pixel_opt', 'perceptual_opt', 'gan_opt'),
        train={**_GAN.train, 'fix_flow': need(nullable(COUNT)), 'lr_flow': may(WEIGHT)},
        val=_RECURRENT_VAL,
        saves_in_training=False,
    ),
    'HiFaceGANModel': replace(
        _GAN,
        losses=('pixel_opt', 'perceptual_opt', 'gan_opt', 'feature_matching_opt'),
        any_loss=_SR.any_loss,
        train={'ema_decay': may(number(0, 0)), **_TURNS},  # it refuses to average
        val={},
    ),
    'StyleGAN2Model': replace(
        _GAN,
        losses=('gan_opt',),
        train={
            'r1_reg_weight': need(NUMBER),
            'path_reg_weight': need(NUMBER),
            'path_batch_shrink': need(integer(1)),
            'net_g_reg_every': need(integer(1)),
            'net_d_reg_every': need(integer(1)),
            'mixing_prob': need(SHARE),
        },
        val={'num_val_samples': may(integer(1, 100_000))},
        of_network=('num_style_feat',),
        needs_val=True,
        unread=('train.net_d_iters', 'train.net_d_init_iters'),
    ),
}
