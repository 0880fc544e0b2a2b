"""AIL: rounds, maps, both forms, resuming, ranks, and options that do not go together."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from run_helpers import (
    TINY_EDSR,
    assert_same_weights,
    final_state,
    forked,
    log_text,
    model_options,
    network_weights,
    on_ranks,
    run,
    sr_options,
    write_options,
    write_pairs,
)

from basicsr_ext.cli import main
from basicsr_ext.data.crop_geometry import Geometry, augment
from basicsr_ext.errors import UserError
from basicsr_ext.functional.importance import initial_importance, raised_importance
from basicsr_ext.models.ail_model import AILModel
from basicsr_ext.models.importance_maps import ImportanceMaps, key_of
from basicsr_ext.storage import open_store
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """A tiny image set and a teacher that is near the truth; read only."""
    root = tmp_path_factory.mktemp('ail')
    write_pairs(root, photos)
    torch.manual_seed(3)
    torch.save({'params': build_network(TINY_EDSR).state_dict()}, root / 'teacher.pth')
    return root


def ail_options(images: Path, **ail) -> dict:
    """Three rounds of two iterations."""
    options = sr_options(images, model_type='AILModel')
    train = options['datasets']['train']
    train.pop('io_backend')
    train.update(type='PairedStoreDataset', geometry=True, output='uint8', dataset_enlarge_ratio=2)
    options['train'].update(
        total_iter=7,
        pixel_opt={'type': 'MSELoss', 'reduction': 'sum'},
        optim_g={'type': 'SGD', 'lr': 1e-3, 'momentum': 0.9},
        scheduler={'type': 'MultiStepLR', 'milestones': [1], 'gamma': 0.1},
        grad_clip={'norm': 0.4},
        ail={
            'rounds': 2,
            'round_iterations': 2,
            'teacher': {'network': dict(TINY_EDSR), 'weights': str(images / 'teacher.pth')},
            **ail,
        },
    )
    options['val']['val_freq'] = 3
    options['logger'].update(print_freq=1, save_checkpoint_freq=1)
    return options


def train(root: Path, options: dict, *arguments: str) -> int:
    return forked(run, root, write_options(root / 'o.yml', options), *arguments)


def whole_images(images: Path) -> list[tuple[torch.Tensor, torch.Tensor]]:
    lq, gt = open_store(images / 'lr'), open_store(images / 'hr')
    return [
        tuple(torch.from_numpy(s.read(key).transpose(2, 0, 1)[None] / np.float32(255)) for s in (lq, gt))
        for key in sorted(gt.keys())
    ]


# ---- rounds ----------------------------------------------------------------------------------------------------------


def test_recursive_rounds_follow_the_equations(images, tmp_path):
    """Every round's maps are recomputed by hand from the saved student of the round before."""
    options = ail_options(images)
    assert train(tmp_path, options) == 0
    experiment = tmp_path / 'experiments/run'
    teacher = build_network(TINY_EDSR)
    teacher.load_state_dict(torch.load(images / 'teacher.pth')['params'])
    pairs = whole_images(images)
    with torch.no_grad():
        expected = [initial_importance((teacher(lq) - gt).abs()) for lq, gt in pairs]
        for iteration in (2, 4):
            student = build_network(TINY_EDSR)
            student.load_state_dict(network_weights(tmp_path, iteration=iteration)['params'])
            expected = [
                raised_importance(w.half().float(), (student(lq) - gt).square())
                for w, (lq, gt) in zip(expected, pairs, strict=True)
            ]
    maps = ImportanceMaps(experiment / 'importance', [tuple(gt.shape[-2:]) for _, gt in pairs], 3)
    assert maps.open(2, None)
    for image, weights in enumerate(expected):
        ours = maps.read(Geometry(image, 0, 0, *weights.shape[-2:]))
        torch.testing.assert_close(ours, weights[0], rtol=0, atol=1e-3)  # float16, twice
    records = json.loads((experiment / 'importance/rounds.json').read_text())
    assert [(record['round'], record['iteration']) for record in records] == [(0, 0), (1, 2), (2, 4)]
    means = [record['mean'] for record in records]
    assert means == sorted(means) and means[0] < means[2]
    assert means[2] == pytest.approx(torch.cat([w.flatten() for w in expected]).mean().item(), abs=1e-3)
    shares = [torch.cat([w.flatten() for w in expected]).ge(1).float().mean().item()]
    assert records[2]['share_at_one'] == pytest.approx(shares[0], abs=0.01)
    with torch.no_grad():
        psnr = [-10 * np.log10((student(lq).clamp(0, 1) - gt).square().mean().item()) for lq, gt in pairs]
    assert records[2]['psnr'] == pytest.approx(np.mean(psnr), abs=1e-4)


