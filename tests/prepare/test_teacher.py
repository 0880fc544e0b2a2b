"""The teacher: its option, its weights, its device."""

from __future__ import annotations

import pytest
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.networks.devices import resolve_device
from basicsr_ext.prepare.teacher import (
    build_teacher,
    check_network_option,
    teacher_from_file,
    teacher_from_text,
)

CPU = torch.device('cpu')


def test_from_an_option_file(tmp_path):
    path = tmp_path / 'train.yml'
    path.write_text('name: x\nscale: 2\nnetwork_g:\n  type: EDSR\n  num_feat: 8\n')
    expected = ({'type': 'EDSR', 'num_feat': 8}, 2)
    assert teacher_from_file(path) == expected
    assert teacher_from_file(path, 2) == expected
    with pytest.raises(UserError, match='scale is 2, the command line says 4'):
        teacher_from_file(path, 4)
    path.write_text('network_g: {type: EDSR}\n')
    assert teacher_from_file(path, 4) == ({'type': 'EDSR'}, 4)
    with pytest.raises(UserError, match='expected an option scale'):
        teacher_from_file(path)
    path.write_text('scale: 2\nnetwork_g: EDSR\n')
    with pytest.raises(UserError, match='expected a block network_g'):
        teacher_from_file(path)
    with pytest.raises(UserError, match=r'missing\.yml'):
        teacher_from_file(tmp_path / 'missing.yml')


def test_from_text():
    assert teacher_from_text('{type: EDSR, res_scale: 0.1}', 4) == ({'type': 'EDSR', 'res_scale': 0.1}, 4)
    network, _ = teacher_from_text('{type: EDSR, res_scale: 1e-1, body: {blocks: [1e-2, 2]}}', 4)
    assert network == {'type': 'EDSR', 'res_scale': 0.1, 'body': {'blocks': [0.01, 2]}}  # as in option files
    assert type(network) is type(network['body']) is dict
    with pytest.raises(UserError, match=r'--network.*"num_feat" appears twice'):
        teacher_from_text('{type: EDSR, num_feat: 4, num_feat: 8}', 4)
    with pytest.raises(UserError, match='--network needs --scale'):
        teacher_from_text('{type: EDSR}', None)
    for text in ('EDSR', '{type: EDSR', '!!python/object/apply:os.getcwd []', ''):
        with pytest.raises(UserError, match='--network'):
            teacher_from_text(text, 4)


def test_params_ema_is_preferred_and_the_key_can_be_chosen(network_option, teacher, weights):
    built = build_teacher(network_option, weights, None, CPU)
    assert not built.training
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in built.state_dict().items())
    zeros = build_teacher(network_option, weights, 'params', CPU)
    assert not any(value.any() for value in zeros.state_dict().values())


def test_bare_and_data_parallel_state_dicts(network_option, teacher, tmp_path):
    path = tmp_path / 'bare.pth'
    torch.save({f'module.{key}': value for key, value in teacher.state_dict().items()}, path)
    built = build_teacher(network_option, path, None, CPU)
    assert all(torch.equal(value, teacher.state_dict()[key]) for key, value in built.state_dict().items())


def test_wrong_weights(network_option, weights, tmp_path):
    with pytest.raises(UserError, match=r'conv_first.weight'):
        build_teacher({**network_option, 'num_feat': 8}, weights, None, CPU)
    with pytest.raises(UserError, match=r'body.1.conv1.weight'):
        build_teacher({**network_option, 'num_block': 2}, weights, None, CPU)
    with pytest.raises(UserError, match='params_best'):
        build_teacher(network_option, weights, 'params_best', CPU)
    for path in (tmp_path / 'missing.pth', tmp_path):
        with pytest.raises(UserError, match=path.name):
            build_teacher(network_option, path, None, CPU)
    damaged = tmp_path / 'damaged.pth'
    damaged.write_bytes(weights.read_bytes()[:500])
    with pytest.raises(UserError, match=r'damaged.pth'):
        build_teacher(network_option, damaged, None, CPU)


def test_wrong_networks(network_option, weights):
    with pytest.raises(UserError, match='unknown network "EDSRR"; did you mean "EDSR"'):
        build_teacher({'type': 'EDSRR'}, weights, None, CPU)
    with pytest.raises(UserError, match=r'known networks: .*RCAN'):
        build_teacher({'type': '?'}, weights, None, CPU)
    with pytest.raises(UserError, match=r'EDSR cannot be built .*num_blocks'):
        build_teacher({**network_option, 'num_blocks': 2}, weights, None, CPU)
    for option in ({}, {'num_feat': 4}, {'type': 3}, 'EDSR'):
        with pytest.raises(UserError, match='name of the network as type'):
            check_network_option(option)
    with pytest.raises(UserError, match='plain values'):
        check_network_option({'type': 'EDSR', 'img_range': {1.0}})


def test_devices():
    assert resolve_device('auto').type == ('cuda' if torch.cuda.is_available() else 'cpu')
    assert resolve_device('cpu') == CPU
    for name in ('gpu', 'cuda:99'):
        with pytest.raises(UserError, match=f"device: .* found '{name}'"):
            resolve_device(name)
