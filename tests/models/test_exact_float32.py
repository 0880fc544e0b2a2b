"""What is stored, compared or reported is computed in float32, without autocast and TF32, whatever training's precision is."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ail_runs import ail_options, write_ail_images
from basicsr.archs import build_network
from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY
from criacl_runs import batch as cria_batch
from criacl_runs import built as built_criacl
from criacl_runs import criacl_options
from criacl_runs import make_images as make_vgg
from lfcsr_runs import batches, built, lfcsr_options, play
from run_helpers import TINY_EDSR, eco_options, model_options, sr_options, write_weights

from basicsr_ext.checking.dataset_building import build_dataset
from basicsr_ext.functional.importance import initial_importance, raised_importance
from basicsr_ext.functional.precision import exact_float32
from basicsr_ext.functional.wavelet import haar_low
from basicsr_ext.metrics.registering import metric
from basicsr_ext.models.ail.ail_model import AILModel
from basicsr_ext.models.eco_model import ECOModel
from basicsr_ext.models.training_model import TrainingModel
from basicsr_ext.networks.inference import Inference, super_resolve

EXACT = (False, False, 'highest')


@pytest.fixture(autouse=True)
def tf32_is_allowed() -> Iterator[None]:
    """As a run with ``precision: tf32`` leaves it, and as torch allows it to convolutions."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.fixture(scope='module')
def images(tmp_path_factory, photos):
    root = write_ail_images(tmp_path_factory.mktemp('images'), photos)
    make_vgg(root, photos)
    return root


def settings() -> tuple[bool, bool, str]:
    """Autocast, TF32 of convolutions, precision of products."""
    return torch.is_autocast_enabled('cpu'), torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()


def watched(network: torch.nn.Module) -> list:
    """Notes the settings of each forward; from here on TF32 is allowed."""
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.allow_tf32 = True
    found: list = []
    network.register_forward_pre_hook(lambda *_: found.append(settings()))
    return found


def ail_model(images, root, **ail) -> AILModel:
    options = ail_options(images, **ail)
    options['train']['precision'] = 'bf16'
    with model_options(options, root) as opt:
        model = AILModel(opt)
        model.bind(build_dataset(opt['datasets']['train']))
    return model


def in_float64(network: torch.nn.Module, lq: torch.Tensor) -> torch.Tensor:
    """A network's output by float64 arithmetic, for which no precision of float32 counts."""
    doubled = build_network(dict(TINY_EDSR)).double()
    doubled.load_state_dict(network.state_dict())
    for module in doubled.modules():
        if hasattr(module, 'mean') and isinstance(module.mean, torch.Tensor):
            module.mean = module.mean.double()
    doubled.mean = doubled.mean.double()
    with torch.no_grad():
        return doubled(lq.double())


def test_importance_and_its_maps(images, tmp_path):
    """Of round 0 from the teacher, of round 1 from the student; float16 maps are within their rounding."""
    model = ail_model(images, tmp_path)
    batch = model.images.batch(0)
    seen = watched(model.teacher), watched(model.net_g)
    first = initial_importance((in_float64(model.teacher, batch['lq']) - batch['gt']).abs())
    assert (model.importance.initial(batch) - first).abs().max() < 1e-4
    model.importance.begin(0, 0)
    assert (model.importance.of(batch) - first).abs().max() < 1e-3
    model.importance.begin(1, 2)
    error = in_float64(model.net_g, batch['lq']) - batch['gt']
    expected = raised_importance(first, error.square(), model.ail.step)
    assert (model.importance.of(batch) - expected).abs().max() < 2e-3
    assert all(seen) and all(found == EXACT for network in seen for found in network)


def test_importance_of_the_direct_form(images, tmp_path):
    model = ail_model(images, tmp_path, form='direct')
    seen = watched(model.teacher)
    model.importance.begin(0, 0)
    model.importance.begin(1, 2)
    seen_before = watched(model.importance.student_before)
    batch = model.images.batch(0)
    weights = model.importance.of(batch)
    assert set(seen) == set(seen_before) == {EXACT} and weights.dtype == torch.float32


def test_targets_of_distillation(images, tmp_path):
    model = ail_model(images, tmp_path, form='distillation', rounds=0, round_iterations=None)
    seen = watched(model.teacher)
    batch = model.images.batch(0)
    target = model.prepare_batch(batch, 1)[1][:, 3:]
    assert seen == [EXACT]
    assert (target - in_float64(model.teacher, batch['lq'])).abs().max() < 1e-5


def test_centroids_made_online(tmp_path):
    teacher = {'network': dict(TINY_EDSR), 'weights': write_weights(tmp_path / 'teacher.pth')}
    options = eco_options(tmp_path, teacher=teacher, objective='noise_free')
    options['train']['precision'] = 'bf16'
    with model_options(options, tmp_path) as opt:
        model = ECOModel(opt)
    seen = watched(model.teacher)
    lq = torch.rand(2, 3, 8, 8)
    centroid = model.prepare_batch({'lq': lq, 'gt': torch.rand(2, 3, 16, 16)}, 1)[1]
    assert seen == [EXACT]
    assert (centroid - in_float64(model.teacher, lq).clamp(0, 1)).abs().max() < 1e-5


