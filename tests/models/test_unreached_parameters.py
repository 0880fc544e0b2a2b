"""Parameters that no loss reaches are named before the second iteration."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from basicsr.archs.edsr_arch import EDSR
from basicsr.utils.registry import ARCH_REGISTRY
from criacl_runs import criacl_options, write_vgg
from lfcsr_runs import lfcsr_options
from run_helpers import TINY_EDSR, log_text, on_ranks, sr_options, write_options, write_pairs

from basicsr_ext.cli.main import main

if 'EDSRWithASpareLayer' not in ARCH_REGISTRY:

    @ARCH_REGISTRY.register()
    class EDSRWithASpareLayer(EDSR):
        """Has a layer that its forward does not use, and another that is not trained."""

        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.spare = torch.nn.Conv2d(4, 4, 3)
            self.frozen = torch.nn.Conv2d(4, 4, 3).requires_grad_(False)


SAID = 'no loss reaches spare.weight, spare.bias'


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def spare_options(root, model_type):
    options = sr_options(root, model_type=model_type, network_g={**TINY_EDSR, 'type': 'EDSRWithASpareLayer'})
    options['train']['total_iter'] = 2
    options.pop('val')
    options['datasets'].pop('val')
    return options


@pytest.mark.parametrize('model_type', ['TrainingModel', 'SRModel'])
def test_one_rank_is_warned_once(root, model_type):
    assert main(['train', '-opt', str(write_options(root / 'o.yml', spare_options(root, model_type)))]) == 0
    log = log_text(root / 'experiments/run')
    assert log.count(f'{SAID}; they stay as they are.') == 1 and 'find_unused_parameters: true' in log
    assert 'frozen' not in log.partition(SAID)[2]


def _rank(path: str, expected: int, *arguments: str) -> None:
    torch.set_num_threads(1)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', *arguments]) == expected


@pytest.mark.parametrize('model_type', ['TrainingModel', 'SRModel'])
def test_several_ranks_are_refused_before_the_second_iteration(root, capfd, model_type):
    path = str(write_options(root / 'o.yml', spare_options(root, model_type)))
    on_ranks(2, _rank, path, 2)
    error = capfd.readouterr().err
    assert f'{SAID}. Several ranks expect' in error and 'set find_unused_parameters: true' in error
    assert error.count('basicsr train: error:') == 1 and 'Traceback' not in error
    assert 'iter: ' not in log_text(root / 'experiments/run').partition('Start training')[2].partition('\n')[2]
    on_ranks(2, _rank, path, 0, '--force_yml', 'find_unused_parameters=true')
    log = log_text(root / 'experiments/run')
    assert 'iter:       2' in log and f'{SAID}; they stay' in log


@pytest.mark.parametrize('method', ['Cria-CL', 'LFC-SR'])
def test_what_a_method_leaves_out_in_a_phase_is_no_fault(root, method):
    """Both players, and both phases."""
    write_vgg(root / 'vgg19.pth')
    options = criacl_options(root) if method == 'Cria-CL' else lfcsr_options(root)
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 0
    assert 'no loss reaches' not in log_text(root / 'experiments/run')
