"""`basicsr test` as users run it: several sets and checkpoints, tables, tiles, luminance networks, ranks."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from run_helpers import TINY_EDSR, log_text, on_ranks, sr_options, write_images, write_options, write_pairs

import basicsr_ext
from basicsr_ext.cli.main import main
from basicsr_ext.trainer import run

basicsr_ext.register()

SWINIR = {'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 8, 'window_size': 4, 'img_range': 1.0, 'depths': [2],
          'embed_dim': 8, 'num_heads': [2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect',
          'resi_connection': '1conv'}  # fmt: skip


def save_network(path: Path, network: dict, seed: int = 0, **more) -> dict:
    """Writes random weights of a network, and returns them."""
    from basicsr.archs import build_network

    torch.manual_seed(seed)
    weights = build_network(dict(network)).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'params': weights, **more}, path)
    return weights


def scored_options(root: Path, model_type: str = 'SRModel', **val) -> dict:
    options = sr_options(root, name='scored', model_type=model_type)
    data = options['datasets']['val']
    options['datasets'] = {'test_1': {**data, 'name': 'First'}, 'test_2': {**data, 'name': 'Second'}}
    options['path'] = {'pretrain_network_g': 'a.pth', 'strict_load_g': True}
    metric = {'crop_border': 2, 'test_y_channel': True}
    metrics = {'psnr': {'type': 'calculate_psnr', **metric}, 'ssim': {'type': 'calculate_ssim', **metric}}
    options['val'] = {'save_img': False, 'suffix': None, 'metrics': metrics, **val}
    for key in ('train', 'logger'):
        options.pop(key)
    return options


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    """Working directory with image pairs and two checkpoints."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    save_network(tmp_path / 'a.pth', TINY_EDSR, 0)
    save_network(tmp_path / 'b.pth', TINY_EDSR, 1)
    return tmp_path


def run_test(root: Path, options: dict, *arguments: str) -> None:
    assert main(['test', '-opt', str(write_options(root / 't.yml', options)), *arguments]) == 0


def results(folder: Path) -> dict:
    """(set, checkpoint) -> image -> metric -> value, from metrics.json."""
    content = json.loads((folder / 'metrics.json').read_text())
    return {(r['dataset'], r['method']): r['images'] for r in content['results']}


def test_scores_of_every_image_are_those_of_basicsr(root, capsys, photos):
    from basicsr.archs import build_network
    from basicsr.metrics import calculate_psnr
    from basicsr.utils import img2tensor, tensor2img

    run_test(root, scored_options(root, save_img=True))
    folder = root / 'results/scored'
    found = results(folder)
    assert list(found) == [('First', 'a'), ('Second', 'a')]
    assert list(found['First', 'a']) == sorted(photos)
    network = build_network(TINY_EDSR)
    network.load_state_dict(torch.load('a.pth')['params'])
    for key, scores in found['First', 'a'].items():
        lq, gt = (cv2.imread(str(root / f'{kind}/{key}.png')) for kind in ('lr', 'hr'))
        with torch.no_grad():
            output = tensor2img(network(img2tensor(lq / np.float32(255))[None]))
        assert scores['psnr'] == pytest.approx(calculate_psnr(output, gt, 2, test_y_channel=True), abs=1e-3)
        assert 0 < scores['ssim'] < 1
        saved = cv2.imread(str(folder / f'visualization/First/{key}_scored.png'))
        assert np.abs(saved.astype(int) - output).max() <= 1
    text = capsys.readouterr().out
    for line in ('First: a', 'Second: a', 'First (mean)', *photos):
        assert line in text
    mean = np.mean([scores['psnr'] for scores in found['First', 'a'].values()])
    assert f'{mean:.4f}' in text and f'{mean:.4f}' in (folder / 'metrics.md').read_text()
    rows = list(csv.DictReader((folder / 'metrics.csv').open()))
    assert len(rows) == 2 * (len(photos) + 1) and float(rows[len(photos)]['psnr']) == pytest.approx(mean)