def test_centroids_of_stores_and_upscaled_images():
    """In fp32; another precision is what a user has asked for, and then all but the network is exact."""
    network = build_network(dict(TINY_EDSR))
    seen = watched(network)
    super_resolve(network, torch.rand(1, 3, 8, 8), Inference(scale=2))
    assert seen == [EXACT]
    super_resolve(network, torch.rand(1, 3, 8, 8), Inference(scale=2, precision='bf16'))
    assert seen[1][0]


@pytest.mark.parametrize('val', [{}, {'tile': 8, 'overlap': 2}])
def test_images_that_validation_measures(tmp_path, val):
    options = sr_options(tmp_path)
    options['train']['precision'] = 'bf16'
    options['val'].update(val)
    with model_options(options, tmp_path) as opt:
        model = TrainingModel(opt)
    seen = watched(model.net_g)
    model.feed_data({'lq': torch.rand(1, 3, 16, 16)})
    model.test()
    assert set(seen) == {EXACT}
    if not val:  # tiles differ at their seams
        assert (model.output - in_float64(model.net_g, model.lq)).abs().max() < 1e-5


def test_metrics():
    found = []
    watched(torch.nn.Identity())
    try:

        @metric('higher', lambda **_: None)
        def settings_of_a_metric(img):
            found.append(settings())
            return 1.0

        with torch.autocast('cpu', torch.bfloat16):
            calculate_metric({'img': np.zeros((4, 4, 3), np.uint8)}, {'type': 'settings_of_a_metric'})
    finally:
        del METRIC_REGISTRY._obj_map['settings_of_a_metric']
    assert found == [EXACT]


def test_the_moving_average(tmp_path):
    """Of bf16 steps: the formula in float64 on the float32 weights of each step."""
    options = sr_options(tmp_path)
    options['train'].update(precision='bf16', ema_decay=0.9)
    with model_options(options, tmp_path) as opt:
        model = TrainingModel(opt)
    expected = {key: value.double() for key, value in model.net_g.state_dict().items()}
    for iteration in range(1, 4):
        model.feed_data({'lq': torch.rand(2, 3, 8, 8), 'gt': torch.rand(2, 3, 16, 16)})
        model.optimize_parameters(iteration)
        for key, value in model.net_g.state_dict().items():
            expected[key] = 0.9 * expected[key] + 0.1 * value.double()
    for key, value in model.net_g_ema.state_dict().items():
        assert value.dtype == torch.float32
        assert (value - expected[key]).abs().max() < 1e-6


@pytest.mark.parametrize('low_frequency', ['haar', 'gaussian'])
def test_the_dual_variable(images, tmp_path, low_frequency):
    """After a step in bf16: the difference of the bands that the new weights make in float32."""
    options = lfcsr_options(images, admm_start_iter=0, low_frequency=low_frequency)
    options['train']['precision'] = 'bf16'
    model = built(options, tmp_path)
    seen = watched(model.net_g.stage_o)
    play(model, batches(1))
    assert seen[-1] == EXACT and seen[0][0]
    with torch.no_grad(), exact_float32('cpu'):
        after = model.net_g(batches(1)[0]['lq'], return_stages=True)
        difference = model._bands(after.perceptual) - model._bands(after.objective)
    assert (model.dual - difference).abs().max() < 1e-5 < haar_low(after.objective).abs().max() * 2**-9


def test_criteria_that_are_logged(images, tmp_path):
    """The discriminator's opinion too; those that are losses are logged as the losses are."""
    options = criacl_options(images, logged=['adv', 'pix', 'perc_b'], positives=['ssim'], negatives=[])
    options['train']['precision'] = 'bf16'
    model = built_criacl(options, tmp_path)
    seen = watched(model.criteria['cria'].criteria), watched(model.net_d)
    model.feed_data(cria_batch())
    model.optimize_parameters(1)
    assert EXACT in seen[0] and EXACT in seen[1]
    assert math.isfinite(model.get_current_log()['c_adv_align'])
    measured = model.discriminate_no_grad(cria_batch()['gt'])
    network = model.net_d.eval()
    with torch.no_grad(), exact_float32('cpu'):
        assert torch.equal(measured, network(cria_batch()['gt']))


def test_settings_are_put_back():
    watched(torch.nn.Identity())
    with torch.autocast('cpu', torch.bfloat16), exact_float32('cpu'):
        assert settings() == EXACT
    with pytest.raises(ZeroDivisionError), exact_float32('cpu'):
        print(1 / 0)
    assert settings() == (False, True, 'high')