def test_learning_rate_restarts_and_logs_tell_the_round(images, tmp_path):
    assert train(tmp_path, ail_options(images)) == 0
    lines = [x for x in read_metrics(tmp_path / 'experiments/run/metrics.jsonl') if x['event'] == 'train']
    rates = [line['lrs'][0] for line in lines]
    assert rates == pytest.approx([1e-3, 1e-4, 1e-3, 1e-4, 1e-3, 1e-4, 1e-4])
    assert [entry['round'] for entry in lines] == [0, 0, 1, 1, 2, 2, 2]
    assert all(0 < entry['importance'] <= 1 and 0 <= entry['importance_at_1'] <= 1 for entry in lines)
    assert 'round 1' in log_text(tmp_path / 'experiments/run')


def test_momentum_is_kept_where_the_learning_rate_restarts(images, tmp_path):
    model = built(ail_options(images), tmp_path)
    (optimizer,) = model.optimizers
    for iteration in (1, 2):
        model.update_learning_rate(iteration)
        model.feed_data(model.images.batch(0))
        model.optimize_parameters(iteration)
    momentum = [state['momentum_buffer'].clone() for state in optimizer.state.values()]
    rates = [optimizer.param_groups[0]['lr']]
    model.update_learning_rate(3)
    rates.append(optimizer.param_groups[0]['lr'])
    assert rates == pytest.approx([1e-4, 1e-3])
    assert momentum and all(value.abs().max() > 0 for value in momentum)
    for state, before in zip(optimizer.state.values(), momentum, strict=True):
        assert torch.equal(state['momentum_buffer'], before)


def test_pictures_of_chosen_images(images, tmp_path):
    assert train(tmp_path, ail_options(images, pictures=['coffee'])) == 0
    folder = tmp_path / 'experiments/run/importance/pictures'
    assert sorted(path.name for path in folder.iterdir()) == [f'coffee_round{number:02d}.png' for number in range(3)]
    means = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).mean() for path in sorted(folder.iterdir())]
    assert means == sorted(means) and means[0] < means[2]


def test_rounds_in_epochs(images, tmp_path):
    """Ten samples an epoch (five images, twice), two a batch: half an epoch is two iterations (2.5, rounded to even)."""
    options = ail_options(images, round_iterations=None, round_epochs=0.5)
    assert train(tmp_path, options) == 0
    records = json.loads((tmp_path / 'experiments/run/importance/rounds.json').read_text())
    assert [record['iteration'] for record in records] == [0, 2, 4]


# ---- maps ------------------------------------------------------------------------------------------------------------


def test_windows_of_maps_are_flipped_as_samples_are(tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 256, (20, 31, 3)), rng.integers(0, 256, (17, 12, 3))]
    maps = ImportanceMaps(tmp_path, [v.shape[:2] for v in values], 3, 'uint8')
    maps.make(0, 'key', lambda image: (torch.from_numpy(values[image].transpose(2, 0, 1) / 255), 1.0), {})
    for flags in np.ndindex(2, 2, 2):
        geometry = Geometry(1, 3, 2, 9, 7, *map(bool, flags))
        expected = augment(values[1][3:12, 2:9], geometry).transpose(2, 0, 1) / np.float32(255)
        torch.testing.assert_close(maps.read(geometry), torch.from_numpy(expected.astype(np.float32)), rtol=0, atol=0)


