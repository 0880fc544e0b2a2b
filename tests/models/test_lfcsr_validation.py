"""Validation of both stages: scores, pictures, records of the best, and how far the stages are apart."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
import os

import pytest
import torch
from lfcsr_runs import built, lfcsr_options, make_images, train
from run_helpers import forked, log_text, write_options

from basicsr_ext.cli.main import main
from basicsr_ext.functional.wavelet import gaussian_low, haar_high, haar_low
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    return make_images(tmp_path_factory.mktemp('lfcsr'), photos)


@pytest.mark.parametrize('order', ['op', 'po'])
def test_validation_reports_both_stages(images, tmp_path, order):
    """In metrics.jsonl, the record of the best and the log; then in a test's tables, with the pictures of both."""
    other = f'_{order[0]}'
    options = lfcsr_options(images, order)
    options['val']['metrics']['ssim'] = {'type': 'calculate_ssim', 'crop_border': 2, 'test_y_channel': True}
    options['val']['val_freq'] = 4
    assert train(tmp_path, options) == 0
    lines = [x for x in read_metrics(tmp_path / 'experiments/run/metrics.jsonl') if x['event'] == 'validation']
    names = {'psnr', 'ssim', f'psnr{other}', f'ssim{other}', 'll_difference'}
    names |= {'high_difference'} if order == 'po' else set()
    assert [set(line['metrics']) for line in lines] == [names] * 2 and set(lines[1]['best']) == names
    least = min(lines, key=lambda line: line['metrics']['ll_difference'])
    assert lines[1]['best']['ll_difference'] == {
        'value': least['metrics']['ll_difference'],
        'iteration': least['iteration'],
    }
    assert f'# psnr{other}: ' in log_text(tmp_path / 'experiments/run')

    test = {key: options[key] for key in ('name', 'model_type', 'scale', 'num_gpu', 'network_g')}
    test['datasets'] = {'test': {**options['datasets']['val'], 'name': 'photos'}}
    test['path'] = {
        'pretrain_network_g': str(tmp_path / 'experiments/run/models/net_g_5.pth'),
        'param_key_g': 'params_ema',
    }
    test['val'] = {'save_img': True, 'suffix': None, 'metrics': options['val']['metrics']}
    path = write_options(tmp_path / 'test.yml', test)
    assert forked(lambda: (os.chdir(tmp_path), main(['test', '-opt', str(path)]))[1]) == 0
    (table,) = json.loads((tmp_path / 'results/run/metrics.json').read_text())['results']
    assert table['mean'] == pytest.approx(lines[1]['metrics'], rel=1e-5)
    assert all(set(scores) == names for scores in table['images'].values())
    pictures = tmp_path / 'results/run/visualization'
    assert sorted(p.name for p in pictures.iterdir()) == ['photos', f'photos{other}']
    assert [len(list(folder.iterdir())) for folder in pictures.iterdir()] == [5, 5]


class Loader(list):
    dataset = type('Set', (), {'opt': {'name': 'one'}})


def test_scores_are_those_of_each_stages_image(images, tmp_path):
    """By hand, in tiles too: the first stage's image is that of the first stage alone."""
    from basicsr.metrics import calculate_metric
    from basicsr.utils import tensor2img

    batch = {'lq': torch.rand(1, 3, 20, 23), 'gt': torch.rand(1, 3, 40, 46), 'lq_path': ['a.png']}

    for tile in (None, 20):
        options = lfcsr_options(images)
        options['val'].update(tile=tile, overlap=16)
        del options['train']['ema_decay']
        model = built(options, tmp_path)
        model.nondist_validation(Loader([batch]), 1, None, False)
        with torch.no_grad():
            stages = model.net_g(batch['lq'], return_stages=True)
        tolerance = 1e-6 if tile is None else 1e-2
        for name, image in (('psnr', stages.perceptual), ('psnr_o', stages.objective)):
            data = {'img': tensor2img([image]), 'img2': tensor2img([batch['gt']])}
            expected = calculate_metric(data, dict(options['val']['metrics']['psnr']))
            assert model.metric_results[name] == pytest.approx(expected, rel=tolerance)
        gap = (haar_low(stages.perceptual) - haar_low(stages.objective)).abs().mean().item()
        assert model.metric_results['ll_difference'] == pytest.approx(gap, rel=tolerance)
        assert model.net_g.training and model.net_g.stage_p.training


