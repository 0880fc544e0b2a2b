"""One step of two ranks with a batch of 2 is one of a single rank with 4: means and sums, weights and logged values."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from run_helpers import (
    assert_same_weights,
    eco_options,
    gan_options,
    network_weights,
    on_ranks,
    sr_options,
    write_centroids,
    write_options,
    write_pairs,
)

from basicsr_ext.cli.main import main
from basicsr_ext.distributed import sum_over_ranks
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = tmp_path_factory.mktemp('images')
    write_pairs(root, photos)
    write_centroids(root)
    return root


def options_of(images, model: str) -> dict:
    if model == 'ESRGANModel':
        options = gan_options(images)
        options['train']['optim_d'] = {
            'type': 'SGD',
            'lr': 0.0,
        }  # a batch norm of its own on each rank is not looked at
    else:
        options = eco_options(images) if model == 'ECOModel' else sr_options(images, model_type=model)
    options['train'].update(total_iter=1, optim_g={'type': 'SGD', 'lr': 1e-6})
    options['val'] = None
    return options


def _train(root: str, *arguments: str) -> None:
    import os

    os.chdir(root)
    torch.set_num_threads(1)
    assert main(['train', *arguments]) == 0


LOSSES = {
    'sum': {'type': 'MSELoss', 'reduction': 'sum'},
    'pspl': {'type': 'PSPLLoss', 'reduction': 'sum', 'beta': 3},
    'mean': {'type': 'L1Loss', 'loss_weight': 1e3},
}


@pytest.mark.parametrize(
    ('model', 'loss'),
    [('TrainingModel', 'sum'), ('TrainingModel', 'mean'), ('SRModel', 'sum'), ('SRModel', 'pspl'), ('ECOModel', 'pspl'),
     ('ESRGANModel', 'sum')],
)  # fmt: skip
def test_two_ranks_take_the_step_of_one(images, tmp_path, model, loss):
    found = {}
    for ranks in (1, 2):
        options = options_of(images, model)
        options['train']['pixel_opt'] = LOSSES[loss]
        options['datasets']['train']['batch_size_per_gpu'] = 4 // ranks
        root = tmp_path / str(ranks)
        root.mkdir()
        path = str(write_options(root / 'o.yml', options))
        on_ranks(ranks, _train, str(root), '-opt', path, *(['--launcher', 'pytorch'] if ranks > 1 else []))
        line = read_metrics(root / 'experiments/run/metrics.jsonl')[0]
        found[ranks] = (
            network_weights(root, iteration=1),
            next(line[key] for key in ('l_pix', 'l_g_pix') if key in line),
        )
    assert found[2][1] == pytest.approx(found[1][1], rel=1e-4)
    assert_same_weights(found[1][0], found[2][0], tolerance=2e-7)


def test_only_sums_are_multiplied():
    for reduction, expected in (('sum', 12.0), ('mean', 1.0), ('none', 1.0)):
        loss = torch.nn.L1Loss(reduction=reduction)
        sum_over_ranks(loss, 3)
        assert loss(torch.ones(4), torch.zeros(4)).max() == expected
    alone = torch.nn.L1Loss(reduction='sum')
    sum_over_ranks(alone, 1)
    assert alone(torch.ones(4), torch.zeros(4)) == 4


@pytest.mark.parametrize(('ranks', 'normalised', 'said'), [(2, True, True), (1, True, False), (2, False, False)])
def test_batch_normalisation_on_ranks_is_told(tmp_path, capfd, ranks, normalised, said):
    from types import SimpleNamespace

    from basicsr_ext.trainer.session import Run

    session = Run(sr_options(tmp_path), is_train=True, root=tmp_path)
    session.opt['world_size'] = ranks
    layers = [torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)] if normalised else [torch.nn.Conv2d(3, 3, 1)]
    session._warn_of_batch_norm(SimpleNamespace(net_g=torch.nn.Conv2d(3, 3, 1), net_d=torch.nn.Sequential(*layers)))
    assert ('net_d: batch normalisation takes the statistics' in capfd.readouterr().err) == said
