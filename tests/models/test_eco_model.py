"""ECO's objectives, schedules, checks and noise."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import numpy as np
import pytest
import torch
from run_helpers import (
    TINY_EDSR,
    assert_same_weights,
    eco_options,
    log_text,
    model_options,
    network_weights,
    on_ranks,
    write_centroids,
    write_options,
    write_pairs,
)

from basicsr_ext.cli.main import main
from basicsr_ext.functional.resize import downsample
from basicsr_ext.models.eco_model import ECOModel
from basicsr_ext.models.eco_options import AlphaSchedule, ECOOptions
from basicsr_ext.storage import RawLmdbWriter, open_store


@pytest.fixture(scope='module')
def prepared(tmp_path_factory, photos):
    """A tiny image set with its centroids; read only."""
    root = tmp_path_factory.mktemp('eco')
    write_pairs(root, photos)
    write_centroids(root)
    return root


def build(options, root):
    with model_options(options, root) as opt:
        return ECOModel(opt)


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = {'lq': 8, 'gt': 16, 'centroid': 16, 'centroid_lq': 8}
    return {name: torch.rand(2, 3, size, size, generator=generator) for name, size in sizes.items()}


# ---- schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('schedule', 'expected'),
    [
        ({'type': 'linear'}, [0, 0.25, 0.5, 0.75]),
        ({'type': 'linear', 'end': 2}, [0, 0.5, 1, 1]),
        ({'type': 'step', 'at': 0.5}, [0, 0, 1, 1]),
        ({'type': 'constant', 'value': 0.3}, [0.3] * 4),
        ({'type': 'linear', 'hold': 2}, [0, 0, 0.5, 0.5]),
        ({'type': 'linear', 'hold': 3}, [0, 0, 0, 0.75]),
        ({'type': 'cosine'}, [0, 0.146447, 0.5, 0.853553]),
        # 1.2 (sigmoid(10 (p - 0.5)) - 0.5) is -0.50897 and 0.50897 at the quarters, and is clamped to 0.5
        ({'type': 'sigmoid'}, [0, 0, 0.5, 1]),
        ({'type': 'sigmoid', 'shift': 1}, [0, 0, 0.5 + 1.2 * (0.268941 - 0.5), 0.5 + 1.2 * (0.817574 - 0.5)]),
    ],
)
def test_alpha_of_each_iteration(schedule, expected):
    alphas = [AlphaSchedule(**schedule).alpha(iteration, total=4) for iteration in (1, 2, 3, 4)]
    assert alphas == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    'schedule',
    [{}, {'end': 700}, {'type': 'sigmoid', 'shift': -2}, {'type': 'sigmoid', 'shift': 2}, {'type': 'step', 'at': 0.25},
     {'type': 'cosine'}, {'hold': 64, 'end': 700}, {'type': 'constant', 'value': 1}, {'type': 'constant', 'value': 0.5}],
)  # fmt: skip
def test_last_mixed_iteration_is_the_last_with_alpha_below_one(schedule):
    schedule = AlphaSchedule(**schedule)
    mixed = [iteration for iteration in range(1, 1001) if schedule.alpha(iteration, 1000) < 1]
    assert schedule.last_mixed_iteration(1000) == (mixed[-1] if mixed else 0) == len(mixed)


@pytest.mark.parametrize(
    ('block', 'message'),
    [
        ({'objectiv': 'eco'}, r'train\.eco\.objectiv: unknown option; did you mean "objective"\?'),
        (
            {'objective': 'ECO'},
            r"train\.eco\.objective: input should be 'eco', 'vanilla', 'kd' or 'noise_free', found 'ECO'",
        ),
        ({'schedule': {'type': 'linear', 'end': 0}}, r'train\.eco\.schedule\.end'),
        ({'schedule': {'shfit': 1}}, r'train\.eco\.schedule\.shfit: unknown option; did you mean "shift"\?'),
        ({'noise_sigma': -1}, r'train\.eco\.noise_sigma'),
        ({'teacher': {'network': {}}}, r'train\.eco\.teacher\.weights: this option is required'),
        ('eco', r"train\.eco: expected a mapping of options, found 'eco'"),
    ],
)
def test_wrong_options(block, message):
    with pytest.raises(basicsr_ext.UserError, match=message):
        ECOOptions.parse(block, 'train.eco')


# ---- objectives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('iteration', [1, 2, 4])
def test_eco_mixes_by_equation_14(prepared, iteration):
    model, batch = build(eco_options(prepared), prepared), images()
    lq, gt = model.prepare_batch(batch, iteration)
    alpha = (iteration - 1) / 4
    torch.testing.assert_close(gt, batch['centroid'] + alpha * (batch['gt'] - batch['centroid']))
    torch.testing.assert_close(lq, batch['centroid_lq'] + alpha * (batch['lq'] - batch['centroid_lq']))


@pytest.mark.parametrize(
    ('eco', 'expected'),
    [
        ({'objective': 'vanilla'}, ('lq', 'gt')),
        ({'objective': 'kd'}, ('lq', 'centroid')),
        ({'objective': 'noise_free'}, ('centroid_lq', 'centroid')),
        ({'schedule': {'type': 'constant', 'value': 1}}, ('lq', 'gt')),
        ({'schedule': {'type': 'constant', 'value': 0}}, ('centroid_lq', 'centroid')),
    ],
)
def test_special_cases_are_exact(prepared, eco, expected):
    """kd, noise_free and vanilla; and ECO with alpha 1 is vanilla, with alpha 0 noise_free."""
    model, batch = build(eco_options(prepared, **eco), prepared), images()
    for iteration in (1, 3):
        pair = model.prepare_batch(batch, iteration)
        assert all(torch.equal(image, batch[name]) for image, name in zip(pair, expected, strict=True))


def test_alpha_is_logged(prepared):
    model = build(eco_options(prepared), prepared)
    model.feed_data(images())
    model.optimize_parameters(3)
    assert model.get_current_log()['alpha'] == 0.5


def test_stored_pairs_mix_as_their_downsampling_does(prepared):
    """On stored uint8 images: mixing the LR images equals downsampling the mixed HR image, up to rounding."""
    from basicsr_ext.functional.centroid import mix

    def read(name):
        store = open_store(prepared / name)
        return torch.from_numpy(store.read(store.keys()[0])).permute(2, 0, 1).double() / 255

    gt, lq, centroid, centroid_lq = (read(name) for name in ('hr', 'lr', 'centroid.lmdb', 'centroid_lq.lmdb'))
    gap = mix(centroid_lq, lq, 0.4) - downsample(mix(centroid, gt, 0.4), 2)
    assert gap.abs().max() < 2.5 / 255


# ---- noise -----------------------------------------------------------------------------------------------------------


def test_noise_is_added_to_the_mixed_input_and_repeats(prepared):
    model = build(eco_options(prepared, noise_sigma=0.05), prepared)
    batch = {name: image * 0 + 0.5 for name, image in images().items()}
    batch = {name: image.repeat(16, 1, 1, 1) for name, image in batch.items()}
    first, gt = model.prepare_batch(batch, 2)
    noise = first - 0.5
    assert noise.std() == pytest.approx(0.05, rel=0.05) and abs(noise.mean()) < 0.002
    assert not torch.allclose(noise[:, 0], noise[:, 1])  # colour noise
    assert torch.equal(gt, batch['gt'])
    assert torch.equal(first, model.prepare_batch(batch, 2)[0])
    assert not torch.equal(first, model.prepare_batch(batch, 3)[0])
    assert model.prepare_batch({name: image * 0 + 1 for name, image in batch.items()}, 2)[0].max() == 1


# ---- online teacher --------------------------------------------------------------------------------------------------


def test_online_teacher_makes_the_centroids(prepared):
    from basicsr.archs import build_network

    from basicsr_ext.networks.weights import load_weights

    teacher = {'network': TINY_EDSR, 'weights': str(prepared / 'teacher.pth')}
    model = build(eco_options(prepared, objective='noise_free', teacher=teacher), prepared)
    network = build_network(TINY_EDSR)
    load_weights(network, prepared / 'teacher.pth')
    batch = {name: image for name, image in images().items() if name in ('lq', 'gt')}
    lq, gt = model.prepare_batch(batch, 1)
    with torch.no_grad():
        expected = network(batch['lq']).clamp(0, 1)
    assert torch.equal(gt, expected) and torch.equal(lq, downsample(expected, 2))
    assert not gt.requires_grad


def test_online_teacher_trains_without_centroid_stores(tmp_path, photos, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    torch.manual_seed(3)
    from basicsr.archs import build_network

    torch.save(build_network(TINY_EDSR).state_dict(), tmp_path / 'teacher.pth')
    options = eco_options(tmp_path, teacher={'network': TINY_EDSR, 'weights': 'teacher.pth'})
    train = options['datasets']['train']
    train['type'] = 'PairedStoreDataset'
    for key in ('dataroot_centroid', 'dataroot_centroid_lq'):
        train.pop(key)
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 0
    assert 'alpha' in log_text(tmp_path / 'experiments/run')


# ---- centroids belong to the training set ----------------------------------------------------------------------------


def train_set(root, **changes):
    from basicsr.data import build_dataset

    block = eco_options(root)['datasets']['train']
    block.update(phase='train', scale=2, **changes)
    return build_dataset(block)


def rewrite(source, target, change_meta=lambda meta: None, change=lambda key, image: image):
    store = open_store(source)
    with RawLmdbWriter(target, channels=store.channels, dtype=store.dtype) as writer:
        for key in store.keys():
            writer.put(key, change(key, np.array(store.read(key))))
        meta = dict(store.meta)
        change_meta(meta)
        writer.meta.update(meta)
    return str(target)


def test_centroids_of_the_training_set_are_accepted(prepared):
    model, dataset = build(eco_options(prepared), prepared), train_set(prepared)
    model.bind(dataset)


def test_centroids_of_other_lr_images_are_refused(prepared, tmp_path):
    """The same names and sizes, other pixels: another degradation, say."""
    changed = rewrite(prepared / 'lr', tmp_path / 'lr.lmdb', change=lambda key, image: image // 2)
    model = build(eco_options(prepared), prepared)
    with pytest.raises(
        basicsr_ext.UserError, match=r'made from other LQ images.*of 5 compared, 5 differ, first "astronaut"'
    ):
        model.bind(train_set(prepared, dataroot_lq=changed))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda meta: meta.update(scale=4), 'was made for scale 4, and this run has scale 2'),
        (lambda meta: meta.clear(), 'with no record of how it was made'),
        (lambda meta: meta.update(kind='centroid_lq'), 'as centroid, found .* with kind centroid_lq'),
        (lambda meta: meta.update(weights_sha256='0'), 'come from different runs .* differ in weights_sha256'),
    ],
)
def test_wrong_records_are_refused(prepared, tmp_path, change, message):
    changed = rewrite(prepared / 'centroid.lmdb', tmp_path / 'c.lmdb', change)
    model = build(eco_options(prepared), prepared)
    with pytest.raises(basicsr_ext.UserError, match=message):
        model.bind(train_set(prepared, dataroot_centroid=changed))


def test_centroids_with_other_keys_are_refused_by_name(prepared, tmp_path):
    store = open_store(prepared / 'centroid.lmdb')
    with RawLmdbWriter(tmp_path / 'c.lmdb', channels=3, dtype='uint8') as writer:
        for key in store.keys():
            writer.put('other' if key == 'coffee' else key, store.read(key))
        writer.meta.update(store.meta)
    with pytest.raises(basicsr_ext.UserError, match=r'dataroot_centroid .*coffee'):
        train_set(prepared, dataroot_centroid=str(tmp_path / 'c.lmdb'))


def test_a_dataset_without_centroids_is_refused(prepared):
    from basicsr_ext.data.paired_store_dataset import PairedStoreDataset

    block = eco_options(prepared)['datasets']['train']
    block = {k: v for k, v in block.items() if 'centroid' not in k}
    dataset = PairedStoreDataset({**block, 'type': 'PairedStoreDataset', 'phase': 'train', 'scale': 2})
    with pytest.raises(basicsr_ext.UserError, match='expected PairedCentroidDataset, found PairedStoreDataset'):
        build(eco_options(prepared), prepared).bind(dataset)
    build(eco_options(prepared, objective='vanilla'), prepared).bind(dataset)


def test_a_network_that_starts_from_its_teacher_is_refused(prepared):
    options = eco_options(prepared)
    options['path']['pretrain_network_g'] = str(prepared / 'teacher.pth')
    with pytest.raises(basicsr_ext.UserError, match='holds the very weights that made the centroids'):
        build(options, prepared).bind(train_set(prepared))
    teacher = {'network': TINY_EDSR, 'weights': str(prepared / 'teacher.pth')}
    options['train']['eco'] = {'teacher': teacher}
    with pytest.raises(basicsr_ext.UserError, match='needs a teacher that is independent'):
        build(options, prepared)


def test_a_copy_of_the_teacher_is_refused_too(prepared, tmp_path):
    """Saved anew, with other names, among other entries: the tensors count, not the file."""
    weights = torch.load(prepared / 'teacher.pth', weights_only=True)['params']
    copies = {
        'state.pth': weights,
        'renamed.pth': {'state_dict': {f'module.{name}': tensor for name, tensor in weights.items()}},
        'averaged.pth': {'params': {name: tensor + 1 for name, tensor in weights.items()}, 'params_ema': weights},
    }
    teacher = {'network': TINY_EDSR, 'weights': str(prepared / 'teacher.pth')}
    for name, content in copies.items():
        torch.save(content, tmp_path / name)
        for eco in ({}, {'teacher': teacher}):
            options = eco_options(prepared, **eco)
            options['path'].update(pretrain_network_g=str(tmp_path / name), strict_load_g=False)
            if name == 'renamed.pth':
                torch.save({'params': content['state_dict']}, tmp_path / name)
            with pytest.raises(basicsr_ext.UserError, match='holds the very weights that made the centroids'):
                build(options, prepared).bind(train_set(prepared))
    torch.save({'params': {name: tensor + 1 for name, tensor in weights.items()}}, tmp_path / 'other.pth')
    options['path']['pretrain_network_g'] = str(tmp_path / 'other.pth')
    build(options, prepared).bind(train_set(prepared))


def test_an_old_record_is_compared_by_its_file(prepared, tmp_path):
    """Centroids that were made before tensors were compared."""
    paths = {
        option: rewrite(
            prepared / f'{name}.lmdb', tmp_path / f'{name}.lmdb', lambda meta: meta.pop('weights_tensors_sha256')
        )
        for option, name in (('dataroot_centroid', 'centroid'), ('dataroot_centroid_lq', 'centroid_lq'))
    }
    options = eco_options(prepared)
    options['path']['pretrain_network_g'] = str(prepared / 'teacher.pth')
    with pytest.raises(basicsr_ext.UserError, match='holds the very weights that made the centroids'):
        build(options, prepared).bind(train_set(prepared, **paths))


@pytest.mark.parametrize(
    ('network', 'message'),
    [
        ({**TINY_EDSR, 'upscale': 4}, r'train\.eco\.teacher: expected a network that enlarges 2 times'),
        (
            {'type': 'VDSR', 'in_channels': 1, 'num_feat': 4, 'num_conv': 2, 'upscale': 2},
            r'train\.eco\.teacher: expected a network for 3 channels',
        ),
    ],
)
def test_an_online_teacher_of_another_kind_is_refused(prepared, tmp_path, network, message):
    from basicsr.archs import build_network

    torch.save(build_network(dict(network)).state_dict(), tmp_path / 't.pth')
    options = eco_options(prepared, teacher={'network': network, 'weights': str(tmp_path / 't.pth')})
    with pytest.raises(basicsr_ext.UserError, match=message):
        build(options, prepared)


@pytest.mark.parametrize(
    ('eco', 'read'),
    [
        ({}, [1, 2, 3, 4]),
        ({'schedule': {'end': 2}}, [1, 2]),
        ({'objective': 'kd'}, [1, 2, 3, 4]),
        ({'objective': 'vanilla'}, []),
    ],
)
def test_centroids_are_read_only_while_they_are_needed(prepared, eco, read):
    from basicsr_ext.data.sample_id import SampleId

    model, dataset = build(eco_options(prepared, **eco), prepared), train_set(prepared)
    model.bind(dataset)
    opened = []
    original = type(dataset.centroid_store).windows
    dataset.centroid_store.windows = lambda *a, **k: opened.append(1) or original(dataset.centroid_store, *a, **k)
    found = []
    for iteration in (1, 2, 3, 4):
        sample = dataset[SampleId(index=0, epoch=0, position=iteration, iteration=iteration, seed=0)]
        if 'centroid' in sample:
            found.append(iteration)
            assert 'centroid_lq' in sample
        model.feed_data({k: v[None] if isinstance(v, torch.Tensor) else [v] for k, v in sample.items()})
        model.optimize_parameters(iteration)
    assert found == read and len(opened) == len(read)


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('objective', ['eco', 'kd', 'noise_free', 'vanilla'])
def test_each_objective_trains_from_an_option_file(prepared, tmp_path, monkeypatch, objective):
    monkeypatch.chdir(tmp_path)
    options = eco_options(prepared, objective=objective)
    options['datasets']['train']['num_worker_per_gpu'] = 2 if objective == 'eco' else 0
    options['train'].update(ema_decay=0.9, grad_clip={'value': 0.1}, optim_g={'type': 'Lamb', 'lr': 1e-3}, guard={})
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 0
    assert 'alpha' in log_text(tmp_path / 'experiments/run')
    assert main(['train', '-opt', str(tmp_path / 'o.yml'), '--auto_resume', '--force_yml', 'train:total_iter=6']) == 0
    state = torch.load(tmp_path / 'experiments/run/training_states/6.state', weights_only=True)
    assert state['ranks'][0]['extra_state']['guard']['last_accepted']['g'] > 0


@pytest.mark.parametrize(
    ('network', 'loss'),
    [
        ({'type': 'RCAN', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 16, 'num_group': 1, 'num_block': 1, 'upscale': 2},
         {'type': 'MSELoss'}),
        ({'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 8, 'window_size': 4, 'img_range': 1.0, 'depths': [2],
          'embed_dim': 8, 'num_heads': [2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect', 'resi_connection': '1conv'},
         {'type': 'CharbonnierLoss', 'loss_weight': 2.0}),
        ({'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 8, 'num_block': 1, 'num_grow_ch': 4, 'scale': 2},
         {'type': 'L1Loss', 'reduction': 'sum'}),
    ],
    ids=lambda block: block['type'],
)  # fmt: skip
def test_any_network_and_pixel_loss(prepared, network, loss):
    options = eco_options(prepared)
    options['network_g'] = network
    options['train']['pixel_opt'] = loss
    model = build(options, prepared)
    before = [p.detach().clone() for p in model.net_g.parameters()]
    model.feed_data(images())
    model.optimize_parameters(2)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.net_g.parameters(), strict=True))
    assert np.isfinite(model.get_current_log()['l_pix'])


def test_a_run_refuses_centroids_of_other_images(prepared, tmp_path, monkeypatch, capsys):
    """The model meets the training set of a run."""
    monkeypatch.chdir(tmp_path)
    options = eco_options(prepared)
    options['datasets']['train']['dataroot_lq'] = rewrite(
        prepared / 'lr', tmp_path / 'lr.lmdb', change=lambda key, image: image // 2
    )
    assert main(['train', '-opt', str(write_options(tmp_path / 'o.yml', options))]) == 2
    assert 'were made from other LQ images' in capsys.readouterr().err


def test_option_files_have_the_papers_settings():
    from pathlib import Path

    from basicsr_ext.options.complete import load_yaml

    folder = Path(__file__).parents[2] / 'options'
    lamb = ('Lamb', 1.6e-3, 128), (125000, 'CosineAnnealingRestartLR')
    expected = {
        f'{network}_x{scale}': (*lamb[0], 48 * scale, *lamb[1]) for network in ('EDSR', 'RCAN') for scale in (2, 3, 4)
    }
    expected['RCAN_x4'] = ('Adam', 1e-4, 16, 192, 1000000, 'MultiStepLR')
    for case, settings in expected.items():
        eco, vanilla = (load_yaml(folder / f'train_{name}_{case}.yml') for name in ('ECO', 'vanilla'))
        for options in (eco, vanilla):
            train, data = options['train'], options['datasets']['train']
            found = (train['optim_g']['type'], train['optim_g']['lr'], data['batch_size_per_gpu'], data['gt_size'])
            assert (*found, train['total_iter'], train['scheduler']['type']) == settings
            assert train['ema_decay'] == 0 and train['grad_clip'] == {'value': 0.1}
            assert train['pixel_opt'] == {'type': 'L1Loss', 'loss_weight': 255, 'reduction': 'mean'}
            assert train['guard'] == {'factor': 5, 'initial': 100, 'max_skips': 100}
            assert options['scale'] == options['network_g']['upscale'] == int(case[-1])
            assert {metric['crop_border'] for metric in options['val']['metrics'].values()} == {options['scale']}
        assert eco['train']['eco'] == {'objective': 'eco', 'schedule': {'type': 'linear'}}
        for name, options in (('ECO', eco), ('vanilla', vanilla)):
            network, scale = case.split('_')
            start = None if scale == 'x2' else f'experiments/train_{name}_{network}_x2/models/net_g_latest.pth'
            assert options['path'].pop('pretrain_network_g') == start
            assert options['path'].get('pretrain_network_g_leave_out') == (['upsample'] if start else None)
        for options in (eco, vanilla):  # the twins differ in nothing else
            for block, key in ((options, 'name'), (options, 'manual_seed'), (options['train'], 'eco')):
                block.pop(key)
            for key in ('type', 'dataroot_centroid', 'dataroot_centroid_lq'):
                options['datasets']['train'].pop(key, None)
        assert eco == vanilla


def test_the_pairs_that_are_compared_have_one_seed():
    from pathlib import Path

    from basicsr_ext.options.complete import load_yaml

    folder = Path(__file__).parents[2] / 'options'

    def loaded(name, case):
        return load_yaml(folder / f'train_{name}_{case}.yml')

    pairs = {('ECO', 'vanilla-seed0'): ['EDSR_x2', 'RCAN_x4', 'EDSR-baseline_x2']}
    pairs |= {('ECO-code', 'vanilla-code'): ['EDSR_x2', 'RCAN_x4']}
    pairs |= {(f'ECO-{kind}', f'vanilla-{kind}'): ['EDSR_x2'] for kind in ('l2', 'noise')}
    for (method, plain), cases in pairs.items():
        for case in cases:
            eco, vanilla = loaded(method, case), loaded(plain, case)
            assert eco['manual_seed'] == vanilla['manual_seed'] == 0
            assert loaded('vanilla', case)['manual_seed'] == 1  # makes the centroids
            for key in ('network_g', 'scale', 'val'):
                assert eco[key] == vanilla[key]
            differing = {'eco'} | ({'optim_g'} if (method, case) == ('ECO-code', 'EDSR_x2') else set())
            assert {key for key in eco['train'] if eco['train'][key] != vanilla['train'][key]} == differing
    code = loaded('ECO-code', 'EDSR_x2')['train']
    assert code['optim_g']['lr'] == 3.2e-3 and loaded('vanilla-code', 'EDSR_x2')['train']['optim_g']['lr'] == 1.6e-3
    for case in ('EDSR_x2', 'RCAN_x4'):
        code = loaded('ECO-code', case)['train']
        assert code['eco']['schedule'] == {'type': 'sigmoid', 'hold': 625}
        assert code['guard']['hold_scheduler'] and code['optim_g']['type'] == 'Lamb' and code['optim_g']['adam_debias']


def test_vanilla_objective_equals_stock_training(prepared, tmp_path, monkeypatch):
    """The same weights, to the bit, as stock SRModel on the same samples."""
    monkeypatch.chdir(tmp_path)
    options = eco_options(prepared, objective='vanilla')
    options['datasets']['train']['output'] = 'float32'
    assert main(['train', '-opt', str(write_options(tmp_path / 'a.yml', options))]) == 0
    stock = {**options, 'name': 'stock', 'model_type': 'SRModel'}
    stock['train'] = {key: value for key, value in options['train'].items() if key != 'eco'}
    assert main(['train', '-opt', str(write_options(tmp_path / 'b.yml', stock))]) == 0
    assert_same_weights(network_weights(tmp_path), network_weights(tmp_path, 'stock'))


def _rank(path):
    assert main(['train', '-opt', path, '--launcher', 'pytorch']) == 0


def test_two_ranks_equal_one_with_twice_the_batch(prepared, tmp_path, monkeypatch):
    """Batch 2 on two ranks is batch 4 on one: the same crops and flips, weights equal to 1e-6."""
    monkeypatch.chdir(tmp_path)
    options = eco_options(prepared)
    options['datasets']['train'].update(batch_size_per_gpu=4, dataset_enlarge_ratio=4)
    options['train'].update(total_iter=8, ema_decay=0.9)
    assert main(['train', '-opt', str(write_options(tmp_path / 'one.yml', options))]) == 0
    options['name'] = 'two'
    options['datasets']['train']['batch_size_per_gpu'] = 2
    on_ranks(2, _rank, str(write_options(tmp_path / 'two.yml', options)))
    assert_same_weights(network_weights(tmp_path), network_weights(tmp_path, 'two'), tolerance=1e-6)
    # and both ranks' states were kept
    assert len(torch.load('experiments/two/training_states/8.state', weights_only=True)['ranks']) == 2


def test_stock_command_finds_the_model_and_the_datasets(prepared, tmp_path, monkeypatch):
    """After register(), BasicSR's own loop and options run ECO too (on the CPU, one rank)."""
    import sys

    from basicsr.train import train_pipeline

    monkeypatch.chdir(tmp_path)
    options = eco_options(prepared)
    path = write_options(tmp_path / 'o.yml', options)
    path.write_text(path.read_text().replace('lr: 0.001', 'lr: !!float 1e-3'))
    monkeypatch.setattr(sys, 'argv', ['train.py', '-opt', str(path)])
    train_pipeline(str(tmp_path))
    assert network_weights(tmp_path)