def test_the_difference_is_that_of_images_before_they_are_limited(images, tmp_path):
    """Saving and scoring limits images to [0, 1], the difference of the LL bands does not see it."""
    batch = {'lq': torch.rand(1, 3, 16, 16), 'gt': torch.rand(1, 3, 32, 32), 'lq_path': ['a.png']}
    options = lfcsr_options(images)
    del options['train']['ema_decay']
    model = built(options, tmp_path)
    with torch.no_grad():
        model.net_g.stage_p.mean += 2  # far above 1
        stages = model.net_g(batch['lq'], return_stages=True)
    gap = (haar_low(stages.perceptual) - haar_low(stages.objective)).abs().mean().item()
    limited = (haar_low(stages.perceptual.clamp(0, 1)) - haar_low(stages.objective.clamp(0, 1))).abs().mean().item()
    assert gap > 1.2 * limited
    model.nondist_validation(Loader([batch]), 1, None, False)
    assert model.metric_results['ll_difference'] == pytest.approx(gap, rel=1e-5)


@pytest.mark.parametrize(
    ('order', 'lfcsr', 'name', 'bands'),
    [
        ('op', {}, 'll', haar_low),
        ('op', {'low_frequency': 'gaussian'}, 'gaussian', gaussian_low),
        ('po', {}, 'high', haar_high),
    ],
)
def test_the_bands_that_are_constrained_are_measured(images, tmp_path, order, lfcsr, name, bands):
    """And those of LL in any case; by hand."""
    batch = {'lq': torch.rand(1, 3, 16, 16), 'gt': torch.rand(1, 3, 32, 32), 'lq_path': ['a.png']}
    options = lfcsr_options(images, order, **lfcsr)
    del options['train']['ema_decay']
    model = built(options, tmp_path)
    model.nondist_validation(Loader([batch]), 1, None, False)
    with torch.no_grad():
        both = model.net_g(batch['lq'], return_stages=True)
    for key, function in {'ll': haar_low, name: bands}.items():
        gap = (function(both.perceptual) - function(both.objective)).abs().mean().item()
        assert model.metric_results[f'{key}_difference'] == pytest.approx(gap, rel=1e-5)
    found = {key for key in model.metric_results if key.endswith('_difference')}
    assert found == {'ll_difference', f'{name}_difference'}
    assert model.best_metric_results['one'][f'{name}_difference']['better'] == 'lower'
    assert set(model.scores_of(['psnr'], options)) == {'psnr', f'psnr_{order[0]}', *found}


@pytest.mark.parametrize(('order', 'score'), [('op', 'psnr_o'), ('po', 'psnr_p'), ('op', 'll_difference')])
def test_the_best_of_any_score_may_be_kept(images, tmp_path, order, score):
    """A checkpoint is written where it is the best; only the newest stays besides."""
    options = lfcsr_options(images, order)
    options['val']['val_freq'] = 2
    options['logger'].update(keep_best=score, keep_last=1, save_checkpoint_freq=100)
    assert train(tmp_path, options) == 0
    lines = [x for x in read_metrics(tmp_path / 'experiments/run/metrics.jsonl') if x['event'] == 'validation']
    best = lines[-1]['best'][score]['iteration']
    kept = {int(path.stem) for path in (tmp_path / 'experiments/run/training_states').glob('*.state')}
    assert kept == {best, 5}


def test_the_other_stages_scores_are_named_by_the_order(images, tmp_path, capfd):
    options = lfcsr_options(images)
    options['logger']['keep_best'] = 'psnr_p'
    assert train(tmp_path, options) == 2
    assert (
        'logger.keep_best: expected the name of a score of val.metrics, found psnr_p; did you mean "psnr'
        in capfd.readouterr().err
    )


def test_stages_of_luminance_are_measured_by_what_they_made(images, tmp_path):
    """Colour images through networks of one channel: each stage's score is of its own luminance."""
    options = lfcsr_options(images)
    plain = {'num_in_ch': 1, 'img_range': 1, 'rgb_mean': [0]}
    options['network_g']['stage_o'] = {
        'type': 'SRVGGNetCompact', 'num_in_ch': 1, 'num_out_ch': 1, 'num_feat': 4, 'num_conv': 1, 'upscale': 2,
    }  # fmt: skip
    options['network_g']['stage_p'].update(plain)
    model = built(options, tmp_path)
    model.feed_data({'lq': torch.rand(1, 3, 12, 12)})
    model.test()
    final, first = model.results
    assert final.images.shape == first.images.shape == (1, 3, 24, 24)
    assert final.luminance.shape == first.luminance.shape == (1, 1, 24, 24)
    assert not torch.equal(final.luminance, first.luminance)
    assert model.output_luminance is final.luminance