@pytest.mark.parametrize(('dtype', 'error'), [('float16', 2.5e-4), ('uint8', 2e-3)])
def test_stored_maps_are_as_exact_as_documented(tmp_path, dtype, error):
    weights = torch.cat([torch.linspace(0, 1, 10_000), torch.tensor([0.0, 1.0])]).reshape(1, 1, -1)
    maps = ImportanceMaps(tmp_path, [(1, 10_002)], 1, dtype)
    maps.make(0, 'key', lambda image: (weights, 0.0), {})
    stored = maps.read(Geometry(0, 0, 0, 1, 10_002))
    assert (stored - weights).abs().max() <= error
    assert stored[0, 0, -2:].tolist() == [0, 1]
    assert maps.record['mean'] == pytest.approx(0.5, abs=1e-3)
    assert maps.record['share_at_one'] == pytest.approx((stored == 1).float().mean().item())


def test_maps_of_something_else_are_not_opened(tmp_path):
    maps = ImportanceMaps(tmp_path, [(4, 4)], 1)
    maps.make(0, 'key', lambda image: (torch.ones(1, 4, 4), 0.0), {})
    assert maps.open(0, 'key') and not maps.open(0, 'other') and not maps.open(1, 'key')
    assert not ImportanceMaps(tmp_path, [(4, 5)], 1).open(0, 'key')
    weights = [torch.zeros(3)]
    assert key_of(weights, {'step': 1}) == key_of([torch.zeros(3)], {'step': 1})
    assert key_of(weights, {'step': 1}) not in (key_of(weights, {'step': 2}), key_of([torch.ones(3)], {'step': 1}))


def test_an_interrupted_update_goes_on_and_other_weights_start_anew(tmp_path):
    done = []

    def make(maps, key, stop=None):
        def one(image):
            if image == stop:
                raise KeyboardInterrupt
            done.append(image)
            return torch.full((1, 4, 4), image / 4), 0.0

        maps.make(1, key, one, {})

    maps = ImportanceMaps(tmp_path, [(4, 4)] * 4, 1)
    with pytest.raises(KeyboardInterrupt):
        make(maps, 'a', stop=2)
    assert not maps.open(1, 'a')
    make(maps, 'a')
    assert done == [0, 1, 2, 3]
    assert [maps.read(Geometry(i, 0, 0, 4, 4)).mean().item() for i in range(4)] == [0, 0.25, 0.5, 0.75]
    with pytest.raises(KeyboardInterrupt):
        make(maps, 'b', stop=2)
    make(maps, 'c')
    assert done == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3]


def test_maps_stay_until_two_checkpoints_are_past_them(images, tmp_path):
    assert train(tmp_path, ail_options(images)) == 0
    assert [p.name for p in sorted((tmp_path / 'experiments/run/importance').glob('round_*'))] == ['round_002']
    options = ail_options(images, rounds=3)
    assert train(tmp_path, {**options, 'name': 'other'}) == 0  # the last round has one checkpoint only
    names = [p.name for p in sorted((tmp_path / 'experiments/other/importance').glob('round_*'))]
    assert names == ['round_002', 'round_003']


# ---- resuming and ranks ------------------------------------------------------------------------------------------------


def dies_at(root: Path, options: dict, target: str, call: int) -> None:
    """Trains until a call of a function, then dies as by kill -9; resumes; 137 means that it died."""
    module, _, path = target.partition(':')

    def child() -> int:
        owner_name, name = path.split('.')
        owner = getattr(__import__(module, fromlist=['_']), owner_name)
        original, calls = getattr(owner, name), [0]

        def dying(*arguments, **named):
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), 9)
            return original(*arguments, **named)

        setattr(owner, name, dying)
        return run(root, root / 'o.yml')

    write_options(root / 'o.yml', options)
    assert forked(child) == -9
    assert forked(run, root, root / 'o.yml', '--auto_resume') == 0


