"""bench/results: arms differ in what they compare and in nothing else; scores are the package's; the page shows them."""

from __future__ import annotations

import copy
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / 'bench/results'


@pytest.fixture(scope='module')
def scripts():
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ('study', 'eco', 'pspl', 'ail', 'published', 'page')}
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope='module')
def settings(scripts):
    return scripts['study'].Settings(Path('root'), Path('bench'), 'cpu', 3000, 5, 1)


def options_by_arm(runs, seed=0):
    return {run.arm: copy.deepcopy(run.options) for run in runs if run.seed == seed}


@pytest.mark.parametrize('name', ['eco', 'pspl', 'ail'])
def test_names_are_all_different_and_seeds_come_one_after_the_other(scripts, settings, name):
    module = scripts[name]
    runs = module.runs(settings)
    assert len({run.name for run in runs}) == len(runs) and not any(' ' in run.name for run in runs)
    usual = [run for run in runs if 'long' not in run.arm and run.arm != 'teacher']
    assert [run.seed for run in usual] == sorted(run.seed for run in usual)
    assert all(run.options['manual_seed'] == run.seed for run in runs)


@pytest.mark.parametrize(('name', 'count'), [('eco', 1 + 5 * 4 + 3 * 3 + 5), ('pspl', 5 * 5), ('ail', 5 * 5)])
def test_planned_comparisons_are_of_arms_that_are_trained(scripts, settings, name, count):
    runs, page = scripts[name].runs(settings), scripts['page']
    assert len(runs) == count
    arms = {run.arm for run in runs}
    assert {arm for pair in page.PLANNED[name] for arm in pair} <= arms
    assert {arm for control, others in page.DRAWN[name] for arm in (control, *others)} <= arms


def test_published_weights_are_compared_where_they_are(scripts, settings, tmp_path):
    published, here = scripts['published'], settings._replace(bench=tmp_path)
    assert published.runs(here) == []
    (tmp_path / 'weights').mkdir()
    for file, _ in published.WEIGHTS.values():
        for scale in published.SCALES:
            (tmp_path / 'weights' / file.format(scale=scale)).touch()
    arms = {run.arm for run in published.runs(here)}
    assert arms == {arm for pair in scripts['page'].PLANNED['published'] for arm in pair}


@pytest.mark.parametrize('name', ['eco', 'pspl', 'ail'])
def test_every_learning_rate_goes_to_0(scripts, settings, name):
    for run in scripts[name].runs(settings):
        train = run.options['train']
        length = train.get('ail', {}).get('round_iterations', train['total_iter'])
        assert train['scheduler'] == {'type': 'CosineAnnealingLR', 'T_max': length, 'eta_min': 0}
        assert train['total_iter'] % length == 0


def test_ecos_arms_differ_in_the_objective_alone(scripts, settings):
    arms = options_by_arm(scripts['eco'].runs(settings))
    for batch in (4, 16):
        vanilla, eco, kd = (arms[f'batch {batch}, {objective}'] for objective in ('vanilla', 'eco', 'kd'))
        assert [arm['train'].pop('eco')['objective'] for arm in (vanilla, eco, kd)] == ['vanilla', 'eco', 'kd']
        for options in (eco, kd):
            block = options['datasets']['train']
            assert block.pop('dataroot_centroid') and block.pop('dataroot_centroid_lq')
            assert block.pop('type') == 'PairedCentroidDataset'
        del vanilla['datasets']['train']['type']
        assert len({options.pop('name') for options in (vanilla, eco, kd)}) == 3
        assert vanilla == eco == kd
        assert vanilla['datasets']['train']['batch_size_per_gpu'] == batch


def test_arms_with_and_without_centroids_see_the_same_patches(scripts, settings, tmp_path, photos, monkeypatch):
    import basicsr_ext

    basicsr_ext.register()
    from basicsr.data import build_dataset

    from basicsr_ext.data.sample_id import SampleId

    monkeypatch.chdir(tmp_path)
    for name in ('train_HR', 'train_LRx4', 'centroid', 'centroid_LRx4'):
        step = 4 if name.endswith('LRx4') else 1
        for key in ('astronaut', 'coffee'):
            file = tmp_path / f'datasets/{name}/{key}.png'
            file.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(file), photos[key][:200:step, :200:step])
    blocks = [options['datasets']['train'] for options in options_by_arm(scripts['eco'].runs(settings)).values()]
    samples = []
    for block in blocks[:4]:
        folders = {key: value.replace('.lmdb', '') for key, value in block.items() if key.startswith('dataroot')}
        dataset = build_dataset({**block, **folders, 'phase': 'train', 'scale': 4})
        samples.append([dataset[SampleId(number % 2, 0, number, 1, 7)] for number in range(6)])
    assert len(samples) == 4
    for others in samples[1:]:
        for sample, other in zip(samples[0], others, strict=True):
            assert sample['gt_path'] == other['gt_path']
            assert all(np.array_equal(sample[name], other[name]) for name in ('lq', 'gt'))


