"""Cria-CL: whole runs, resumed, under the stock command, refused."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import os
import sys
from pathlib import Path

import pytest
import torch
from criacl_runs import (
    CRITERIA_OF_BOTH_VIEWS,
    built,
    criacl_options,
    make_images,
    mixed,
)
from run_helpers import (
    TINY_EDSR,
    final_state,
    forked,
    log_text,
    network_weights,
    run,
    write_options,
)

from basicsr_ext.errors import UserError
from basicsr_ext.models.criacl_model import CriaCLModel


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    return make_images(tmp_path_factory.mktemp('criacl'), photos)


def test_resumes_to_the_bit(images, tmp_path):
    """Killed in its third iteration and resumed: as one that nobody stopped. Samples come from two sources, with noise."""
    options = mixed(criacl_options(images))
    states = []
    for name in ('whole', 'killed'):
        root = tmp_path / name
        root.mkdir()
        path = write_options(root / 'o.yml', options)
        if name == 'killed':
            assert forked(_run_until_a_kill, root, path) == -9
        assert forked(run, root, path, *(['--auto_resume'] if name == 'killed' else [])) == 0
        states.append(final_state(root, 4))
    assert {'net_g_4.pth', 'net_d_4.pth'} <= states[0].keys()
    assert states[0] == states[1]


def _run_until_a_kill(root: Path, path: Path) -> int:
    step, calls = CriaCLModel.update_discriminator, []

    def dying(*arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), 9)
        step(*arguments)

    CriaCLModel.update_discriminator = dying
    return run(root, path)


def test_stock_command_finds_model_losses_and_data(images, tmp_path, monkeypatch):
    """After register(), BasicSR's own loop and options run Cria-CL, too: two sources, noise, every loss, validation."""
    from basicsr.train import train_pipeline

    monkeypatch.chdir(tmp_path)
    path = write_options(tmp_path / 'o.yml', mixed(criacl_options(images)))
    path.write_text(path.read_text().replace('lr: 0.001', 'lr: !!float 1e-3'))
    monkeypatch.setattr(sys, 'argv', ['train.py', '-opt', str(path)])
    logs = []
    log = CriaCLModel.get_current_log
    monkeypatch.setattr(CriaCLModel, 'get_current_log', lambda model: logs.append(log(model)) or logs[-1])
    train_pipeline(str(tmp_path))
    first, last = (
        {name: network_weights(tmp_path, iteration=k, label=name)['params'] for name in ('net_g', 'net_d')}
        for k in (1, 4)
    )
    for name, weights in last.items():
        assert any(not torch.equal(value, first[name][key]) for key, value in weights.items())
    assert {'l_pix', 'l_percep', 'l_g_gan', 'l_align', 'l_unif', 'mask', *CRITERIA_OF_BOTH_VIEWS} <= logs[-1].keys()
    assert 'psnr' in log_text(tmp_path / 'experiments/run')


@pytest.mark.parametrize(('change', 'message'), [
    (lambda o: o.update(network_g=dict(TINY_EDSR)), 'needs a network of two views'),
    (lambda o: o['train'].pop('gan_opt'), 'train.gan_opt: expected a block'),
])  # fmt: skip
def test_refused_under_the_stock_command(images, tmp_path, change, message):
    """Which checks nothing before: the model does when it is built."""
    options = criacl_options(images)
    change(options)
    with pytest.raises(UserError, match=message):
        built(options, tmp_path)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda o: o.update(network_g=dict(TINY_EDSR)), 'needs a network of two views'),
        (lambda o: o.pop('network_d'), 'network_d: expected a block'),
        (lambda o: o['train'].pop('optim_d'), 'train.optim_d: expected a block'),
        (
            lambda o: o['train'].pop('gan_opt'),
            'train.gan_opt: expected a block, since train.cria_opt measures the criterion adv',
        ),
        (lambda o: o['train'].update(cria_opt={'type': 'L1Loss'}), 'train.cria_opt.type: expected CriaLoss'),
        (
            lambda o: o['train'].update(pixel_opt={'type': 'CriaLoss', 'positives': ['ssim'], 'negatives': ['ssim']}),
            'train.pixel_opt.type: expected a loss of two images; CriaLoss belongs into train.cria_opt',
        ),
        (lambda o: o['train']['cria_opt'].update(positives=['pix']), 'pix is the anchor'),
        (lambda o: o['train']['cria_opt'].update(t=0), 't of CriaLoss: expected a number above 0'),
        (lambda o: mixed(o)['datasets']['train']['sources'].update({'a/b': {}}), 'datasets.train.sources'),
        (lambda o: o['train']['cria_opt'].update(anchr='pix'), 'anchor'),
        (lambda o: o['train']['gan_opt'].update(gan_type='hinge'), 'cria_opt.gan_type: expected that of train.gan_opt'),
    ],
)
def test_refused_options(images, tmp_path, capfd, change, message):
    options = criacl_options(images)
    change(options)
    assert forked(run, tmp_path, write_options(tmp_path / 'o.yml', options)) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / 'experiments').exists()


def test_names_are_plain_and_hide_nothing_of_basicsr():
    """Neither the classes of Cria-CL nor another one of the package."""
    from basicsr.utils import registry

    found = {}
    for kind in ('ARCH', 'DATASET', 'LOSS', 'METRIC', 'MODEL'):
        for name, value in getattr(registry, f'{kind}_REGISTRY'):
            owner = 'ours' if value.__module__.startswith('basicsr_ext.') else 'stock'
            found.setdefault((kind, owner), set()).add(name.removesuffix('_basicsr'))
    for kind, name in (('ARCH', 'CriaCLNet'), ('LOSS', 'CriaLoss'), ('LOSS', 'FeatureLoss')):
        assert name in found[kind, 'ours']
    assert 'CriaCLModel' in found['MODEL', 'ours'] and 'MixedStoreDataset' in found['DATASET', 'ours']
    for kind in ('ARCH', 'DATASET', 'LOSS', 'METRIC', 'MODEL'):
        assert not found[kind, 'ours'] & found[kind, 'stock']
