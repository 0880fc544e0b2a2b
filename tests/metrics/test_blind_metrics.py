"""NIQE, NRQM and PI. pyiqa is stood in for: it is too heavy, and its weights cannot be downloaded here."""

import sys
import types

import numpy as np
import pytest
import torch

import basicsr_ext

basicsr_ext.register()

from basicsr.metrics import calculate_metric

from basicsr_ext.metrics.nrqm_metric import build_nrqm


@pytest.fixture
def image(photos):
    """BGR, two blocks of NIQE and a border."""
    return np.ascontiguousarray(photos['motorcycle_left'][100:204, 150:352, ::-1])


@pytest.fixture
def pyiqa(monkeypatch):
    """A stand-in whose NRQM is ten times the mean of red; remembers what it was asked for."""
    asked = []

    def create_metric(name, **options):
        asked.append((name, options))
        return lambda image: 10 * image[:, 0].mean()

    monkeypatch.setitem(sys.modules, 'pyiqa', types.SimpleNamespace(create_metric=create_metric))
    build_nrqm.cache_clear()
    yield asked
    build_nrqm.cache_clear()


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


@pytest.mark.parametrize('metric', ['NRQM', 'PI'])
def test_pyiqa_is_missing(metric, image, monkeypatch):
    monkeypatch.setitem(sys.modules, 'pyiqa', None)
    build_nrqm.cache_clear()
    with pytest.raises(basicsr_ext.UserError, match=r'basicsr-ext\[iqa\]'):
        calculate_metric({'img': image}, {'type': metric})


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
    with pytest.raises(basicsr_ext.UserError, match=r'download them \(no connection\).*name the file in model_path'):
        calculate_metric({'img': image}, {'type': 'NRQM'})