def test_only_what_needs_centroids_waits_for_the_teacher(scripts, settings):
    for run in scripts['eco'].runs(settings):
        assert (run.after == 'eco_teacher') == any(name in run.name for name in ('_eco_', '_kd_', '_noise_free_'))


def test_pspls_arms_differ_in_the_loss_alone(scripts, settings):
    arms = options_by_arm(scripts['pspl'].runs(settings))
    losses = {arm: options['train'].pop('pixel_opt') for arm, options in arms.items()}
    plain, *others = arms.values()
    for options in arms.values():
        del options['name']
    assert all(options == plain for options in others)
    assert {loss['loss_weight'] for loss in losses.values()} == {255.0}
    assert (losses['PSPL']['step_iters'], losses['PSPL, slow']['step_iters']) == (10, 1000)
    assert losses['plain, late']['start'] == 215
    assert (losses['no fading']['alpha'], losses['no fading']['beta']) == (0.0, 1.0)


def test_the_late_loss_begins_at_its_iteration(scripts):
    import torch

    import basicsr_ext

    basicsr_ext.register()
    from basicsr.utils.registry import LOSS_REGISTRY

    scripts['pspl'].register()
    loss = LOSS_REGISTRY.get('LateL1Loss')(start=3, loss_weight=2.0)
    values = []
    for iteration in (1, 2, 3, 4):
        loss.set_iteration(iteration)
        values.append(float(loss(torch.zeros(2), torch.ones(2))))
    assert values == [0, 0, 2, 2]


def test_ails_controls_have_its_restarts(scripts, settings):
    arms = options_by_arm(scripts['ail'].runs(settings))
    ones, ail, plain, l1 = (arms[name] for name in ('ones', 'AIL', 'plain', 'L1'))
    assert ones['train']['ail'] == {
        'rounds': 3, 'round_iterations': 750, 'step': 1 / 3, 'form': 'direct', 'initialization': 'ones'
    }  # fmt: skip
    assert l1['train'].pop('pixel_opt')['type'] == 'L1Loss'
    assert {arm['train'].pop('pixel_opt')['type'] for arm in (ones, ail, plain)} == {'MSELoss'}
    assert ail['datasets']['train'].pop('geometry') and not ones['datasets']['train'].pop('geometry')
    for options in (ones, ail, plain, l1):
        del options['name']
        options['train'].pop('ail', None)
        options['datasets']['train'].pop('geometry', None)
    assert ones == ail == l1
    del plain['model_type'], ones['model_type'], plain['train']['scheduler'], ones['train']['scheduler']
    assert plain == ones


