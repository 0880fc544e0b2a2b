"""Centroids by a teacher that works in windows, from images of any size."""

from __future__ import annotations

import numpy as np
import torch

import basicsr_ext
from basicsr_ext.prepare.centroids import make_centroids
from basicsr_ext.storage import open_store

SWINIR = {'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 8, 'window_size': 4, 'img_range': 1.0, 'depths': [2],
          'embed_dim': 8, 'num_heads': [2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect',
          'resi_connection': '1conv'}  # fmt: skip


def test_no_tiles_are_needed_and_tiles_of_any_size_do(tmp_path, lq_folder, crops):
    basicsr_ext.register()
    from basicsr.archs.swinir_arch import SwinIR

    torch.manual_seed(0)
    teacher = SwinIR(**{key: value for key, value in SWINIR.items() if key != 'type'}).eval()
    torch.save(teacher.state_dict(), tmp_path / 'swinir.pth')
    made = {}
    for name, tiles in {'whole': {}, 'tiled': {'tile': 15, 'overlap': 13}}.items():
        outputs = tmp_path / f'{name}.lmdb', tmp_path / f'{name}_lq.lmdb'
        make_centroids(
            lq_folder, *outputs, network=SWINIR, weights=tmp_path / 'swinir.pth', scale=2, dtype='float32', **tiles
        )
        made[name] = open_store(outputs[0])
    height, width = crops['chelsea'].shape[:2]
    assert height % 4 and width % 4
    padded = np.pad(crops['chelsea'], ((0, -height % 4), (0, -width % 4), (0, 0)), mode='reflect') / np.float32(255)
    with torch.no_grad():
        expected = teacher(torch.from_numpy(padded).permute(2, 0, 1)[None])[0].permute(1, 2, 0).clamp(0, 1).numpy()
    np.testing.assert_allclose(made['whole'].read('chelsea'), expected[: 2 * height, : 2 * width], atol=1e-5)
    for key, image in crops.items():
        assert made['tiled'].read(key).shape == (2 * image.shape[0], 2 * image.shape[1], 3)
        np.testing.assert_allclose(made['tiled'].read(key), made['whole'].read(key), atol=0.02)
