"""Every option file that was published with BasicSR 1.4.2 is accepted, but for those that it fails with itself."""

from __future__ import annotations

import pytest
from stock_shapes import FILES, options_of

from basicsr_ext.checking import check_options
from basicsr_ext.options.source import read_source

# BasicSR 1.4.2 cannot run these files of its own either.
_REFUSED = {
    'test/RCAN/test_RCAN': 'val: this option is required',  # KeyError: 'val'
    'train/EDVR/train_EDVR_L_x4_SR_REDS': 'network_g.ema_decay: unknown option of EDVR',  # TypeError
    'train/EDVR/train_EDVR_L_x4_SR_REDS_woTSA': 'network_g.ema_decay: unknown option of EDVR',
    # KeyError: the loss was never part of a release
    'train/HiFaceGAN/train_hifacegan': 'train.feature_matching_opt.type: expected the name of a registered loss',
}


def problems_of(options: dict, tmp_path, is_train: bool) -> list[str]:
    """What is wrong with options, apart from files that are not there."""
    report = check_options(read_source(options), is_train=is_train, root=tmp_path, launcher=None)
    return [str(problem) for problem in report.problems if problem.path not in report.paths]


@pytest.mark.parametrize('file', FILES)
def test_published_files(file, tmp_path):
    problems = problems_of(options_of(file), tmp_path, is_train=file.startswith('train/'))
    if file in _REFUSED:
        assert len(problems) == 1 and problems[0].startswith(_REFUSED[file])
    else:
        assert problems == []


def test_the_table_covers_all_of_them():
    assert len(FILES) == 70
    assert sum(file.startswith('train/') for file in FILES) == 38


@pytest.mark.parametrize('file', FILES)
def test_every_misspelt_key_is_found(file, tmp_path):
    options = options_of(file)
    unread = {'EDVRModel': ('optim_d', 'gan_opt'), 'HiFaceGANModel': ('feature_matching_opt',)}  # not looked into
    for key in unread.get(options['model_type'], ()):
        options.get('train', {}).pop(key, None)
    misspelt = {(*path[:-1], f'{path[-1]}q') for path in list(_leaves(options)) if _misspell(options, path)}
    found = problems_of(options, tmp_path, is_train=file.startswith('train/'))
    unknown = {text.partition(': unknown option')[0] for text in found if ': unknown option' in text}
    assert {'.'.join(path) for path in misspelt} <= unknown


def _misspell(options: dict, path: tuple) -> bool:
    block = options
    for key in path[:-1]:
        block = block[key]
    block[path[-1] + 'q'] = block.pop(path[-1])
    return True


def _leaves(block: dict, path: tuple = ()):
    for key, value in block.items():
        if isinstance(value, dict) and key != 'layer_weights':
            yield from _leaves(value, (*path, key))
        elif key not in ('type', 'model_type'):
            yield (*path, key)