@pytest.mark.parametrize(
    ('target', 'call'),
    [
        ('basicsr_ext.models.importance_maps:ImportanceMaps._stored', 3),  # making the first maps
        ('basicsr_ext.models.importance_maps:ImportanceMaps._stored', 8),  # in the first update
        ('basicsr_ext.models.importance_maps:ImportanceMaps._commit', 3),
        ('basicsr_ext.models.ail_model:AILModel._note_round', 2),  # after an update
        ('basicsr_ext.models.ail_model:AILModel.training_step', 4),  # within a round
    ],
)
def test_recursive_form_resumes_to_the_bit(images, tmp_path, uninterrupted, target, call):
    dies_at(tmp_path, ail_options(images), target, call)
    assert final_state(tmp_path) == uninterrupted('recursive')[0]
    assert (tmp_path / 'experiments/run/importance/rounds.json').read_text() == uninterrupted('recursive')[1]


def test_direct_form_resumes_to_the_bit(images, tmp_path, uninterrupted):
    dies_at(tmp_path, ail_options(images, form='direct'), 'basicsr_ext.models.ail_model:AILModel.training_step', 6)
    assert final_state(tmp_path) == uninterrupted('direct')[0]


@pytest.fixture(scope='module')
def uninterrupted(images, tmp_path_factory):
    """Final states, and records of the rounds, of runs that nobody stopped."""
    made = {}

    def get(form: str) -> tuple[dict, str]:
        if form not in made:
            root = tmp_path_factory.mktemp('whole')
            assert train(root, ail_options(images, form=form)) == 0
            made[form] = final_state(root), (root / 'experiments/run/importance/rounds.json').read_text()
        return made[form]

    return get


def test_lost_maps_are_an_error(images, tmp_path, capfd):
    options = ail_options(images)
    options['train']['total_iter'] = 4
    assert train(tmp_path, options) == 0
    (tmp_path / 'experiments/run/importance/round_001/maps.bin').write_bytes(b'')
    options['train']['total_iter'] = 5
    assert train(tmp_path, options, '--auto_resume') == 2
    assert 'importance maps of round 1 are missing' in capfd.readouterr().err


def ranks_run(root: str, path: str, *arguments: str, status: int = 0) -> None:
    os.chdir(root)
    assert main(['train', '-opt', path, '--launcher', 'pytorch', *arguments]) == status


@pytest.mark.parametrize('form', ['recursive', 'direct'])
def test_two_ranks_train_as_one(images, tmp_path, form):
    options = ail_options(images, form=form)
    roots = [tmp_path / 'one', tmp_path / 'two']
    for root in roots:
        root.mkdir()
    assert train(roots[0], options) == 0
    options['datasets']['train']['batch_size_per_gpu'] = 1
    on_ranks(2, ranks_run, str(roots[1]), str(write_options(roots[1] / 'o.yml', options)))
    assert_same_weights(*(network_weights(root, iteration=7) for root in roots), tolerance=1e-6)
    if form == 'recursive':
        records = [json.loads((r / 'experiments/run/importance/rounds.json').read_text()) for r in roots]
        for one, two in zip(*records, strict=True):
            assert one['mean'] == pytest.approx(two['mean'], abs=1e-5)