def test_several_checkpoints(root):
    save_network(root / 'other/models/a.pth', TINY_EDSR, 2)
    (root / 'results/scored').mkdir(parents=True)
    run_test(root, scored_options(root, save_img=True), '--weights', 'a.pth', 'b.pth', 'other/models/a.pth')
    folder = root / 'results/scored'
    labels = [f'{root.parent.name}_a', 'b', 'other_a']
    assert list(results(folder)) == [(name, label) for label in labels for name in ('First', 'Second')]
    for label in labels:
        pictures = list((folder / label / 'visualization').rglob('*.png'))
        assert len(pictures) == 10 and all(picture.stem.endswith(f'_{label}') for picture in pictures)
        assert {key[1] for key in results(folder / label)} == {label}
    scores = [results(folder)['First', label]['coffee']['psnr'] for label in labels]
    assert len(set(scores)) == 3
    run_test(root, scored_options(root, save_img=True, suffix='own'), '--weights', 'b.pth')  # joins the others
    assert (folder / 'b/visualization/First/coffee_own.png').is_file()
    assert results(folder / 'b')['First', 'b']['coffee']['psnr'] == pytest.approx(scores[1])
    assert (folder / 'other_a').is_dir() and len(list(folder.glob('b_archived_*'))) == 1  # its former self


@pytest.mark.parametrize('keys', [('x/coffee', 'y/coffee'), ('v1.2', 'v1.3')])
def test_images_that_would_be_saved_as_one_file_are_named(root, photos, keys, capsys):
    for key in keys:
        for folder in ('hr', 'lr'):
            (root / 'sets' / folder / key).parent.mkdir(parents=True, exist_ok=True)
            (root / f'sets/{folder}/{key}.png').write_bytes((root / f'{folder}/coffee.png').read_bytes())
    options = scored_options(root, save_img=True)
    data = {'name': 'Two', 'type': 'PairedStoreDataset', 'dataroot_gt': 'sets/hr', 'dataroot_lq': 'sets/lr'}
    options['datasets'] = {'test_1': data}
    assert main(['test', '-opt', str(write_options(root / 't.yml', options))]) == 2
    images = ' and '.join(f'"{key}" of datasets.test_1' for key in keys)
    assert f'val.save_img: images {images} would be saved as one file, "' in capsys.readouterr().err
    options['val']['save_img'] = False
    run_test(root, options)
    assert list(results(root / 'results/scored')['Two', 'a']) == list(keys)


def test_sets_of_one_name_cannot_save_equally_named_images(root, capsys):
    options = scored_options(root, save_img=True)
    for data in options['datasets'].values():
        data['name'] = 'One'
    assert main(['test', '-opt', str(write_options(root / 't.yml', options))]) == 2
    assert 'Rename them, give datasets a name each, or set false.' in capsys.readouterr().err
    assert not (root / 'results').exists()


@pytest.mark.parametrize('model_type', ['SRModel', 'ECOModel'])
def test_tiles_ensemble_and_precision_in_validation(root, model_type):
    def psnr(**val) -> float:
        options = {**scored_options(root, model_type, **val), 'name': f'scored_{len(val)}{"".join(val)}'}
        return basicsr_ext.test(options, root=root)[0].mean['psnr']

    whole = psnr()
    assert psnr(tile=14, overlap=12) == pytest.approx(whole, abs=1e-3)
    assert abs(psnr(overlap=0, tile=8) - whole) > 1e-4
    assert abs(psnr(self_ensemble=True) - whole) > 1e-4
    assert 0 < abs(psnr(precision='bf16') - whole) < 0.5


@pytest.mark.parametrize('model_type', ['SwinIRModel', 'ECOModel'])
def test_tiles_of_networks_with_windows(root, model_type):
    save_network(root / 'a.pth', SWINIR)
    options = scored_options(root, model_type)
    options['network_g'] = SWINIR
    whole = basicsr_ext.test(options, root=root)[0].mean['psnr']
    options['name'] = 'tiled'
    options['val'].update(tile=18, overlap=16)
    assert basicsr_ext.test(options, root=root)[0].mean['psnr'] == pytest.approx(whole, abs=0.02)


