"""NIQE, NRQM and PI. pyiqa is stood in for where it is not installed; its own weights are never downloaded."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

import basicsr_ext

basicsr_ext.register()

from basicsr.metrics import calculate_metric
from basicsr.utils.registry import METRIC_REGISTRY

from basicsr_ext.metrics.niqe_metric import build_niqe
from basicsr_ext.metrics.nrqm_metric import build_nrqm


@pytest.fixture
def image(photos):
    """BGR, two blocks of NIQE and a border."""
    return np.ascontiguousarray(photos['motorcycle_left'][100:204, 150:352, ::-1])


@pytest.fixture
def pyiqa(monkeypatch):
    """A stand-in whose metrics are ten times the mean of red; remembers what it was asked for."""
    asked = []

    def create_metric(name, **options):
        asked.append((name, options))
        return lambda image: 10 * image[:, 0].mean()

    monkeypatch.setitem(sys.modules, 'pyiqa', types.SimpleNamespace(create_metric=create_metric))
    forget_built()
    yield asked
    forget_built()


def forget_built():
    build_niqe.cache_clear()
    build_nrqm.cache_clear()


@pytest.fixture
def real_pyiqa():
    """The library itself, where it is installed."""
    pytest.importorskip('pyiqa', reason='needs the extra iqa')
    forget_built()
    yield
    forget_built()


def write_forests(path, values, linear):
    """Writes a model in the layout of NRQM_model.mat: for each kind of features a forest of two trees, of a root and two
    leaves, of which the first gives the value and the second the value and 2 for whatever features.
    """

    def tree(*nodes):
        return np.array(nodes, np.float64)[:, None].repeat(2, 1)

    cells = np.empty((1, len(values)), object)
    for place, value in enumerate(values):
        left, right = np.array([[2, 2], [0, 0], [0, 0]]), np.array([[3, 3], [0, 0], [0, 0]])
        threshold, best = tree(0, 0, 0), np.ones((3, 2), int)
        threshold[0] = np.inf, -np.inf  # one goes to the left, the other to the right
        cells[0, place] = {
            'lDau': left, 'rDau': right, 'nodestatus': tree(1, -1, -1), 'nrnodes': 3, 'upper': threshold,
            'avnode': tree(0, value, value + 2), 'mbest': best,
        }  # fmt: skip
    scipy.io.savemat(path, {'model': {'linear': np.array(linear, np.float64)[:, None], 'rf': cells}})


def test_nrqm_of_pyiqa_itself(image, real_pyiqa, tmp_path):
    """The linear mean of three forests; PI with it."""
    write_forests(tmp_path / 'model.mat', [1, 2, 3], [0.5, 1, 0.1, 0.01])
    options = {'crop_border': 4, 'model_path': str(tmp_path / 'model.mat'), 'device': 'cpu'}
    nrqm = calculate_metric({'img': image}, {'type': 'NRQM', **options})
    assert nrqm == pytest.approx(0.5 + 2 + 0.3 + 0.04, abs=1e-6)
    niqe = calculate_metric({'img': image}, {'type': 'NIQE', 'crop_border': 4})
    index = calculate_metric({'img': image}, {'type': 'PI', **options})
    assert index == pytest.approx(((10 - nrqm) + niqe) / 2, abs=1e-6)


def test_niqe_of_pyiqa_itself_is_that_of_basicsr(image, real_pyiqa):
    for scale in (1, 0.6):
        data = {'img': np.clip(image * scale, 0, 255).astype(np.uint8)}
        expected = calculate_metric(data, {'type': 'NIQE'})
        found = calculate_metric(data, {'type': 'NIQE', 'library': 'pyiqa', 'device': 'cpu'})
        assert found == pytest.approx(expected, rel=0.005)


def test_pyiqa_gets_the_parameters_that_basicsr_has(image, pyiqa, monkeypatch):
    from basicsr.metrics import niqe as basicsr_niqe

    models = []
    library = sys.modules['pyiqa']
    create = library.create_metric

    def create_metric(name, **options):
        if name == 'niqe':
            models.append(scipy.io.loadmat(options['pretrained_model_path']))
        return create(name, **options)

    monkeypatch.setattr(library, 'create_metric', create_metric)
    options = {'type': 'NIQE', 'library': 'pyiqa', 'device': 'cpu', 'crop_border': 4}
    value = calculate_metric({'img': image}, options)
    assert value == pytest.approx(10 * image[4:-4, 4:-4, 2].mean() / 255, abs=1e-4)
    index = calculate_metric({'img': image}, {'type': 'PI', 'crop_border': 4, 'niqe_library': 'pyiqa', 'device': 'cpu',
                                              'model_path': __file__})  # fmt: skip
    assert index == pytest.approx(((10 - value) + value) / 2, abs=1e-5)
    assert [(name, options['color_space']) for name, options in pyiqa] == [('niqe', 'ycbcr'), ('nrqm', 'ycbcr')]
    parameters = np.load(Path(basicsr_niqe.__file__).with_name('niqe_pris_params.npz'))
    for name in ('mu', 'cov'):
        np.testing.assert_array_equal(models[0][f'{name}_prisparam'], parameters[f'{name}_pris_param'])
    with pytest.raises(basicsr_ext.UserError, match='library: expected one of basicsr, pyiqa'):
        METRIC_REGISTRY.get('NIQE').check_ready(library='torch')


def test_niqe_is_basicsrs_and_judges_the_image_alone(image):
    value = calculate_metric({'img': image, 'img2': image[:5]}, {'type': 'NIQE', 'crop_border': 4, 'better': 'lower'})
    assert value == calculate_metric({'img': image}, {'type': 'calculate_niqe', 'crop_border': 4})
    noise = np.random.default_rng(0).normal(0, 25, image.shape)
    noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
    assert calculate_metric({'img': noisy}, {'type': 'NIQE', 'crop_border': 4}) > value + 1


def test_images_that_niqe_cannot_judge(image):
    with pytest.raises(basicsr_ext.UserError, match='at least two blocks of 96x96 pixels, found 104x191 pixels'):
        calculate_metric({'img': image[:, :191]}, {'type': 'NIQE'})
    with pytest.raises(basicsr_ext.UserError, match='too few blocks with texture'):
        calculate_metric({'img': np.full_like(image, 90)}, {'type': 'NIQE'})


def test_images_that_niqe_of_pyiqa_cannot_judge(image, real_pyiqa):
    with pytest.raises(basicsr_ext.UserError, match='too few blocks with texture'):
        calculate_metric({'img': np.full_like(image, 90)}, {'type': 'NIQE', 'library': 'pyiqa', 'device': 'cpu'})


def test_nrqm_gives_pyiqa_rgb_within_the_border(image, pyiqa, tmp_path):
    (tmp_path / 'model.mat').touch()
    options = {'type': 'NRQM', 'crop_border': 4, 'model_path': str(tmp_path / 'model.mat'), 'device': 'cpu'}
    value = calculate_metric({'img': image, 'img2': image}, options)
    assert value == pytest.approx(10 * image[4:-4, 4:-4, 2].mean() / 255, abs=1e-4)
    calculate_metric({'img': image}, options)
    expected = {'device': torch.device('cpu'), 'color_space': 'yiq', 'pretrained_model_path': options['model_path']}
    assert pyiqa == [('nrqm', expected)]  # made once


def test_perceptual_index(image, pyiqa):
    options = {'crop_border': 4}
    nrqm, niqe, index = (calculate_metric({'img': image}, {'type': name, **options}) for name in ('NRQM', 'NIQE', 'PI'))
    assert index == pytest.approx(((10 - nrqm) + niqe) / 2, abs=1e-6)
    assert [options['color_space'] for _, options in pyiqa] == ['yiq', 'ycbcr']


@pytest.mark.parametrize('metric', [{'type': 'NRQM'}, {'type': 'PI'}, {'type': 'NIQE', 'library': 'pyiqa'}])
def test_pyiqa_is_missing(metric, image, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    forget_built()
    with pytest.raises(basicsr_ext.UserError, match=r'basicsr-ext\[iqa\]'):
        calculate_metric({'img': image}, metric)


def test_the_model_is_missing_or_another_file(image, pyiqa, monkeypatch, tmp_path):
    options = {'type': 'NRQM', 'model_path': str(tmp_path / 'model.mat')}
    with pytest.raises(basicsr_ext.UserError, match=r'model_path: expected a file at .*model\.mat, found none'):
        calculate_metric({'img': image}, options)

    def refuse(name, **options):
        raise OSError('no connection') if 'pretrained_model_path' not in options else ValueError('Unknown mat file')

    monkeypatch.setattr(sys.modules['pyiqa'], 'create_metric', refuse)
    (tmp_path / 'model.mat').touch()
    with pytest.raises(basicsr_ext.UserError, match=r'expected NRQM_model\.mat, found another file'):
        calculate_metric({'img': image}, options)
    message = r'NRQM_model\.mat, are .*download them \(no connection\).*name the file in model_path'
    with pytest.raises(basicsr_ext.UserError, match=message):
        calculate_metric({'img': image}, {'type': 'NRQM'})