@pytest.mark.parametrize('form', ['recursive', 'direct'])
def test_a_round_goes_on_with_another_number_of_ranks(images, tmp_path, form):
    """Saved within round 1, which is known to every rank; rounds of so many iterations stay as long."""
    options = ail_options(images, form=form)
    options['train']['total_iter'] = 3
    assert train(tmp_path, options) == 0
    options['train']['total_iter'] = 4
    on_ranks(2, ranks_run, str(tmp_path), str(write_options(tmp_path / 'o.yml', options)), '--auto_resume')
    lines = read_metrics(tmp_path / 'experiments/run/metrics.jsonl')
    assert [(x['iteration'], x['round']) for x in lines if x['event'] == 'train'][2:] == [(3, 1), (4, 1)]
    if form == 'recursive':
        records = json.loads((tmp_path / 'experiments/run/importance/rounds.json').read_text())
        assert [record['round'] for record in records] == [0, 1]


def test_a_round_of_epochs_that_get_shorter_cannot_go_on(images, tmp_path, capfd):
    options = ail_options(images, round_iterations=None, round_epochs=0.4)  # 2 iterations with one rank, and 1 with two
    options['train']['total_iter'] = 3
    assert train(tmp_path, options) == 0
    options['train']['total_iter'] = 6
    path = str(write_options(tmp_path / 'o.yml', options))
    on_ranks(2, _refused, str(tmp_path), path)
    assert (
        'belongs to round 1. With this number of ranks epochs, and so rounds, have another length'
        in capfd.readouterr().err
    )


def _refused(root: str, path: str) -> None:
    ranks_run(root, path, '--auto_resume', status=2)


class Normalised(torch.nn.Module):
    """Its running statistics differ from rank to rank."""

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)
        self.up = torch.nn.ConvTranspose2d(3, 3, 2, 2)

    def forward(self, x):
        return self.up(self.norm(x))


def test_ranks_agree_on_maps_though_running_statistics_differ(images, tmp_path):
    ARCH_REGISTRY._do_register('AILTestNormalised', Normalised) if 'AILTestNormalised' not in ARCH_REGISTRY else None
    options = ail_options(images, rounds=1)
    options['network_g'] = {'type': 'AILTestNormalised'}
    options['datasets']['train']['batch_size_per_gpu'] = 1
    on_ranks(2, ranks_run, str(tmp_path), str(write_options(tmp_path / 'o.yml', options)))


# ---- forms and initialisations ---------------------------------------------------------------------------------------


def built(options: dict, root: Path, train_set=None) -> AILModel:
    from basicsr.data import build_dataset

    with model_options(options, root) as opt:
        opt['datasets']['train'].update(phase='train', scale=2)
        model = AILModel(opt)
        model.bind(train_set or build_dataset(opt['datasets']['train']))
        return model


@pytest.mark.parametrize('form', ['recursive', 'direct'])
@pytest.mark.parametrize(('initialization', 'mean'), [('zeros', 0), ('ones', 1), ('random', 0.5)])
def test_initialisations(images, tmp_path, form, initialization, mean):
    model = built(ail_options(images, form=form, initialization=initialization, teacher=None), tmp_path)
    model.importance.begin(0, 0)
    batch = model.images.batch(1)
    weights = model.importance.of(batch)
    assert weights.shape == batch['gt'].shape
    assert weights.mean().item() == pytest.approx(mean, abs=0.02)
    if initialization == 'random':  # a window of the direct form is that of the map
        window = Geometry(1, 6, 4, 8, 10, True, False, True)
        part = model.importance.of({'geometry': torch.tensor([window]), 'gt': torch.zeros(1, 3, 10, 8), 'lq': None})
        whole = weights[0].permute(1, 2, 0).numpy()
        expected = torch.from_numpy(augment(whole[6:14, 4:14], window).transpose(2, 0, 1).copy())
        torch.testing.assert_close(part[0], expected, rtol=0, atol=0)


def test_zeros_train_nothing_in_round_0(images, tmp_path):
    """Nor does weight decay wear the weights away."""
    options = ail_options(images, initialization='zeros', teacher=None)
    options['train']['total_iter'] = 3
    options['train']['optim_g']['weight_decay'] = 0.1
    assert train(tmp_path, options) == 0
    first, second, third = (network_weights(tmp_path, iteration=iteration) for iteration in (1, 2, 3))
    assert_same_weights(first, second)
    assert any(not torch.equal(value, third['params'][name]) for name, value in first['params'].items())