@pytest.mark.parametrize('model_type', ['SRModel', 'ECOModel'])
def test_a_luminance_network_is_scored_on_what_it_makes(root, photos, model_type):
    from basicsr.archs import build_network

    from basicsr_ext.functional.luminance import luminance
    from basicsr_ext.functional.psnr import psnr

    network_g = {'type': 'VDSR', 'in_channels': 1, 'num_feat': 4, 'num_conv': 3, 'upscale': 2}
    weights = save_network(root / 'a.pth', network_g)
    options = scored_options(root, model_type, save_img=True)
    options['network_g'] = network_g
    scores = basicsr_ext.test(options, root=root)[0].images
    network = build_network(network_g)
    network.load_state_dict(weights)
    for key in photos:
        lq, gt = (cv2.imread(str(root / f'{kind}/{key}.png'))[..., ::-1] for kind in ('lr', 'hr'))
        with torch.no_grad():
            made = network(torch.from_numpy(luminance(lq) / 255).float()[None, None])[0, 0].clamp(0, 1).numpy() * 255
        expected = psnr(made[2:-2, 2:-2], luminance(gt)[2:-2, 2:-2])
        assert scores[key]['psnr'] == pytest.approx(expected, abs=1e-3)
        saved = cv2.imread(str(root / f'results/scored/visualization/First/{key}_scored.png'))
        assert saved.shape == (*gt.shape[:2], 3) and np.ptp(saved.astype(int), axis=2).max() > 5  # in colour


def _test_on_rank(path: str, *arguments: str) -> None:
    torch.set_num_threads(1)
    assert main(['test', '-opt', path, '--launcher', 'pytorch', *arguments]) == 0


def test_two_ranks_test_two_checkpoints(root):
    run_test(root, scored_options(root), '--weights', 'a.pth', 'b.pth')
    options = {**scored_options(root), 'name': 'two'}
    path = str(write_options(root / 'two.yml', options))
    on_ranks(2, _test_on_rank, path, '--weights', 'a.pth', 'b.pth')
    assert 'Best' not in log_text(root / 'results/two/b')
    one, two = results(root / 'results/scored'), results(root / 'results/two')
    assert list(one) == list(two)
    for key, images in one.items():
        assert list(images) == list(two[key])
        for image, scores in images.items():
            assert two[key][image] == pytest.approx(scores, abs=1e-9)


def test_without_metrics_there_is_no_table(root, capsys):
    run_test(root, scored_options(root, metrics=None, save_img=True))
    assert not list((root / 'results').rglob('metrics.*'))
    assert 'mean' not in capsys.readouterr().out


def test_names_of_images():
    from basicsr_ext.trainer.patches.per_image_scores import _below, image_names

    assert _below('/x/hr/s/a.png', '/x/hr') == 's/a.png' and _below('hr/a.png', 'hr/') == 'a.png'
    assert _below('s/a', '/x/hr.lmdb') == 's/a' and _below('/y/a.png', None) == 'a.png'
    assert image_names(['s/a.png', 't/a.JPG', 'v1.5']) == ['s/a', 't/a', 'v1.5']
    assert image_names(['a.png', 'a.jpg']) == ['1: a.png', '2: a.jpg']


