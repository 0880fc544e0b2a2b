"""bench/results/self_paced.py: what it compares differs in nothing else, and no training writes over another."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import pytest

FILE = Path(__file__).parents[1] / 'bench/results/self_paced.py'
FOLDER = Path('folder')


@pytest.fixture(scope='module')
def script():
    spec = importlib.util.spec_from_file_location('self_paced_script', FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options_of(script, network: str, method: str) -> dict:
    complete = script.edsr_options if network == 'EDSR-tiny' else script.vdsr_options
    common = script.common(network, method, 0, 200)
    return {**common, **complete(network, method, FOLDER, FOLDER, common)}


def test_names_are_all_different(script):
    names = [
        script.name_of(network, method, seed)
        for runs in (script.RUNS, script.SCRATCH)
        for network, methods in runs.items()
        for method in methods
        for seed in range(3)
    ]
    assert len(names) == len(set(names)) == 30 and not any(' ' in name for name in names)


@pytest.mark.parametrize('network', ['VDSR-f13', 'VDSR-f13 from scratch'])
def test_ones_is_the_direct_form_without_importance(script, network):
    ones, direct, plain = (options_of(script, network, method) for method in ('ones', 'AIL direct', 'plain'))
    assert ones['train']['ail'].pop('initialization') == 'ones'
    assert direct['train']['ail'].pop('teacher')['weights'].endswith('ail_tea_vdsr.pth')
    assert ones.pop('name') != direct.pop('name') and ones == direct
    for options in (ones, plain):
        del options['model_type'], options['train']['scheduler']
        options['train'].pop('ail', None)
    del plain['name']
    assert ones == plain
    assert ('pretrain_network_g' in plain['path']) == (network == 'VDSR-f13')


def test_the_unscaled_run_has_the_papers_learning_rate(script):
    usual, unscaled = (
        options_of(script, 'VDSR-f13 from scratch', method)['train'] for method in ('AIL direct', script.UNSCALED)
    )
    assert unscaled['ail'] == usual['ail']
    assert (unscaled['optim_g']['lr'], usual['optim_g']['lr']) == (0.1, 0.01)
    assert (unscaled['pixel_opt']['loss_weight'], usual['pixel_opt']['loss_weight']) == (1, 8)
    assert (unscaled['scheduler']['milestones'], usual['scheduler']['milestones']) == ([24, 34], [34])


def test_pspl_and_plain_differ_in_the_loss(script):
    plain, paced = (options_of(script, 'EDSR-tiny', method) for method in ('plain', 'PSPL'))
    losses = [copy.deepcopy(options['train'].pop('pixel_opt')) for options in (plain, paced)]
    assert losses[1] == {**losses[0], 'type': 'PSPLLoss', 'step_iters': 200 / 300, 'data_range': 1 / 255}
    assert plain.pop('name') != paced.pop('name') and plain == paced


def test_trainings_are_tested_on_set5_and_trained_on_other_images(script):
    for network, method in (('VDSR-f13', 'plain'), ('EDSR-tiny', 'PSPL')):
        blocks = options_of(script, network, method)['datasets']
        assert blocks['val']['name'] == 'Set5' and 'Set5' in blocks['val']['dataroot_gt']
        assert blocks['train']['name'] == 'T91_BSDS' and 'Set5' not in blocks['train']['dataroot_gt']
