"""Networks of enlarged luminance are scored on luminance as it is, as published numbers are; not rounded to 8 bits."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import numpy as np
import pytest
import torch
from run_helpers import write_images

from basicsr_ext.functional.psnr import psnr
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.storage import open_store
from basicsr_ext.trainer.run import test as run_test

# of AIL's published networks on Set5, from luminance down- and upscaled in double precision (dB)
SCORES = {
    ('ail_tea_vdsr', 64, 2): 37.59, ('ail_pre_vdsr_f13', 13, 2): 36.89, ('ail_ours_ail_r9_f13_s2', 13, 2): 37.43,
    ('ail_ours_ail_r9_f13_s3', 13, 3): 33.38, ('ail_ours_ail_r9_f13_s4', 13, 4): 31.03,
}  # fmt: skip


def score(root, images, model_type, features, weights, scale) -> dict[str, dict[str, float]]:
    """Tests a network on luminance that is enlarged already, by both packages' metrics; image -> metric -> value."""
    luma, enlarged = root / 'luma.lmdb', root / 'luma_LQ.lmdb'
    make_luma([images], luma, enlarged, [scale], factors=[1.0], num_workers=1)
    border = {'crop_border': scale, 'test_y_channel': True}
    options = {
        'name': 'luma',
        'model_type': model_type,
        'scale': 1,
        'num_gpu': 0,
        'datasets': {
            'test_1': {
                'name': 'set',
                'type': 'PairedStoreDataset',
                'dataroot_gt': str(luma),
                'dataroot_lq': str(enlarged),
            }
        },
        'network_g': {'type': 'VDSR', 'num_feat': features, 'upscale': 1},
        'path': {'pretrain_network_g': str(weights)},
        'val': {
            'save_img': False,
            'metrics': {'ours': {'type': 'PSNR', **border}, 'theirs': {'type': 'calculate_psnr', **border}},
        },
    }
    return run_test(options, root=root).scores['set']


@pytest.mark.parametrize(('name', 'features', 'scale'), SCORES)
def test_published_networks_score_what_was_published(bench_dir, tmp_path, name, features, scale):
    scores = score(tmp_path, bench_dir / 'Set5/HR', 'TrainingModel', features, bench_dir / f'weights/{name}.pth', scale)
    assert len(scores) == 5
    for metric in ('ours', 'theirs'):
        mean = np.mean([values[metric] for values in scores.values()])
        assert mean == pytest.approx(SCORES[name, features, scale], abs=0.006)  # two decimals are published


@pytest.mark.parametrize('model_type', ['TrainingModel', 'SRModel'])
def test_luminance_is_not_rounded(photos, tmp_path, model_type):
    """A network that changes nothing leaves errors far below one level of 255."""
    from basicsr.archs import build_network

    write_images(
        tmp_path / 'photos',
        {'coffee': np.full((60, 70, 3), 100, np.uint8) + np.arange(70, dtype=np.uint8)[:, None] // 9},
    )
    network = build_network({'type': 'VDSR', 'num_feat': 2, 'upscale': 1})
    torch.nn.init.zeros_(network.conv_last.weight)
    torch.save({'params': network.state_dict()}, tmp_path / 'zero.pth')
    scores = score(tmp_path, tmp_path / 'photos', model_type, 2, tmp_path / 'zero.pth', 2)
    gt, lq = (
        open_store(tmp_path / f'luma{kind}.lmdb').read('photos/coffee_1_x2')[2:-2, 2:-2] * 255.0 for kind in ('', '_LQ')
    )
    expected = psnr(lq, gt)
    assert expected != pytest.approx(psnr(np.rint(lq), np.rint(gt)), abs=0.1)
    assert next(iter(scores.values()))['ours'] == pytest.approx(expected, abs=1e-3)