@pytest.mark.parametrize(
    ('dataset', 'keys'),
    [('PairedImageDataset', ['coffee', 'rocket']), ('PairedStoreDataset', ['a/coffee', 'b/rocket'])],
)
def test_images_are_named_as_evaluate_names_them(root, photos, dataset, keys):
    """LR files carry the scale in their names."""
    from basicsr_ext.functional.resize import downsample

    for key in keys:
        image = photos[Path(key).name][50:98, 60:120]
        write_images((root / 'GT' / key).parent, {Path(key).name: image})
        write_images((root / 'LR' / key).parent, {f'{Path(key).name}x2': downsample(image.copy(), 2)})
    options = scored_options(root, save_img=True)
    data = {'type': dataset, 'name': 'Set', 'dataroot_gt': f'{root}/GT', 'dataroot_lq': f'{root}/LR'}
    if dataset == 'PairedImageDataset':
        data['io_backend'] = {'type': 'disk'}
    options['datasets'] = {'test': {**data, 'filename_tmpl': '{}x2'}}
    metric = {'type': 'PSNR', 'crop_border': 2, 'test_y_channel': True}
    options['val']['metrics'] = {'PSNR': metric}
    run_test(root, options)
    tested = results(root / 'results/scored')['Set', 'a']
    assert list(tested) == keys

    saved = root / 'results/scored/visualization/Set'
    for key in keys:  # BasicSR saves images without their folders
        (root / 'SR' / key).parent.mkdir(parents=True, exist_ok=True)
        name = next(path for path in saved.iterdir() if path.name.startswith(Path(key).name))
        name.rename((root / 'SR' / key).parent / name.name)
    arguments = ['--gt', 'GT', '--sr', 'SR', '--scale', '2', '--metrics', 'psnr', '--name', 'Set', '-o', 'out']
    assert main(['evaluate', *arguments]) == 0
    evaluated = results(root / 'out')['Set', 'SR']
    assert list(evaluated) == keys
    for key, scores in tested.items():
        assert evaluated[key]['PSNR'] == pytest.approx(scores['PSNR'], abs=1e-9)
    for folder in ('results/scored', 'out'):
        with (root / folder / 'metrics.csv').open() as file:
            assert [row['image'] for row in csv.DictReader(file)] == [*keys, '(mean)']
        text = (root / folder / 'metrics.md').read_text()
        assert all(f'| {key} | ' in text for key in keys)


@pytest.mark.parametrize('dataset', ['PairedImageDataset', 'PairedStoreDataset'])
def test_the_template_that_lq_names_follow_is_suggested(root, capsys, dataset):
    for file in list((root / 'lr').iterdir()):
        file.rename(file.with_name(f'{file.stem}x2.png'))
    options = scored_options(root)
    data = {'type': dataset, 'name': 'Set', 'dataroot_gt': f'{root}/hr', 'dataroot_lq': f'{root}/lr'}
    options['datasets'] = {'test': data | ({'io_backend': {'type': 'disk'}} if dataset == 'PairedImageDataset' else {})}
    assert main(['test', '-opt', str(write_options(root / 't.yml', options))]) == 2
    assert 'set filename_tmpl: "{}x2"' in capsys.readouterr().err


def test_the_log_of_a_test_knows_no_best_iteration(root):
    run_test(root, scored_options(root))
    log = log_text(root / 'results/scored')
    assert '# psnr: ' in log and 'Best' not in log
    basicsr_ext.train(sr_options(root), root=root, force_yml=['train:total_iter=1', 'val:val_freq=1'])
    assert 'Best: ' in log_text(root / 'experiments/run')


