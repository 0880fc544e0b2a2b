"""ECO: what noise depends on, and how the online teacher runs."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import torch
from basicsr.archs import build_network
from run_helpers import TINY_EDSR, eco_options, model_options, on_ranks

from basicsr_ext.functional.resize import downsample
from basicsr_ext.models.eco_model import ECOModel


def build(root, seed=7, **eco):
    options = eco_options(root, **eco)
    options['manual_seed'] = seed
    with model_options(options, root) as opt:
        return ECOModel(opt)


def grey(count):
    return {'lq': torch.full((count, 3, 8, 8), 0.5), 'gt': torch.full((count, 3, 16, 16), 0.5)}


def noisy(model, count=4, iteration=2):
    return model.prepare_batch(grey(count), iteration)[0]


def test_noise_is_keyed_by_seed_iteration_and_place(tmp_path):
    eco = {'objective': 'vanilla', 'noise_sigma': 0.05}
    model, same, other = (build(tmp_path, seed, **eco) for seed in (7, 7, 8))
    first = noisy(model)
    assert torch.equal(first, noisy(same))
    assert not torch.equal(first, noisy(other))
    assert not torch.equal(first, noisy(model, iteration=3))
    assert all(not torch.equal(first[0], sample) for sample in first[1:])
    torch.manual_seed(0)
    assert torch.equal(first, noisy(model))  # nothing is drawn from, or depends on, the global generator


def _noise_of_a_rank(root, expected):
    options = eco_options(root, objective='vanilla', noise_sigma=0.05)
    with model_options(options, root, launcher='pytorch') as opt:
        model = ECOModel(opt)
        assert torch.equal(noisy(model, count=2), expected[opt['rank'] :: 2])


def test_two_ranks_add_the_noise_of_one(tmp_path):
    """The sampler gives every other sample to each rank."""
    expected = noisy(build(tmp_path, objective='vanilla', noise_sigma=0.05))
    on_ranks(2, _noise_of_a_rank, tmp_path, expected)


@pytest.fixture
def teacher(tmp_path):
    torch.manual_seed(3)
    torch.save(build_network(TINY_EDSR).state_dict(), tmp_path / 'teacher.pth')
    return {'network': TINY_EDSR, 'weights': str(tmp_path / 'teacher.pth')}


def test_the_online_teacher_stays_in_evaluation_mode_and_is_not_trained(tmp_path, teacher):
    model = build(tmp_path, teacher=teacher)
    before = [p.detach().clone() for p in model.teacher.parameters()]
    for iteration in (1, 2):
        model.feed_data(grey(2))
        model.optimize_parameters(iteration)
    assert not any(module.training for module in model.teacher.modules())
    assert not any(p.requires_grad for p in model.teacher.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.teacher.parameters(), strict=True))


def test_centroids_of_the_online_teacher_are_clamped_to_images(tmp_path, teacher):
    model = build(tmp_path, objective='noise_free', teacher=teacher)
    beyond = torch.linspace(-1, 2, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
    model.teacher.register_forward_hook(lambda module, inputs, output: beyond)
    lq, gt = model.prepare_batch(grey(2), 1)
    assert torch.equal(gt, beyond.clamp(0, 1))
    assert torch.equal(lq, downsample(beyond.clamp(0, 1), 2))
