"""The shared base as a model of its own: speed and precision with plain losses."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from run_helpers import assert_same_weights, network_weights, sr_options, write_options, write_pairs

from basicsr_ext.cli.main import main


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def train(root, name: str, model_type: str = 'TrainingModel', **further) -> dict:
    options = sr_options(root, name=name, model_type=model_type)
    options['train'].update(further)
    assert main(['train', '-opt', str(write_options(root / f'{name}.yml', options))]) == 0
    return network_weights(root, name)


def test_it_trains_as_basicsrs_model_does(root):
    assert_same_weights(train(root, 'stock', 'SRModel'), train(root, 'ours'), tolerance=1e-6)


def test_micro_batches_take_the_same_steps(root):
    step = {'optim_g': {'type': 'SGD', 'lr': 0.1}}  # Adam's first steps blow rounding up
    assert_same_weights(train(root, 'whole', **step), train(root, 'parts', accumulate=2, **step), tolerance=1e-6)


@pytest.mark.parametrize(
    'further', [{'precision': 'bf16'}, {'grad_clip': {'norm': 1e-4}}, {'channels_last': True, 'ema_decay': 0.9}]
)
def test_its_options_have_an_effect(root, further):
    plain, changed = train(root, 'plain'), train(root, 'changed', **further)
    if 'channels_last' in further:
        assert 'params_ema' in changed
        assert_same_weights(plain, {'params': changed['params']}, tolerance=1e-5)
    else:
        assert any(not torch.equal(plain['params'][key], changed['params'][key]) for key in plain['params'])


@pytest.mark.parametrize('option', ['precision: bf16', 'accumulate: 2', 'grad_clip: {norm: 1}', 'compile: true'])
def test_basicsrs_model_refuses_them_and_names_it(root, capsys, option):
    import yaml

    options = sr_options(root)
    options['train'].update(yaml.safe_load(option))
    assert main(['train', '-opt', str(write_options(root / 'o.yml', options))]) == 2
    key = option.partition(':')[0]
    assert f'train.{key}: unknown option of SRModel; model_type: TrainingModel has it.' in capsys.readouterr().err
