"""`basicsr export`: networks run by onnxruntime, weights read again."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from run_helpers import TINY_EDSR, write_images

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.cli.main import main
from basicsr_ext.errors import UserError
from basicsr_ext.evaluation import export as exporting
from basicsr_ext.networks.weights import read_weights

ROOT = str(Path(__file__).parents[2])
ANY_SIZE = [
    (TINY_EDSR, 2),
    ({'type': 'HAN', 'num_feat': 4, 'num_group': 1, 'num_block': 1, 'squeeze_factor': 2, 'upscale': 2}, 2),
    ({'type': 'CriaCLNet', 'num_feat': 4, 'num_grow_ch': 2, 'num_block': 1, 'num_branch_block': 1, 'upscale': 2}, 2),
    ({'type': 'LFCSR', 'stage_o': TINY_EDSR, 'stage_p': {'type': 'CliqueRefiner', 'num_feat': 2, 'num_block': 1,
                                                         'num_stage': 1}}, 2),
    ({'type': 'VDSR', 'num_feat': 4, 'num_conv': 3, 'upscale': 1}, 1),
]  # fmt: skip
ENLARGING = ({'type': 'VDSR', 'num_feat': 4, 'num_conv': 3, 'upscale': 2}, 2)


def save(path: Path, network: dict, scale: int) -> torch.nn.Module:
    """Writes a network file as a run does; returns the network."""
    from basicsr.archs import build_network

    from basicsr_ext.trainer.checkpoints import network_content

    torch.manual_seed(0)
    built = build_network(dict(network)).eval().requires_grad_(False)
    torch.save(network_content([built], ['params'], 'net_g', {'network_g': network, 'scale': scale}), path)
    return built


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def onnxruntime():
    if not hasattr(torch.export.Dim, 'DYNAMIC'):
        pytest.skip('needs PyTorch 2.6')
    for library in ('onnx', 'onnxscript'):
        pytest.importorskip(library)
    return pytest.importorskip('onnxruntime')


def run(onnxruntime, file: str, image: torch.Tensor) -> np.ndarray:
    return onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider']).run(None, {'image': image.numpy()})[0]


@pytest.mark.parametrize(('network', 'scale'), ANY_SIZE, ids=[network['type'] for network, _ in ANY_SIZE])
def test_networks_for_any_size(root, onnxruntime, network, scale, capsys):
    built = save(root / 'a.pth', network, scale)
    assert main(['export', '--weights', 'a.pth', '-o', 'a.onnx']) == 0
    assert (
        f'a.onnx: {network["type"]} x{scale} for images of any size; largest difference from torch'
        in capsys.readouterr().out
    )
    channels = 1 if network['type'] == 'VDSR' else 3
    for sides in ((40, 30), (26, 64)):
        image = torch.rand(1, channels, *sides)
        found = run(onnxruntime, 'a.onnx', image)
        assert found.shape == (1, channels, sides[0] * scale, sides[1] * scale)
        assert np.abs(found - built(image).numpy()).max() < 1e-5
    assert sorted(path.name for path in root.iterdir()) == ['a.onnx', 'a.pth']


def test_spans_kernels_are_computed_before_it_is_traced(root, onnxruntime):
    pytest.importorskip('spandrel')
    network = {'type': 'spandrel', 'architecture': 'SPAN', 'upscale': 2, 'num_in_ch': 3, 'num_out_ch': 3}
    built = save(root / 'a.pth', {**network, 'feature_channels': 4, 'img_range': 1.0}, 2)
    command = [sys.executable, '-m', 'basicsr_ext', 'export', '--weights', 'a.pth', '-o', 'a.onnx']
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, 'PYTHONPATH': ROOT}
    )
    assert result.returncode == 0, result.stderr  # it ended by a segmentation fault
    image = torch.rand(1, 3, 26, 30)
    assert np.abs(run(onnxruntime, 'a.onnx', image) - built(image).numpy()).max() < 1e-4


def test_a_network_that_enlarges_its_input_needs_a_size(root, onnxruntime, capsys):
    built = save(root / 'a.pth', *ENLARGING)
    assert main(['export', '--weights', 'a.pth', '-o', 'a.onnx']) == 2
    assert 'VDSR cannot be exported for any height and width' in (error := capsys.readouterr().err)
    assert 'Give those of your images: --size HxW.' in error and not Path('a.onnx').exists()
    assert main(['export', '--weights', 'a.pth', '-o', 'a.onnx', '--size', '20x31']) == 0
    assert 'VDSR x2 for images of 20x31 pixels' in capsys.readouterr().out
    image = torch.rand(1, 1, 20, 31)
    assert np.abs(run(onnxruntime, 'a.onnx', image) - built(image).numpy()).max() < 1e-5


def test_images_are_padded_to_whole_windows(root, onnxruntime):
    network = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2, 'num_feat': 4, 'num_block': 1}
    save(root / 'a.pth', network, 2)
    assert main(['export', '--weights', 'a.pth', '-o', 'a.onnx', '--size', '21x31']) == 0
    assert run(onnxruntime, 'a.onnx', torch.rand(1, 3, 21, 31)).shape == (1, 3, 42, 62)


def test_onnx_makes_what_upscale_makes(root, onnxruntime, photos):
    image = photos['coffee'][100:131, 120:145]
    write_images(root / 'in', {'coffee': image})
    save(root / 'a.pth', TINY_EDSR, 2)
    assert main(['export', '--weights', 'a.pth', '-o', 'a.onnx']) == 0
    assert main(['upscale', '-i', 'in', '-o', 'out', '--weights', 'a.pth', '--device', 'cpu']) == 0
    found = run(onnxruntime, 'a.onnx', torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None].contiguous())
    expected = cv2.imread('out/coffee.png')[..., ::-1]
    assert np.abs(np.round(found[0].transpose(1, 2, 0).clip(0, 1) * 255) - expected).max() <= 1


def test_a_difference_from_torch_writes_nothing(root, onnxruntime, capsys, monkeypatch):
    save(root / 'a.pth', TINY_EDSR, 2)
    (root / 'a.onnx').write_bytes(b'before')
    monkeypatch.setattr(
        exporting, '_run_onnx', lambda content, image: np.ones((1, 3, 2 * image.shape[2], 2 * image.shape[3]))
    )
    assert main(['export', '--weights', 'a.pth', '-o', 'a.onnx', '--overwrite', '--size', '20x20']) == 2
    assert 'EDSR cannot be exported for 20x20 pixels (it differs from torch by ' in capsys.readouterr().err
    assert (root / 'a.onnx').read_bytes() == b'before'


def test_weights_as_safetensors_say_what_they_are(root, photos, capsys):
    write_images(root / 'in', {'coffee': photos['coffee'][100:131, 120:145]})
    built = save(root / 'a.pth', TINY_EDSR, 2)
    assert main(['export', '--weights', 'a.pth', '-o', 'a.safetensors']) == 0
    assert f'a.safetensors: {len(built.state_dict())} tensors' in capsys.readouterr().out
    found = read_weights('a.safetensors')
    assert all(torch.equal(value, found[key]) for key, value in built.state_dict().items())
    for weights in ('a.pth', 'a.safetensors'):
        assert main(['upscale', '-i', 'in', '-o', weights[2:], '--weights', weights, '--device', 'cpu']) == 0
    assert np.array_equal(cv2.imread('pth/coffee.png'), cv2.imread('safetensors/coffee.png'))


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['-o', 'a.pt'], 'expected a name that ends in .onnx or .safetensors'),
        (['-o', 'there.safetensors'], 'there.safetensors exists already'),
        (['-o', 'a.safetensors', '--size', '20x20'], '--size: weights alone have none'),
        (['-o', 'missing/a.safetensors'], 'expected a folder that exists, found none at missing'),
        (['-o', 'a.safetensors', '--param_key', 'none'], 'expected the key "none"'),
    ],
    ids=range(5),
)
def test_wrong_arguments(root, capsys, arguments, message):
    save(root / 'a.pth', TINY_EDSR, 2)
    (root / 'there.safetensors').touch()
    assert main(['export', '--weights', 'a.pth', *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('basicsr export: error: ') == 1
    assert sorted(path.name for path in root.iterdir()) == ['a.pth', 'there.safetensors']


@pytest.mark.parametrize('size', ['20', '0x20', '20x', 'axb'])
def test_wrong_sizes(root, capsys, size):
    with pytest.raises(SystemExit):
        main(['export', '--weights', 'a.pth', '-o', 'a.onnx', '--size', size])
    assert 'expected height and width such as 180x320' in capsys.readouterr().err


def test_missing_libraries_are_named(root, onnxruntime, monkeypatch):
    save(root / 'a.pth', TINY_EDSR, 2)
    real = importlib.import_module

    def without(name, *rest):
        if name == 'onnxscript':
            raise ImportError("No module named 'onnxscript'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, 'import_module', without)
    with pytest.raises(UserError, match=r'needs onnxscript: pip install "basicsr-ext\[export\]"'):
        exporting.export('a.pth', 'a.onnx')