def fails(root: Path, capsys, *arguments: str, datasets: dict | None = None, **val) -> str:
    options = scored_options(root, **val)
    options['datasets'] = datasets or options['datasets']
    assert main(['test', '-opt', str(write_options(root / 't.yml', options)), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('basicsr test: error: ') == 1 and 'Traceback' not in error
    assert not (root / 'results').exists()
    return error


def test_bad_weights(root, capsys):
    assert 'expected a file at' in fails(root, capsys, '--weights', 'a.pth', 'nowhere.pth')
    (root / 'damaged.pth').write_bytes((root / 'a.pth').read_bytes()[:300])
    assert 'damaged.pth' in fails(root, capsys, '--weights', 'a.pth', 'damaged.pth')
    torch.save({'iter': 4, 'optimizers': [], 'schedulers': []}, root / '4.state')
    assert 'found a training state' in fails(root, capsys, '--weights', '4.state')
    record = {'label': 'net_d', 'network': {'type': 'UNetDiscriminatorSN'}, 'scale': 2}
    save_network(root / 'd.pth', TINY_EDSR, basicsr_ext=record)
    assert 'the discriminator UNetDiscriminatorSN' in fails(root, capsys, '--weights', 'd.pth')


def test_a_checkpoint_whose_name_is_no_folder(root, capsys):
    (root / 'a.pth').rename(root / '...pth')
    assert main(['test', '-opt', str(write_options(root / 't.yml', scored_options(root))), '--weights', '...pth']) == 2
    assert 'expected a name that a folder can have, found the part ".."' in capsys.readouterr().err
    assert not (root / 'results').exists()


def test_weights_of_another_network_are_refused_before_the_first_test(root, capsys):
    save_network(root / 'other.pth', {**TINY_EDSR, 'num_feat': 6})
    error = fails(root, capsys, '--weights', 'a.pth', 'other.pth')
    assert error.startswith('basicsr test: error: --weights: ') and 'other.pth' in error


def test_the_network_that_a_file_names_is_tested(root, capsys):
    """An ablation of the option file's network; what differs is said. Arguments that are left out have their defaults."""
    smaller = {**TINY_EDSR, 'num_feat': 6, 'res_scale': 1}
    weights = save_network(
        root / 'ablation.pth', smaller, basicsr_ext={'label': 'net_g', 'network': smaller, 'scale': 2}
    )
    same = {'label': 'net_g', 'network': {**TINY_EDSR, 'res_scale': 1}, 'scale': 2}
    save_network(root / 'same.pth', TINY_EDSR, basicsr_ext=same)
    run_test(root, scored_options(root), '--weights', 'ablation.pth', 'same.pth')
    error = capsys.readouterr().err
    said = 'ablation.pth: tested as the network that the file names; network_g differs: num_feat is 4, the file has 6.'
    assert said in error and error.count('tested as') == 1
    found = results(root / 'results/scored')['First', 'ablation']
    torch.save(weights, root / 'bare.pth')
    options = {**scored_options(root), 'name': 'other', 'network_g': smaller}
    run_test(root, options, '--weights', 'bare.pth')
    assert found == results(root / 'results/other/bare')['First', 'bare']


def test_weights_of_another_scale_are_tested_as_the_options_say(root, capsys):
    """VDSR is trained on enlarged images, and tested in a network that enlarges."""
    network = {'type': 'VDSR', 'in_channels': 1, 'num_feat': 4, 'num_conv': 3, 'upscale': 1}
    record = {'label': 'net_g', 'network': network, 'scale': 1}
    save_network(root / 'trained.pth', network, basicsr_ext=record)
    options = scored_options(root)
    options['network_g'] = {**network, 'upscale': 2}
    run_test(root, options, '--weights', 'trained.pth')
    assert 'network_g differs' not in capsys.readouterr().err
    save_network(root / 'x4.pth', {**TINY_EDSR, 'upscale': 4}, basicsr_ext={**record, 'network': TINY_EDSR, 'scale': 4})
    assert main(['test', '-opt', str(write_options(root / 't.yml', scored_options(root))), '--weights', 'x4.pth']) == 2
    assert 'x4.pth do not fit EDSR' in capsys.readouterr().err


def test_scores_are_there_before_the_next_checkpoint_is_tested(root, monkeypatch):
    from basicsr_ext.evaluation import testing

    test, expected = testing.run.test, []

    def cut_short(*arguments, **named):
        if named['subfolder'] == 'b':
            raise basicsr_ext.UserError('memory is short')
        done = test(*arguments, **named)
        expected.append(done.scores)
        return done

    monkeypatch.setattr(testing.run, 'test', cut_short)
    with pytest.raises(basicsr_ext.UserError, match='memory is short'):
        basicsr_ext.test(scored_options(root), ['a.pth', 'b.pth'], root=root)
    assert results(root / 'results/scored/a')['First', 'a'].keys() == expected[0]['First'].keys()
    for image, scores in results(root / 'results/scored/a')['First', 'a'].items():
        assert scores == pytest.approx(expected[0]['First'][image])


def damage(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:50] + b'x' * (len(content) - 50))


def test_a_test_that_ends_early_leaves_no_scores(root):
    """What was saved before stays; neither table nor log has a mean."""
    damage(root / 'hr/rocket.png')
    with pytest.raises(basicsr_ext.UserError, match=r'rocket\.png'):
        basicsr_ext.test(scored_options(root, save_img=True), root=root)
    folder = root / 'results/scored'
    assert any((folder / 'visualization').rglob('*.png'))
    assert not list((root / 'results').rglob('metrics.*'))
    log = log_text(folder)
    assert 'Testing First' in log and '# psnr' not in log


def test_the_table_of_all_is_there_when_all_are_tested(root, monkeypatch):
    """An earlier one is set aside, so that it is not taken for this one."""
    save_network(root / 'c.pth', TINY_EDSR, 2)
    basicsr_ext.test(scored_options(root), ['a.pth', 'b.pth'], root=root)
    folder = root / 'results/scored'
    before = results(folder)
    test = run.test

    def third_fails(*arguments, **named):
        if named['subfolder'] == 'c':
            damage(root / 'hr/rocket.png')
        return test(*arguments, **named)

    monkeypatch.setattr(run, 'test', third_fails)
    with pytest.raises(basicsr_ext.UserError, match=r'rocket\.png'):
        basicsr_ext.test(scored_options(root), ['a.pth', 'b.pth', 'c.pth'], root=root)
    assert not list(folder.glob('metrics.*')) and not list((folder / 'c').glob('metrics.*'))
    assert all({key[1] for key in results(folder / label)} == {label} for label in 'ab')
    (archive,) = folder.glob('metrics_archived_*')
    assert results(archive) == before


def rewrite(files, change) -> None:
    for file in files:
        assert cv2.imwrite(str(file), np.ascontiguousarray(change(cv2.imread(str(file)))))


def _missing_pair(root):
    (root / 'lr/coffee.png').unlink()


def _wrong_scale(root):
    rewrite([root / 'lr/coffee.png'], lambda image: cv2.resize(image, None, fx=0.5, fy=0.5))


def _empty(root):
    for file in (root / 'lr').iterdir():
        file.unlink()


@pytest.mark.parametrize(
    ('fault', 'stock', 'ours'),
    [
        (_missing_pair, 'different number of images: 4, 5', 'not found: "coffee"'),
        (_wrong_scale, 'expected LQ images 2 times smaller', '"coffee" is 48x60, expected 24x30'),
        (_empty, 'different number of images: 0, 5', 'expected images'),
    ],
)
@pytest.mark.parametrize('dataset', ['PairedImageDataset', 'PairedStoreDataset'])
def test_sets_that_do_not_fit(root, capsys, fault, stock, ours, dataset):
    fault(root)
    data = {'type': dataset, 'name': 'Set', 'dataroot_gt': f'{root}/hr', 'dataroot_lq': f'{root}/lr'}
    if dataset == 'PairedImageDataset':
        data['io_backend'] = {'type': 'disk'}
    error = fails(root, capsys, datasets={'test': data})
    assert (stock if dataset == 'PairedImageDataset' else ours) in error


@pytest.mark.parametrize('dataset', ['PairedImageDataset', 'PairedStoreDataset'])
def test_depth_alpha_and_grey(root, dataset):
    """16 bits and alpha change nothing; grey images for a network in colour are read as such."""
    data = {'type': dataset, 'name': 'Set', 'dataroot_gt': f'{root}/hr', 'dataroot_lq': f'{root}/lr'}
    data |= {'io_backend': {'type': 'disk'}} if dataset == 'PairedImageDataset' else {'channels': 3}
    options = {**scored_options(root), 'datasets': {'test': data}}
    files = [file for folder in ('hr', 'lr') for file in (root / folder).iterdir()]

    def psnr(number: int) -> float:
        return basicsr_ext.test({**options, 'name': f'n{number}'}, root=root)[0].mean['psnr']

    plain = psnr(0)
    rewrite(files, lambda image: image.astype(np.uint16) * 257)
    assert psnr(1) == pytest.approx(plain, abs=1e-6)
    rewrite(files, lambda image: np.dstack([image, image[..., 0]]))
    assert psnr(2) == pytest.approx(plain, abs=1e-6)
    rewrite(files, lambda image: image[..., 1])
    grey = psnr(3)
    rewrite(files, lambda image: image)
    assert psnr(4) == pytest.approx(grey, abs=1e-6) and abs(grey - plain) > 1e-3


@pytest.mark.parametrize('kind', ['lr', 'hr'])
def test_a_damaged_image_is_named(root, capsys, kind):
    damage(root / kind / 'rocket.png')
    assert main(['test', '-opt', str(write_options(root / 't.yml', scored_options(root)))]) == 2
    error = capsys.readouterr().err
    assert f'{kind}/rocket.png ({"lq" if kind == "lr" else "gt"}) is damaged' in error and 'Traceback' not in error


def test_a_full_disk_is_named(root, capsys, monkeypatch):
    from basicsr_ext.trainer.patches import image_io

    def full(path, mode):
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(image_io, 'open', full, raising=False)
    assert main(['test', '-opt', str(write_options(root / 't.yml', scored_options(root, save_img=True)))]) == 2
    error = capsys.readouterr().err
    assert 'The disk is full' in error and '_scored.png' in error and 'Traceback' not in error
    assert 'then test again' in error and '--auto_resume' not in error


def test_a_log_on_a_full_disk_is_no_traceback(root, capsys, monkeypatch):
    """Each line of the log fails, and closing it."""
    import logging

    from basicsr_ext.trainer.patches import image_io

    def full(*arguments):
        raise OSError(errno.ENOSPC, 'No space left on device')

    class Full(logging.FileHandler):
        def flush(self):
            full()

        def close(self):
            super(logging.StreamHandler, self).close()
            self.stream.close()
            full()

    monkeypatch.setattr(logging, 'FileHandler', Full)
    monkeypatch.setattr(image_io, 'open', full, raising=False)
    assert main(['test', '-opt', str(write_options(root / 't.yml', scored_options(root, save_img=True)))]) == 2
    error = capsys.readouterr().err
    assert 'The disk is full' in error and 'Traceback' not in error and 'Logging error' not in error
    assert logging.raiseExceptions


def test_a_place_that_cannot_be_written(root, capsys, monkeypatch):
    from basicsr.utils import misc

    def refuse(path, **_):
        raise PermissionError(errno.EACCES, 'Permission denied', path)

    monkeypatch.setattr(misc.os, 'makedirs', refuse)
    assert f'{root}/results/scored: Permission denied.' in fails(root, capsys)


@pytest.mark.parametrize(
    ('val', 'message'),
    [
        ({'tile': 0}, 'val.tile: expected a whole number from 1'),
        ({'tile': 16, 'overlap': 16}, 'val.overlap: expected less than tile (16), found 16'),
        ({'tile': 8, 'overlap': 8}, 'val.overlap: expected less than tile (8), found 8'),
        ({'precision': 'half'}, 'val.precision: expected one of fp32, bf16, fp16'),
        ({'self_ensemble': 8}, 'val.self_ensemble: expected true or false'),
        ({'tiles': 8}, 'did you mean "tile"?'),
    ],
)
def test_bad_options(root, capsys, val, message):
    assert message in fails(root, capsys, **val)


@pytest.mark.parametrize(
    'network', [{**SWINIR, 'window_size': 8, 'img_size': 16}, {'type': 'VDSR', 'num_feat': 4, 'upscale': 2}]
)
def test_the_check_command_knows_windows_and_luminance(root, capsys, network):
    """LR images of 24x30 pixels are no multiples of windows of 8, and have colours."""
    save_network(root / 'a.pth', network)
    options = scored_options(root, 'ECOModel')
    options['network_g'] = network
    assert main(['check', '-opt', str(write_options(root / 't.yml', options))]) == 0
    assert f'{network["type"]}: ' in capsys.readouterr().out