def test_the_direct_form_freezes_the_student_for_a_round(images, tmp_path):
    model = built(ail_options(images, form='direct'), tmp_path)
    model.importance.begin(1, 2)
    batch = model.images.batch(0)
    before = model.importance.of(batch)
    with torch.no_grad():
        for parameter in model.net_g.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(model.importance.of(batch), before, rtol=0, atol=0)
    model.importance.begin(1, 2)
    assert not torch.equal(model.importance.of(batch), before)


def test_distillation_is_the_formula(images, tmp_path):
    options = ail_options(images, form='distillation', rounds=0, round_iterations=None, distillation_weight=0.1)
    model = built(options, tmp_path)
    batch = model.images.batch(0)
    lq, target = model.prepare_batch(batch, 1)
    output = model.net_g(lq)
    losses = model.generator_losses(output, target)
    expected = (output - batch['gt']).square().sum(), 0.1 * (output - model.teacher(lq)).square().sum()
    torch.testing.assert_close((losses['l_pix'], losses['l_distill']), expected)
    assert train(tmp_path, options) == 0


def test_a_tiled_update_is_that_of_whole_images(images, tmp_path):
    options = ail_options(images, update_tile=20, update_overlap=16)
    maps = []
    for name, tile in (('whole', None), ('tiled', 20)):
        options['train']['ail']['update_tile'] = tile
        torch.manual_seed(1)
        model = built({**options, 'name': name}, tmp_path)
        model.importance.begin(0, 0)
        model.importance.begin(1, 2)
        maps.append(model.importance.of(model.images.batch(2)))
    torch.testing.assert_close(*maps, rtol=0, atol=1e-3)


def test_accumulation_splits_the_importance_too(images, tmp_path):
    options = ail_options(images)
    options['train']['pixel_opt']['reduction'] = 'mean'
    roots = [tmp_path / 'one', tmp_path / 'two']
    for root, parts in zip(roots, (1, 2), strict=True):
        root.mkdir()
        options['train']['accumulate'] = parts
        assert train(root, options) == 0
    assert_same_weights(*(network_weights(root, iteration=7) for root in roots), tolerance=1e-6)


# ---- options that do not go together ---------------------------------------------------------------------------------


def without_geometry(options):
    del options['datasets']['train']['geometry']


def stock_dataset(options):
    train = options['datasets']['train']
    for key in ('geometry', 'output'):
        del train[key]
    train.update(type='PairedImageDataset', io_backend={'type': 'disk'})


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'teacher': None}, 'train.ail.teacher: initialization: teacher needs a network'),
        (
            {'form': 'distillation', 'initialization': 'ones', 'teacher': None},
            'train.ail.teacher: form: distillation needs',
        ),
        ({'round_iterations': None}, 'found neither'),
        ({'round_epochs': 2}, 'found both'),
        ({'pictures': ['lena']}, 'expected keys of training images'),
        ({'step': 3}, 'train.ail.step'),
        ({'initialization': 'zeros', 'rounds': 0}, 'train.ail.rounds: expected at least 1'),
        ({'teacher': {'network': dict(TINY_EDSR), 'weights': 'nowhere.pth'}}, 'train.ail.teacher.weights'),
        (
            {'teacher': {'network': {**TINY_EDSR, 'num_feet': 4}, 'weights': 'nowhere.pth'}},
            'train.ail.teacher.network.num_feet',
        ),
        ({'teacher': {'network': {'type': 'EDSSR'}, 'weights': 'nowhere.pth'}}, 'train.ail.teacher.network.type'),
        ({'rouds': 3}, 'did you mean "rounds"'),
        (without_geometry, 'datasets.train.geometry: expected true'),
        (stock_dataset, 'expected PairedStoreDataset, found PairedImageDataset'),
    ],
)
def test_refused_options(images, tmp_path, capfd, change, message):
    options = ail_options(images, **({} if callable(change) else change))
    if callable(change):
        change(options)
    assert train(tmp_path, options) == 2
    assert message in capfd.readouterr().err.replace('\n', ' ')


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            {'num_in_ch': 1, 'num_out_ch': 1, 'img_range': 1, 'rgb_mean': [0]},
            'for 3 channels, as the student, found one for 1',
        ),
        ({'upscale': 4}, 'expected a network that enlarges 2 times'),
    ],
)
def test_refused_teachers(images, tmp_path, changes, message):
    network = {**TINY_EDSR, **changes}
    if 'rgb_mean' in changes:
        network = {
            'type': 'SRVGGNetCompact',
            'num_in_ch': 1,
            'num_out_ch': 1,
            'num_feat': 4,
            'num_conv': 1,
            'upscale': 2,
        }
    torch.save({'params': build_network(dict(network)).state_dict()}, tmp_path / 'teacher.pth')
    options = ail_options(images, teacher={'network': network, 'weights': str(tmp_path / 'teacher.pth')})
    with pytest.raises(UserError, match=message):
        built(options, tmp_path)