def test_scores_are_those_of_the_package(scripts, photos):
    import torch

    from basicsr_ext.functional.luminance import luminance
    from basicsr_ext.functional.psnr import psnr
    from basicsr_ext.functional.ssim import ssim

    study = scripts['study']
    image = photos['chelsea'][:90, :120]
    noise = np.random.default_rng(0).integers(-20, 20, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    tensors = [torch.from_numpy(array.transpose(2, 0, 1).copy())[None] for array in (noisy, image)]
    (found,) = study.score(lambda x: x, [('chelsea', *tensors)], 4, with_ssim=True).values()
    inside = (slice(4, -4), slice(4, -4))
    pair = [luminance(array)[inside] for array in (noisy, image)]
    assert found == {'psnr': pytest.approx(psnr(*pair), abs=6e-5), 'ssim': pytest.approx(ssim(*pair), abs=6e-6)}

    planes = [torch.from_numpy(luminance(array).astype(np.float32) / 255)[None, None] for array in (noisy, image)]
    (of_luminance,) = study.score(lambda x: x, [('chelsea', *planes)], 4, with_ssim=True).values()
    assert of_luminance == {
        'psnr': pytest.approx(found['psnr'], abs=1e-3),
        'ssim': pytest.approx(found['ssim'], abs=1e-4),
    }


@pytest.fixture(scope='module')
def tiny_bench(tmp_path_factory, photos):
    """Three images to train on, two sets of two to test on."""
    bench = tmp_path_factory.mktemp('bench')
    crops = {
        'train/T91/a.png': photos['astronaut'][:110, :120],
        'train/T91/small.png': photos['astronaut'][:80, :120],
        'train/BSDS500_train/b.jpg': photos['coffee'][100:210, 100:230],
        'Set14/HR/c.png': photos['chelsea'][100:161, 100:165],
        'Set5/d.png': photos['rocket'][200:260, 300:360],
        'Set5/e.png': photos['chelsea'][60:120, 60:120],
    }
    for name, crop in crops.items():
        (bench / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(bench / name), crop[..., ::-1])
    return bench


@pytest.fixture(scope='module')
def trained(tiny_bench, tmp_path_factory):
    """AIL's experiment, 20 iterations in two processes side by side, with a teacher of random weights."""
    import torch

    import basicsr_ext

    basicsr_ext.register()
    from basicsr.archs import build_network

    (tiny_bench / 'weights').mkdir()
    teacher = build_network({'type': 'VDSR', 'num_feat': 64, 'upscale': 2})
    torch.save({'params': teacher.state_dict()}, tiny_bench / 'weights/ail_tea_vdsr.pth')
    root = tmp_path_factory.mktemp('root')
    return root, command(tiny_bench, root)


def command(bench, root, *arguments):
    environment = {**os.environ, 'BASICSR_EXT_BENCH_DIR': str(bench), 'OMP_NUM_THREADS': '1'}
    script = [sys.executable, FOLDER / 'ail.py', '--root', root, '--seeds', '1', '--iterations', '20', '--jobs', '2']
    return subprocess.run([*script, *arguments], env=environment, capture_output=True, text=True, timeout=100)


def test_an_experiment_writes_a_file_for_each_run(trained):
    root, result = trained
    assert result.returncode == 0, result.stderr
    files = {file.stem: json.loads(file.read_text()) for file in (root / 'json/ail').glob('ail*.json')}
    assert len(files) == 5
    for run in files.values():
        assert {name: list(images) for name, images in run['scores'].items()} == {'Set14': ['c'], 'Set5': ['d', 'e']}
        length = run['options']['train']['total_iter']
        assert [int(mark) for mark in run['marks']] == [length // 10, length // 4, length // 2, length]
        last = run['marks'][str(length)]
        assert last['Set14'] == [run['scores']['Set14']['c']['psnr']] == run['curve']['psnr'][-1:]
        assert len(run['curve']['psnr']) == 20 and run['device'] == 'CPU' and run['versions']['torch']
        assert str(root) not in json.dumps(run)
    assert len({json.dumps(run['scores']) for run in files.values()}) == 5
    images = json.loads((root / 'json/ail/images.json').read_text())
    assert list(images['train']['T91']) == ['a.png'] and list(images['train']['BSDS500_train']) == ['b.jpg']


def test_what_is_done_is_not_done_again_and_other_options_are_refused(trained, tiny_bench):
    root, _ = trained
    file = root / 'json/ail/ail_plain_seed0.json'
    before = file.stat().st_mtime_ns
    result = command(tiny_bench, root)
    assert (result.returncode, file.stat().st_mtime_ns) == (0, before) and '5 done before' in result.stdout
    result = command(tiny_bench, root, '--iterations', '40')
    assert result.returncode == 2 and 'other options' in result.stderr


def test_no_run_begins_when_the_time_is_over(trained, tiny_bench, tmp_path):
    result = command(tiny_bench, tmp_path, '--minutes', '0')
    assert result.returncode == 0 and '0 of 5 runs are done' in result.stdout


def test_the_page_has_tables_and_a_picture_and_keeps_the_text(scripts, trained, tmp_path):
    root, _ = trained
    page, readme = scripts['page'], tmp_path / 'README.md'
    alarms = FOLDER / 'json/false_alarms.json'
    (root / 'json/false_alarms.json').write_bytes(alarms.read_bytes())
    arguments = ['--json', str(root / 'json'), '--docs', str(tmp_path)]
    assert page.main(arguments) == 0
    text = readme.read_text()
    assert '| 5 x 134, seeds |' in text
    assert '| AIL - ones | 1 x 1 |' in text and 'trial' in text and (tmp_path / 'ail.png').stat().st_size > 5000
    readme.write_text(text.replace('# Results', '# Results\n\nBefore.') + '\nAfter.\n')
    assert page.main(arguments) == 0
    again = readme.read_text()
    assert 'Before.' in again and again.endswith('After.\n') and again.count('| AIL - ones |') == 1


def test_runs_on_different_images_are_not_compared(scripts, trained, tmp_path):
    for number, images in enumerate(('one', 'other')):
        run = {'arm': f'{number}', 'seed': 0, 'images': images, 'device': 'CPU', 'versions': {}}
        (tmp_path / f'{number}.json').write_text(json.dumps(run))
    with pytest.raises(scripts['page'].UserError, match='different images'):
        scripts['page'].read_runs(tmp_path)


def test_a_rise_is_measured_above_bicubic_and_interpolated(scripts):
    control = {'curve': {'bicubic': 20.0, 'iterations': [10, 20, 30], 'psnr': [18.0, 25.0, 30.0]}}
    reached = [scripts['page'].iteration_of_rise(control, control, part) for part in (0.3, 0.5, 0.9, 1.1)]
    assert reached == [pytest.approx(10 + 5 / 7 * 10), 20.0, pytest.approx(28.0), None]
