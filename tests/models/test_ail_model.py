"""AIL: rounds, both forms, initialisations, and options that do not go together."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from ail_runs import ail_options, train, write_ail_images
from basicsr.archs import build_network
from run_helpers import TINY_EDSR, assert_same_weights, log_text, model_options, network_weights

from basicsr_ext.checking.check import check
from basicsr_ext.data.crop_geometry import Geometry, augment
from basicsr_ext.distributed import Ranks
from basicsr_ext.errors import UserError
from basicsr_ext.functional.importance import initial_importance, raised_importance
from basicsr_ext.models.ail.ail_model import AILModel
from basicsr_ext.models.ail.map_files import ImportanceMaps
from basicsr_ext.models.ail.rounds import RoundMeans
from basicsr_ext.models.teacher import check_alike
from basicsr_ext.storage import open_store
from basicsr_ext.trainer.metrics_log import read_metrics


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    """A tiny image set and a teacher that is near the truth; read only."""
    return write_ail_images(tmp_path_factory.mktemp('ail'), photos)


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
                raised_importance(w, (student(lq) - gt).square()) for w, (lq, gt) in zip(expected, pairs, strict=True)
            ]
    maps = ImportanceMaps(experiment / 'importance', [tuple(gt.shape[-2:]) for _, gt in pairs], 3)
    assert maps.open(2, None)
    for image, weights in enumerate(expected):
        ours = maps.read(Geometry(image, 0, 0, *weights.shape[-2:]))
        error = ours - weights[0]
        assert (
            error.min() > -1e-5 and error.max() < 3 / 2048 and error.mean() < 1.5 / 2048
        )  # stored as float16 three times
    records = json.loads((experiment / 'importance/rounds.json').read_text())
    assert [(record['round'], record['iteration']) for record in records] == [(0, 0), (1, 2), (2, 4)]
    means = [record['mean'] for record in records]
    assert means == sorted(means) and means[0] < means[2]
    assert means[2] == pytest.approx(torch.cat([w.flatten() for w in expected]).mean().item(), abs=1.5 / 2048)
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


@pytest.mark.parametrize('form', ['recursive', 'direct'])
def test_every_round_is_told_in_the_log_and_the_records(images, tmp_path, form):
    """Mean importance, share at 1 and PSNR: in rounds.json, in the log, and in metrics.jsonl beside the validation."""
    options = ail_options(images, form=form)
    options['train']['total_iter'], options['val']['val_freq'] = 6, 2
    assert train(tmp_path, options) == 0
    experiment = tmp_path / 'experiments/run'
    records = json.loads((experiment / 'importance/rounds.json').read_text())
    begin, end = [0, 2, 4], [2, 4, 6]
    assert [record['iteration'] for record in records] == (begin if form == 'recursive' else end)
    assert [record['round'] for record in records] == [0, 1, 2]
    for record in records:
        assert ('psnr' in record) == (record['round'] > 0)
        words = (
            f'AIL round {record["round"]}, after iteration {record["iteration"]}, mean importance {record["mean"]:.4f}'
        )
        assert f'{words}, share at 1 {record["share_at_one"]:.4f}' in log_text(experiment)
    lines = read_metrics(experiment / 'metrics.jsonl')
    trained = [line for line in lines if line['event'] == 'train']
    for record, line in zip(records, trained[1::2], strict=True):  # the last of each round
        for name in ('mean', 'share_at_one', 'psnr'):
            assert line.get(f'round_{name}') == (pytest.approx(record[name], rel=1e-6) if name in record else None)
    validated = [line for line in lines if line['event'] == 'validation']
    assert [line['iteration'] for line in validated] == end and all('psnr' in line['metrics'] for line in validated)
    if form == 'direct':  # of both batches of a round
        for number, record in enumerate(records):
            batches = [line['importance'] for line in trained[2 * number : 2 * number + 2]]
            assert record['mean'] == pytest.approx(sum(batches) / 2, rel=1e-5)
        assert records[1]['psnr'] == pytest.approx(records[2]['psnr'], abs=5) and records[1]['psnr'] > 10


def test_means_of_a_round_are_those_of_the_batches_of_all_ranks():
    rng = torch.Generator().manual_seed(0)
    batches = [torch.rand(3, 2, 1, 4, 4, generator=rng) for _ in range(4)]
    for batch in batches:
        batch[0].mul_(1.5).clamp_(max=1)
    parts = RoundMeans(), RoundMeans()
    for number, (weights, output, gt) in enumerate(batches):
        parts[number % 2].add(weights, output, gt)
    weights, output, gt = torch.stack(batches, 1)
    found = parts[0].of_all(Ranks(0, 2, lambda _: [part.sums for part in parts]))
    assert found['mean'] == pytest.approx(weights.mean().item())
    assert 0 < found['share_at_one'] == pytest.approx((weights == 1).float().mean().item())
    assert found['psnr'] == pytest.approx(-10 * np.log10((output - gt).square().mean().item()))
    assert RoundMeans().of_all(Ranks()) == {'mean': 0, 'share_at_one': 0}  # zeros: no batch was weighted


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
    options = ail_options(images, initialization='zeros', teacher=None, rounds=1)
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
        ({'rounds': 4}, 'train.total_iter: expected more than 8 iterations, for 4 updates of the importance'),
        (
            {'rounds': 4, 'round_iterations': None, 'round_epochs': 0.5},
            'train.total_iter: expected more than 8 iterations',
        ),
        ({'initialization': 'distillation'}, 'set form: distillation for that'),
        (
            {'form': 'distillation', 'round_iterations': None},
            'train.ail.rounds: form: distillation has no importance to raise. Set rounds: 0',
        ),
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
    ('changes', 'message', 'early'),
    [
        (
            {'num_in_ch': 1, 'num_out_ch': 1, 'img_range': 1, 'rgb_mean': [0]},
            'for 3 channels, as the student, found one for 1',
            'does not take images of 3x8x8',
        ),
        ({'upscale': 4}, 'expected a network that enlarges 2 times', 'makes images of 3x32x32 .* expected 3x16x16'),
    ],
)
def test_refused_teachers(images, tmp_path, changes, message, early):
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
    with pytest.raises(UserError, match=r'train\.ail\.teacher\.network: .*' + early):
        check(options)


def test_what_a_teacher_makes_of_other_images_is_no_matter_and_want_of_memory_is():
    class Odd(torch.nn.Module):
        error: type = ValueError

        def forward(self, x):
            if x.shape[1] == 3:
                raise self.error('of its own')
            return x

    check_alike(Odd(), Odd(), 1, 16, 'teacher')
    with pytest.raises(UserError, match='expected a network for 3 channels, as the student, found one for 1'):
        check_alike(Odd(), torch.nn.Identity(), 1, 16, 'teacher')
    Odd.error = torch.OutOfMemoryError
    with pytest.raises(torch.OutOfMemoryError):
        check_alike(Odd(), Odd(), 1, 16, 'teacher')


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
    options = ail_options(images, step=0.15, rounds=1)
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


def test_an_image_that_cannot_be_read_is_named(images, tmp_path, monkeypatch):
    model = built(ail_options(images), tmp_path)
    batch = model.images.batch(1)
    assert batch['gt'].dtype == torch.float32 and batch['gt'].min() >= 0 and 0.3 < batch['gt'].max() <= 1

    def unreadable(*_):
        raise OSError(5, 'Input/output error')

    monkeypatch.setattr(model.images._train_set, 'read', unreadable)
    with pytest.raises(UserError, match=r'datasets.train: the image "chelsea" cannot be read .*Input/output error'):
        model.images.batch(1)


def test_a_pretrained_student_starts_the_run(images, tmp_path):
    options = ail_options(images)
    options['path']['pretrain_network_g'] = str(images / 'teacher.pth')
    model = built(options, tmp_path)
    teacher = torch.load(images / 'teacher.pth')['params']
    assert all(torch.equal(value, teacher[name]) for name, value in model.net_g.state_dict().items())