def test_teachers_of_any_build(images, tmp_path):
    """RRDBNet's first convolution has twelve channels, since it folds the pixels of x2 images; it takes three."""
    network = {
        'type': 'RRDBNet',
        'num_in_ch': 3,
        'num_out_ch': 3,
        'scale': 2,
        'num_feat': 4,
        'num_block': 1,
        'num_grow_ch': 4,
    }
    torch.save(build_network(dict(network)).state_dict(), tmp_path / 'teacher.pth')
    built(ail_options(images, teacher={'network': network, 'weights': str(tmp_path / 'teacher.pth')}), tmp_path)


@pytest.mark.parametrize('form', ['recursive', 'direct'])
def test_networks_that_work_in_windows(images, tmp_path, form):
    """LQ images are 24x30: no multiples of the window."""
    options = ail_options(images, form=form)
    options['network_g'] = {
        'type': 'SwinIR', 'upscale': 2, 'img_size': 8, 'window_size': 8, 'depths': [1], 'embed_dim': 4, 'num_heads': [1],
        'mlp_ratio': 1, 'upsampler': 'pixelshuffledirect',
    }  # fmt: skip
    options['datasets']['train']['gt_size'] = 16
    assert train(tmp_path, options) == 0
    assert len(list((tmp_path / 'experiments/run/importance/pictures').iterdir())) == 9


def test_a_model_that_met_no_images_says_so(images, tmp_path):
    with model_options(ail_options(images), tmp_path) as opt:
        model = AILModel(opt)
    with pytest.raises(UserError, match='train with "basicsr train"'):
        model.update_learning_rate(1)


def test_a_moved_teacher_may_go_on(images, tmp_path, capfd):
    options = ail_options(images, step=0.15)
    options['train']['total_iter'] = 3
    assert train(tmp_path, options) == 0
    teacher = tmp_path / 'moved.pth'
    teacher.write_bytes((images / 'teacher.pth').read_bytes())
    options['train']['ail']['teacher']['weights'] = str(teacher)
    options['train']['total_iter'] = 5
    assert train(tmp_path, options, '--auto_resume') == 0
    options['train']['ail']['step'] = 0.2
    options['train']['total_iter'] = 6
    assert train(tmp_path, options, '--auto_resume') == 2
    assert 'train.ail.step (was 0.15, is 0.2)' in capfd.readouterr().err


def test_a_pretrained_student_starts_the_run(images, tmp_path):
    options = ail_options(images)
    options['path']['pretrain_network_g'] = str(images / 'teacher.pth')
    model = built(options, tmp_path)
    teacher = torch.load(images / 'teacher.pth')['params']
    assert all(torch.equal(value, teacher[name]) for name, value in model.net_g.state_dict().items())
