"""Teachers that spandrel recognises by their weights."""

from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.prepare.centroids import make_centroids
from basicsr_ext.prepare.recognised import detect_architecture
from basicsr_ext.storage import open_store


@pytest.fixture
def rrdb(tmp_path):
    """An RRDBNet of BasicSR with its weights in a file: an architecture that spandrel knows."""
    import basicsr_ext

    basicsr_ext.register()
    pytest.importorskip('spandrel')
    from basicsr.archs.rrdbnet_arch import RRDBNet

    torch.manual_seed(0)
    network = RRDBNet(3, 3, scale=4, num_feat=8, num_block=1).eval()
    path = tmp_path / 'unknown.pth'
    torch.save({'params': {}, 'params_ema': network.state_dict()}, path)
    return network, path


def test_the_network_is_found_and_runs(rrdb, crops):
    network, path = rrdb
    found = detect_architecture(path)
    assert found.scale == 4
    assert found.record['recognised_by'] == 'spandrel'
    image = torch.from_numpy(crops['coffee'] / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = network(image)
        assert torch.allclose(found.network(image), expected, atol=1e-6)
    assert not found.network.training


def test_centroids_without_a_network_option(rrdb, prepare, lq_folder, tmp_path, crops):
    _, path = rrdb
    outputs = tmp_path / 'mu.lmdb', tmp_path / 'mu_lq.lmdb'
    command = ['centroids', '-i', lq_folder, '-o', outputs[0], '--output_lq', outputs[1], '--weights', path]
    prepare(*command, '--device=cpu', '--num_workers=0')
    centroids = open_store(outputs[0])
    assert centroids.meta['network'] == detect_architecture(path).record
    assert centroids.meta['scale'] == 4
    assert centroids.meta['lq_digests'].keys() == crops.keys()
    # the same as with the option
    option = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 4, 'num_feat': 8, 'num_block': 1}
    make_centroids(
        lq_folder,
        tmp_path / 'by_option.lmdb',
        tmp_path / 'by_option_lq.lmdb',
        network=option,
        weights=path,
        scale=4,
        device='cpu',
    )
    by_option = open_store(tmp_path / 'by_option.lmdb')
    for key in crops:
        assert abs(centroids.read(key).astype(int) - by_option.read(key)).max() <= 1


def test_what_is_not_recognised(rrdb, tmp_path):
    _, path = rrdb
    with pytest.raises(UserError, match='enlarges 4 times, and 2 was given'):
        detect_architecture(path, scale=2)
    torch.save({'a.weight': torch.zeros(3)}, tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'other.pth: spandrel .* does not recognise the network .*-opt or --network'):
        detect_architecture(tmp_path / 'other.pth')
    with pytest.raises(UserError, match=r'missing.pth'):
        detect_architecture(tmp_path / 'missing.pth')


def test_without_spandrel_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == 'spandrel':
            raise ImportError("No module named 'spandrel'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(UserError, match=r'pip install "basicsr-ext\[spandrel\]"'):
        detect_architecture(tmp_path / 'any.pth')
