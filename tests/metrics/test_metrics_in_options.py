"""This package's metrics as val.metrics of a run."""

import sys
from types import SimpleNamespace

import pytest
import torch
from run_helpers import TINY_EDSR, sr_options, write_pairs

import basicsr_ext

basicsr_ext.register()

import torchvision
from basicsr.archs import build_network

from basicsr_ext.checking import check_options
from basicsr_ext.metrics.nrqm_metric import build_nrqm
from basicsr_ext.options.source import read_source
from basicsr_ext.trainer.metrics_log import read_metrics

PSNR = {'type': 'PSNR', 'crop_border': 2, 'test_y_channel': True}


@pytest.fixture
def images(tmp_path, photos):
    write_pairs(tmp_path, photos, size=96)
    return tmp_path


def check(images, metric, rehearse=False):
    """The metric's problems."""
    options = sr_options(images)
    options['val']['metrics'] = {'m': metric}
    report = check_options(read_source(options), is_train=True, root=images, rehearse=rehearse)
    return [str(problem) for problem in report.problems]


@pytest.mark.parametrize(
    'metric', [PSNR, {**PSNR, 'type': 'SSIM'}, {'type': 'NIQE', 'crop_border': 0, 'better': 'lower'}]
)
def test_known_options(images, metric):
    assert check(images, metric) == []


@pytest.mark.parametrize(
    ('metric', 'problem'),
    [
        ({'type': 'PSNR'}, 'val.metrics.m.crop_border: this option is required by PSNR, and is missing'),
        ({**PSNR, 'test_y': True}, 'val.metrics.m.test_y: unknown option of PSNR; did you mean "test_y_channel"?'),
        (
            {**PSNR, 'crop_border': -1},
            'val.metrics.m: crop_border: expected a whole number of pixels from 0 on, found -1.',
        ),
        ({**PSNR, 'input_order': 'HW'}, "val.metrics.m.input_order: expected one of HWC, CHW, found 'HW'."),
        ({**PSNR, 'better': 'lower'}, 'val.metrics.m.better: PSNR is better when higher: set better: higher.'),
        ({'type': 'NIQE'}, 'val.metrics.m.better: NIQE is better when lower: set better: lower.'),
        ({'type': 'LPIPS', 'net': 'vgg19', 'better': 'lower'}, 'val.metrics.m.net: expected one of alex, vgg, squeeze'),
        (
            {'type': 'LPIPS', 'backbone_path': '/nowhere.pth', 'better': 'lower'},
            'val.metrics.m: Weights: expected a file at /nowhere.pth, found none.',
        ),
    ],
)
def test_mistakes_are_found_before_training(images, metric, problem):
    if metric['type'] == 'LPIPS':
        pytest.importorskip('lpips', reason='needs the extra metrics')
    found = check(images, metric)
    assert len(found) == 1 and found[0].startswith(problem)


def test_the_rehearsal_runs_them(images):
    """NIQE takes no image of 96x96 pixels, which shows only when it runs."""
    assert check(images, PSNR, rehearse=True) == []
    found = check(images, {'type': 'NIQE', 'better': 'lower'}, rehearse=True)
    assert len(found) == 1 and 'NIQE needs at least two blocks' in found[0]


def test_a_run_validates_with_them(images, bench_dir):
    pytest.importorskip('lpips', reason='needs the extra metrics')
    options = sr_options(images)
    options['train']['total_iter'] = options['val']['val_freq'] = 1
    options['val']['metrics'] = {
        'psnr': PSNR,
        'stock': {**PSNR, 'type': 'calculate_psnr'},
        'lpips': {
            'type': 'LPIPS',
            'net': 'squeeze',
            'backbone_path': str(bench_dir / 'weights' / 'lpips' / 'squeeze.backbone.pth'),
            'better': 'lower',
        },
    }
    basicsr_ext.train(options, root=images)
    lines = read_metrics(images / 'experiments' / 'run' / 'metrics.jsonl')
    (metrics,) = (line['metrics'] for line in lines if line['event'] == 'validation')
    assert metrics['psnr'] == pytest.approx(metrics['stock'], abs=1e-4)
    assert 0 < metrics['lpips'] < 1


def test_a_test_measures_with_every_other(images, tmp_path, photos, monkeypatch):
    """DISTS and NRQM of weights that say nothing; pyiqa is stood in for."""
    pytest.importorskip('torchmetrics', reason='needs the extra metrics')
    made = SimpleNamespace(create_metric=lambda name, **_: lambda image: 10 * image.mean())
    monkeypatch.setitem(sys.modules, 'pyiqa', made)
    build_nrqm.cache_clear()
    write_pairs(tmp_path / 'large', {'coffee': photos['coffee']}, size=192)  # NIQE takes two blocks of 96x96 pixels
    torch.save({key: torch.zeros(shape) for key, shape in vgg_shapes().items()}, tmp_path / 'vgg.pth')
    torch.save({'params': build_network(dict(TINY_EDSR)).state_dict()}, tmp_path / 'g.pth')
    (tmp_path / 'model.mat').touch()
    options = sr_options(tmp_path / 'large')
    options['datasets'] = {'test': options['datasets']['val']}
    options['path'] = {'pretrain_network_g': f'{tmp_path}/g.pth'}
    model = {'model_path': f'{tmp_path}/model.mat'}
    options['val']['metrics'] = {
        'ssim': {**PSNR, 'type': 'SSIM'},
        'dists': {'type': 'DISTS', 'backbone_path': f'{tmp_path}/vgg.pth', 'better': 'lower'},
        'niqe': {'type': 'NIQE', 'crop_border': 0, 'better': 'lower'},
        'nrqm': {'type': 'NRQM', **model},
        'pi': {'type': 'PI', **model, 'better': 'lower'},
    }
    (result,) = basicsr_ext.test(options, root=tmp_path)
    scores = result.mean
    build_nrqm.cache_clear()
    assert 0 < scores['ssim'] < 1 and 0 <= scores['dists'] < 1 and 0 < scores['nrqm'] < 10
    assert scores['pi'] == pytest.approx(((10 - scores['nrqm']) + scores['niqe']) / 2)


def vgg_shapes() -> dict[str, torch.Size]:
    with torch.device('meta'):
        return {key: value.shape for key, value in torchvision.models.vgg16().features.state_dict().items()}
