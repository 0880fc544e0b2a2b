"""Keys that BasicSR 1.4.2 reads whatever the model is, and those that this package's trainer adds.

Source: ``train.py``, ``test.py``, ``utils/options.py``, ``utils/misc.py``, ``utils/logger.py``, ``data/__init__.py``,
``models/base_model.py``, and the option files published with that version.
"""

from __future__ import annotations

from basicsr_ext.options.kinds import (
    ANY,
    BLOCK,
    CLASS,
    COUNT,
    FLAG,
    NAME,
    PATH,
    TEXT,
    Kind,
    either,
    integer,
    list_of,
    nullable,
    number,
    one_of,
    whole,
)
from basicsr_ext.options.tables import Table, may, need

MAX_WORKERS = 256
_DEVICES = Kind(
    'auto, or a number of GPUs from 0 (the CPU) on', lambda value: value == 'auto' or integer(0, 4096).accepts(value)
)

TOP: Table = {
    'name': need(NAME),
    'model_type': need(CLASS),
    'scale': may(integer(1, 64)),
    'num_gpu': need(_DEVICES),
    # NumPy's global generator takes 32 bits, and each rank adds its number.
    'manual_seed': may(nullable(integer(0, 4_000_000_000))),
    'deterministic': may(FLAG),  # this package's
    'datasets': need(BLOCK),
    'path': need(nullable(BLOCK)),
    'train': need(BLOCK, 'train'),
    'val': need(nullable(BLOCK), 'test'),
    'logger': need(BLOCK, 'train'),
    'dist_params': may(nullable(BLOCK)),
    'find_unused_parameters': may(FLAG),
}

# Keys of BasicSR's own option files that nothing in it reads.
TOP_UNREAD = ('save_img', 'suffix', 'crop_border')

PATHS: Table = {
    'root': may(nullable(PATH)),  # this package's: where experiments, results and tb_logger are made
    'resume_state': may(nullable(PATH)),
    'ignore_resume_networks': may(nullable(either(TEXT, list_of(TEXT)))),
}

# For each network: what may stand in ``path``, with the network's letters in place of {}.
PATHS_OF_NETWORK: Table = {
    'pretrain_network_{}': may(nullable(PATH)),
    'pretrain_network_{}_leave_out': may(nullable(list_of(TEXT, empty=True))),  # this package's
    'strict_load_{}': may(FLAG),
    'param_key_{}': may(nullable(TEXT)),
}

TRAIN: Table = {
    'total_iter': need(COUNT),
    'warmup_iter': may(whole(-1)),
    'scheduler': may(nullable(BLOCK)),  # needed, where the players have none of their own
}

VAL: Table = {
    'val_freq': need(COUNT, 'train'),
    'save_img': need(FLAG),
    'suffix': may(nullable(NAME)),  # a part of the names of files
    'pbar': may(FLAG),
    'metrics': may(nullable(BLOCK)),
}

LOGGER: Table = {
    'print_freq': need(COUNT),
    'save_checkpoint_freq': need(COUNT),
    'use_tb_logger': need(FLAG),
    'wandb': may(nullable(BLOCK)),
    # this package's
    'keep_last': may(nullable(integer(1))),
    'keep_best': may(nullable(TEXT)),
}

WANDB: Table = {'project': may(nullable(TEXT)), 'resume_id': may(nullable(TEXT))}

DIST_PARAMS: Table = {'backend': may(one_of('nccl', 'gloo')), 'port': may(nullable(integer(1, 65535)))}

# What every dataset's block may hold for the loader, whatever its class; phase and scale are put there by BasicSR.
DATASET: Table = {
    'name': need(either(TEXT, integer())),
    'type': need(CLASS),
    'phase': may(ANY),
    'scale': may(ANY),
    'num_worker_per_gpu': may(nullable(integer(0, MAX_WORKERS))),  # this package's: none unless they are asked for
    'batch_size_per_gpu': need(integer(1, 1_000_000), 'train'),
    'dataset_enlarge_ratio': may(number(above=0)),
    'prefetch_mode': may(nullable(one_of('cpu', 'cuda'))),
    'num_prefetch_queue': may(integer(1, 10_000)),
    'pin_memory': may(FLAG),
    'persistent_workers': may(FLAG),
}

METRIC: Table = {'type': need(CLASS), 'better': may(one_of('higher', 'lower'))}

IO_BACKENDS: dict[str, Table] = {
    'disk': {},
    'lmdb': {
        'db_paths': may(ANY),  # these two are set by the datasets
        'client_keys': may(ANY),
        'readonly': may(FLAG),
        'lock': may(FLAG),
        'readahead': may(FLAG),
        'map_size': may(COUNT),
        'max_readers': may(integer(1)),
        'max_spare_txns': may(integer(0)),
        'meminit': may(FLAG),
    },
    'memcached': {'server_list_cfg': need(PATH), 'client_cfg': need(PATH), 'sys_path': may(nullable(PATH))},
}
