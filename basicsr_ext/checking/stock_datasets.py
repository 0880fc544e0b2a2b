"""Keys of BasicSR 1.4.2's datasets, from what their classes read; see also ``stock_frame.DATASET``."""

from __future__ import annotations

from basicsr_ext.options.kinds import (
    ANY,
    BLOCK,
    FLAG,
    NUMBER,
    PATH,
    SHARE,
    TEMPLATE,
    WEIGHT,
    Kind,
    ascending,
    either,
    integer,
    list_of,
    nullable,
    one_of,
)
from basicsr_ext.options.tables import Table, may, need

_SIZE = integer(1, 65536)
_ODD = Kind('an odd whole number from 1 on', lambda value: integer(1, 10_001).accepts(value) and value % 2 == 1)
_INTERVALS = list_of(integer(1, 100_000))
# Of one value for all channels, or of one for each.
_STATISTICS = either(list_of(NUMBER, 3), list_of(NUMBER, 1))
_KERNELS = one_of('iso', 'aniso', 'generalized_iso', 'generalized_aniso', 'plateau_iso', 'plateau_aniso')
_PADDING = one_of('replicate', 'reflection', 'reflection_circle', 'circle')

_IO: Table = {'io_backend': need(BLOCK)}
_PAIR: Table = {**_IO, 'dataroot_gt': need(PATH), 'dataroot_lq': need(PATH)}
_FLIPS: Table = {'use_hflip': need(FLAG, 'train'), 'use_rot': need(FLAG, 'train')}
_NORMALIZED: Table = {'mean': may(nullable(_STATISTICS)), 'std': may(nullable(_STATISTICS))}
_CROPPED_PAIR: Table = {
    **_PAIR, **_FLIPS, **_NORMALIZED, 'filename_tmpl': may(TEMPLATE), 'gt_size': need(_SIZE, 'train'),
}  # fmt: skip

_BLUR: Table = {
    'blur_kernel_size': need(_SIZE),
    'kernel_list': need(list_of(_KERNELS)),
    'kernel_prob': need(list_of(WEIGHT)),
    'sinc_prob': need(SHARE),
    'blur_sigma': need(ascending(WEIGHT)),
    'betag_range': need(ascending(WEIGHT)),
    'betap_range': need(ascending(WEIGHT)),
}

_CLIPS: Table = {
    **_PAIR,
    'meta_info_file': need(PATH),
    'gt_size': need(_SIZE),
    'random_reverse': need(FLAG),
    'use_hflip': need(FLAG),
    'use_rot': need(FLAG),
}
_REDS: Table = {
    **_CLIPS, 'val_partition': need(one_of('REDS4', 'official')), 'interval_list': need(_INTERVALS), 'num_frame': need(_ODD),
}  # fmt: skip
# The recurrent datasets take all frames of a clip as often as not: their option files say num_frame: -1.
_VIDEO_TEST: Table = {
    **_PAIR,
    'cache_data': need(FLAG),
    'num_frame': need(integer(-1, 10_001)),
    'meta_info_file': may(PATH),
}
_WINDOW_TEST: Table = {**_VIDEO_TEST, 'num_frame': need(_ODD), 'padding': need(_PADDING)}

DATASETS: dict[str, Table] = {
    'PairedImageDataset': {
        **_CROPPED_PAIR,
        'meta_info_file': may(nullable(PATH)),
        'color': may(nullable(one_of('y', 'rgb'))),
    },
    'RealESRGANPairedDataset': {**_CROPPED_PAIR, 'meta_info': may(nullable(PATH))},
    'SingleImageDataset': {
        **_IO,
        **_NORMALIZED,
        'dataroot_lq': need(PATH),
        'meta_info_file': may(PATH),
        'color': may(nullable(one_of('y', 'rgb'))),
    },
    'FFHQDataset': {
        **_IO,
        'dataroot_gt': need(PATH),
        'use_hflip': need(FLAG),
        'mean': need(_STATISTICS),
        'std': need(_STATISTICS),
    },
    'RealESRGANDataset': {
        **_IO,
        'dataroot_gt': need(PATH),
        'meta_info': may(PATH),
        'use_hflip': need(FLAG),
        'use_rot': need(FLAG),
        'gt_size': may(_SIZE),  # in its option files; what is read is the model's gt_size
        **_BLUR,
        **{f'{key}2': known for key, known in _BLUR.items()},
        'final_sinc_prob': need(SHARE),
    },
    'REDSDataset': {**_REDS, 'dataroot_flow': need(nullable(PATH))},
    'REDSRecurrentDataset': {
        **_REDS,
        'num_frame': need(integer(1, 10_001)),
        'interval_list': may(_INTERVALS),
        'random_reverse': may(FLAG),
        'test_mode': need(FLAG),
        'dataroot_flow': may(nullable(PATH)),
    },
    'Vimeo90KDataset': {**_CLIPS, 'num_frame': need(integer(1, 7))},
    'Vimeo90KRecurrentDataset': {
        **_CLIPS,
        'num_frame': need(integer(-1, 7)),
        'flip_sequence': need(FLAG),
        'interval_list': may(_INTERVALS),  # in its option files; not read
    },
    'VideoTestDataset': _WINDOW_TEST,
    'VideoTestDUFDataset': {**_WINDOW_TEST, 'use_duf_downsampling': need(FLAG)},
    'VideoTestVimeo90KDataset': {
        **_VIDEO_TEST,
        'cache_data': need(one_of(False)),
        'num_frame': need(integer(1, 7)),
        'meta_info_file': need(PATH),
        'padding': may(_PADDING),
    },
    'VideoRecurrentTestDataset': {**_VIDEO_TEST, 'cache_data': need(one_of(True)), 'padding': may(ANY)},
}

# Their folders' structure is known for these names only.
VIDEO_TEST_NAMES = one_of('vid4', 'reds4', 'redsofficial')
NAMED_VIDEO_TESTS = ('VideoTestDataset', 'VideoTestDUFDataset', 'VideoRecurrentTestDataset')

# Datasets whose samples bring no GT image, and so nothing that a full-reference metric could compare with.
WITHOUT_GT = ('SingleImageDataset',)
