"""The option files of AIL, its ablations and teachers: right in every key, as the paper says, and they train and test."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import re
from pathlib import Path

import pytest
import torch
from basicsr.archs import build_network
from run_helpers import forked, run, write_images

from basicsr_ext.checking import check_options
from basicsr_ext.cli.main import main
from basicsr_ext.options.source import read_source
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.trainer.metrics_log import read_metrics

OPTIONS = Path(__file__).parents[2] / 'options'
STUDENTS = ('VDSR-f13', 'VDSR-f16', 'VDSR-f22', 'VDSR-f32', 'DRRN-f25', 'FSRCNN')
AIL = [f'train_AIL_{student}_x{scale}' for student in STUDENTS for scale in (2, 3, 4)]
ABLATIONS = [
    f'train_{kind}_VDSR-f13_x2' for kind in ('AIL-direct', 'AIL-zeros', 'AIL-random', 'AIL-ones', 'distillation')
]
OF_SCALES = [
    f'train_{kind}_VDSR-f13_x{scale}' for kind in ('AIL-zeros', 'AIL-random', 'distillation') for scale in (3, 4)
]
FURTHER = [
    f'train_{kind}_VDSR-f13_x2'
    for kind in ('AIL-scratch', 'AIL-published', 'plain-long', 'plain-restarts', 'distillation-long')
]
PLAIN_STUDENTS = [f'VDSR-f{features}_x234' for features in (13, 16, 22, 32)]
PLAIN = [f'train_plain_{name}' for name in ('VDSR-f13_x2', 'VDSR-291_x234', 'DRRN-291_x234', *PLAIN_STUDENTS)]
PLAIN_TWINS = [f'train_plain_{student}_x{scale}' for student in ('DRRN-f25', 'FSRCNN') for scale in (2, 3, 4)]
PUBLISHED = [f'train_plain-published_VDSR-{name}_x234' for name in ('291', 'f13')]
ALL = AIL + ABLATIONS + OF_SCALES + FURTHER + PLAIN + PLAIN_TWINS + PUBLISHED
# of the published students on Set5 (dB): as published, and from LR images in 8 bits
SCORES = {2: (37.429, 37.396), 3: (33.378, 33.365), 4: (31.025, 31.018)}


@pytest.fixture(scope='module')
def stores(tmp_path_factory, photos):
    """What the recipes make, of photographs; and where each store that a file names is."""
    root = tmp_path_factory.mktemp('luma')
    write_images(root / 'photos', {name: photos[name][100:190, 100:230] for name in ('astronaut', 'coffee')})
    for scales in ('2', '3', '4', '234'):
        luma = root / f'luma_x{scales}'
        for bits in ('', '_8bit'):
            outputs = [Path(f'{luma}{bits}{kind}.lmdb') for kind in ('', '_LQ', '_small')]
            make_luma(
                [root / 'photos'],
                *outputs[:2],
                [*map(int, scales)],
                output_small=outputs[2],
                round_luma=bool(bits),
                num_workers=1,
            )
    return root


def moved(name: str, stores: Path, weights: Path) -> list[str]:
    """Assignments that put stores of photographs in the place of 291 and Set5, and files of random weights under its paths."""
    values = read_source(OPTIONS / f'{name}.yml').values
    assignments = ['num_gpu=0', 'datasets:train:pin_memory=false', 'logger:use_tb_logger=false']
    for dataset, block in values['datasets'].items():
        for key in ('dataroot_gt', 'dataroot_lq'):
            store = re.fullmatch(r'datasets/(?:291/|benchmark/Set5_)(luma_x.*\.lmdb)', block[key])[1]
            assignments.append(f'datasets:{dataset}:{key}={stores / store}')
    teacher = values['train'].get('ail') and values['train']['ail']['teacher']
    networks = {'train:ail:teacher:weights': (teacher['network'], teacher['weights'])} if teacher else {}
    if values['path']['pretrain_network_g']:
        networks['path:pretrain_network_g'] = values['network_g'], values['path']['pretrain_network_g']
    for key, (network, path) in networks.items():
        made_by = read_source(OPTIONS / f'{Path(path).parts[1]}.yml').values['network_g']
        assert (
            made_by['type'] == network['type'] and made_by['num_feat'] == network['num_feat']
        )  # its file is there, and fits
        file = weights / f'{network["type"]}_{network["num_feat"]}.pth'
        if not file.exists():
            torch.save({'params': build_network(dict(network)).state_dict()}, file)
        assignments.append(f'{key}={file}')
    return assignments


@pytest.mark.parametrize('name', ALL)
def test_files_are_right_in_every_key(stores, tmp_path, name):
    source = read_source(OPTIONS / f'{name}.yml', moved(name, stores, tmp_path))
    report = check_options(source, is_train=True, root=tmp_path)
    assert [str(problem) for problem in report.problems] == []
    assert source.values['name'] == name


# ---- the paper's settings --------------------------------------------------------------------------------------------

EPOCH = 240  # iterations of one scale; of three, three times as many
# Of the published generator: patches of all copies of the 291 images, in 12 flips and turns, in batches of 128.
PUBLISHED_EPOCH, PUBLISHED_EPOCH_OF_ALL_SCALES = 370_860 // 128, 12 * (30_905 + 30_887 + 30_844) // 128
# Every setting that decides about the result, of train_AIL_VDSR-f13_x2.yml; the files below differ as said.
SETTINGS = {
    'model_type': 'AILModel',
    'scale': 1,  # bicubic enlargement in, refined luminance out
    'manual_seed': 0,
    'path.pretrain_network_g': 'experiments/train_plain_VDSR-f13_x234/models/net_g_latest.pth',
    'network_g': {'type': 'VDSR', 'in_channels': 1, 'num_feat': 13, 'num_conv': 20, 'upscale': 1, 'bias': False},
    'datasets.train.type': 'PairedStoreDataset',
    'datasets.train.dataroot_gt': 'datasets/291/luma_x2.lmdb',
    'datasets.train.dataroot_lq': 'datasets/291/luma_x2_LQ.lmdb',
    'datasets.train.gt_size': 41,
    'datasets.train.use_hflip': True,
    'datasets.train.use_rot': True,
    'datasets.train.geometry': True,
    'datasets.train.batch_size_per_gpu': 128,
    'datasets.train.dataset_enlarge_ratio': 36,
    'datasets.val.dataroot_gt': 'datasets/benchmark/Set5_luma_x2.lmdb',
    'datasets.val.dataroot_lq': 'datasets/benchmark/Set5_luma_x2_LQ.lmdb',
    'train.ail.form': 'recursive',
    'train.ail.rounds': 10,
    'train.ail.round_iterations': 50 * EPOCH,
    'train.ail.initialization': 'teacher',
    'train.ail.midpoint': 0.01,
    'train.ail.steepness': 100,
    'train.ail.step': 0.15,
    'train.ail.teacher': {
        'network': {'type': 'VDSR', 'num_feat': 64, 'upscale': 1},
        'weights': 'experiments/train_plain_VDSR-291_x234/models/net_g_latest.pth',
    },
    'train.ail.map_dtype': 'float16',
    'train.ema_decay': 0,
    'train.optim_g': {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-4},
    'train.scheduler': {
        'type': 'MultiStepLR', 'milestones': [10 * EPOCH, 20 * EPOCH, 30 * EPOCH, 40 * EPOCH], 'gamma': 0.1,
    },
    'train.total_iter': 11 * 50 * EPOCH,
    'train.warmup_iter': -1,
    'train.pixel_opt': {'type': 'MSELoss', 'reduction': 'sum'},
    'train.grad_clip': {'norm': 0.4},
    'val.val_freq': 10 * EPOCH,  # at the end of each round, too
    'val.metrics.psnr': {'type': 'PSNR', 'crop_border': 2, 'test_y_channel': True},
    'val.metrics.ssim': {'type': 'SSIM', 'crop_border': 2, 'test_y_channel': True},
}  # fmt: skip
DRRN = {'type': 'DRRN', 'in_channels': 1, 'num_feat': 25, 'num_block': 1, 'num_unit': 25, 'upscale': 1}
FSRCNN = {'type': 'FSRCNN', 'in_channels': 1, 'num_feat': 56, 'num_shrink_feat': 12, 'num_mapping': 4}
NONE = object()  # an option that the file lacks
PLAINLY = {'model_type': 'TrainingModel', 'path.pretrain_network_g': None, 'train.ail': NONE, 'train.total_iter': 12000}
ALL_SCALES = {
    **PLAINLY,
    'manual_seed': 1,
    'datasets.train.dataroot_gt': 'datasets/291/luma_x234.lmdb',
    'datasets.train.dataroot_lq': 'datasets/291/luma_x234_LQ.lmdb',
    'train.scheduler': {'type': 'MultiStepLR', 'milestones': [7200, 14400, 21600, 28800], 'gamma': 0.1},
    'train.total_iter': 36000,
}
WITHOUT_TEACHER = {'train.ail.teacher': None}
SCRATCH = {'path.pretrain_network_g': None}


def vdsr(features: int) -> dict:
    return {
        'network_g': {**SETTINGS['network_g'], 'num_feat': features},
        'path.pretrain_network_g': f'experiments/train_plain_VDSR-f{features}_x234/models/net_g_latest.pth',
    }


def of_scale(scale: int) -> dict:
    stores = {
        f'datasets.{block}.dataroot_{key}': f'datasets/{place}_x{scale}{kind}.lmdb'
        for block, place in (('train', '291/luma'), ('val', 'benchmark/Set5_luma'))
        for key, kind in (('gt', ''), ('lq', '_LQ'))
    }
    metrics = {
        f'val.metrics.{key}': {**SETTINGS[f'val.metrics.{key}'], 'crop_border': scale} for key in ('psnr', 'ssim')
    }
    return {**stores, **metrics}


def fsrcnn(scale: int) -> dict:
    """It takes the LR image; its teacher is VDSR."""
    teacher = SETTINGS['train.ail.teacher']
    return {
        'scale': scale,
        'network_g': {**FSRCNN, 'upscale': scale},
        'path.pretrain_network_g': None,
        'datasets.train.dataroot_lq': f'datasets/291/luma_x{scale}_small.lmdb',
        'datasets.val.dataroot_lq': f'datasets/benchmark/Set5_luma_x{scale}_small.lmdb',
        'datasets.train.gt_size': {2: 40, 3: 39, 4: 40}[scale],
        'train.ail.teacher': {**teacher, 'network': {**teacher['network'], 'upscale': scale}},
    }


def published(scales: str, epoch: int) -> dict:
    """Patches side by side, luminance rounded to 8 bits, and the learning rate of so long an epoch."""
    return {
        'datasets.train.dataroot_gt': f'datasets/291/luma_x{scales}_8bit.lmdb',
        'datasets.train.dataroot_lq': f'datasets/291/luma_x{scales}_8bit_LQ.lmdb',
        'datasets.train.grid': True,
        'datasets.train.dataset_enlarge_ratio': 12,
        'train.scheduler': {
            **SETTINGS['train.scheduler'],
            'milestones': [part * epoch for part in (10, 20, 30, 40)],
        },
    }


DIRECT = {
    'train.ail.form': 'direct',
    'train.ail.rounds': 9,
    'train.ail.error': 'absolute',
    'train.ail.error_scale': 10,
    'train.total_iter': 10 * 50 * EPOCH,
}
DRRN_AIL = {
    'network_g': DRRN,
    'path.pretrain_network_g': None,
    'train.ail.teacher': {
        'network': {'type': 'DRRN', 'num_feat': 128, 'upscale': 1},
        'weights': 'experiments/train_plain_DRRN-291_x234/models/net_g_latest.pth',
    },
}
DIFFERENCES = {
    **{f'train_AIL_VDSR-f{n}_x{x}': {**of_scale(x), **vdsr(n)} for n in (13, 16, 22, 32) for x in (2, 3, 4)},
    **{f'train_AIL_DRRN-f25_x{x}': {**of_scale(x), **DRRN_AIL} for x in (2, 3, 4)},
    **{f'train_AIL_FSRCNN_x{x}': {**of_scale(x), **fsrcnn(x)} for x in (2, 3, 4)},
    'train_AIL-direct_VDSR-f13_x2': DIRECT,
    **{
        f'train_AIL-{kind}_VDSR-f13_x{x}': {
            **of_scale(x),
            **SCRATCH,
            **WITHOUT_TEACHER,
            'train.ail.initialization': kind,
        }
        for kind in ('zeros', 'random')
        for x in (2, 3, 4)
    },
    'train_AIL-ones_VDSR-f13_x2': {**SCRATCH, **WITHOUT_TEACHER, 'train.ail.initialization': 'ones'},
    'train_AIL-scratch_VDSR-f13_x2': SCRATCH,
    'train_plain-restarts_VDSR-f13_x2': {**WITHOUT_TEACHER, 'train.ail.initialization': 'ones'},
    'train_plain-long_VDSR-f13_x2': {
        **PLAINLY,
        'path.pretrain_network_g': SETTINGS['path.pretrain_network_g'],
        'train.total_iter': SETTINGS['train.total_iter'],
        'train.scheduler': {
            **SETTINGS['train.scheduler'],
            'milestones': [11 * part * EPOCH for part in (10, 20, 30, 40)],
        },
    },
    'train_distillation-long_VDSR-f13_x2': {'train.ail.form': 'distillation', 'train.ail.distillation_weight': 0.1},
    'train_AIL-published_VDSR-f13_x2': {
        **DIRECT,
        **published('2', PUBLISHED_EPOCH),
        'path.pretrain_network_g': 'experiments/train_plain-published_VDSR-f13_x234/models/net_g_latest.pth',
        'train.ail.round_iterations': None,
        'train.ail.round_epochs': 50,
        'train.ail.teacher': {
            **SETTINGS['train.ail.teacher'],
            'weights': 'experiments/train_plain-published_VDSR-291_x234/models/net_g_latest.pth',
        },
        'train.total_iter': 10 * 50 * PUBLISHED_EPOCH,
        'val.val_freq': 10 * PUBLISHED_EPOCH,
    },
    **{
        f'train_plain-published_VDSR-{name}_x234': {
            **ALL_SCALES,
            **published('234', PUBLISHED_EPOCH_OF_ALL_SCALES),
            'network_g': {**SETTINGS['network_g'], 'num_feat': features},
            'manual_seed': seed,
            'train.total_iter': 50 * PUBLISHED_EPOCH_OF_ALL_SCALES,
            'val.val_freq': PUBLISHED_EPOCH_OF_ALL_SCALES,
        }
        for name, features, seed in (('291', 64, 1), ('f13', 13, 0))
    },
    **{
        f'train_distillation_VDSR-f13_x{x}': {
            **of_scale(x),
            'train.ail.form': 'distillation',
            'train.ail.rounds': 0,
            'train.ail.round_iterations': None,
            'train.ail.distillation_weight': 0.1,
            'train.total_iter': 50 * EPOCH,
        }
        for x in (2, 3, 4)
    },
    **{f'train_plain_DRRN-f25_x{x}': {**of_scale(x), **PLAINLY, 'network_g': DRRN} for x in (2, 3, 4)},
    **{f'train_plain_FSRCNN_x{x}': {**of_scale(x), **fsrcnn(x), **PLAINLY} for x in (2, 3, 4)},
    'train_plain_VDSR-f13_x2': PLAINLY,
    'train_plain_VDSR-291_x234': {**ALL_SCALES, 'network_g': {**SETTINGS['network_g'], 'num_feat': 64}},
    'train_plain_DRRN-291_x234': {**ALL_SCALES, 'network_g': {**DRRN, 'num_feat': 128}},
    **{
        f'train_plain_VDSR-f{n}_x234': {
            **ALL_SCALES,
            'network_g': {**SETTINGS['network_g'], 'num_feat': n},
            'manual_seed': 0,
        }
        for n in (13, 16, 22, 32)
    },
}
HOW_IT_RUNS = ('name', 'num_worker_per_gpu', 'prefetch_mode', 'pin_memory')


def settings_of(values: dict) -> dict:
    """All settings of a file, but for those that change nothing about the result, under the keys of ``SETTINGS``."""
    found = {key: values[key] for key in ('model_type', 'scale', 'manual_seed', 'network_g')}
    found['path.pretrain_network_g'] = values['path']['pretrain_network_g']
    found['val.val_freq'] = values['val']['val_freq']
    blocks = {
        'datasets.train': values['datasets']['train'],
        'datasets.val': {key: values['datasets']['val'][key] for key in ('dataroot_gt', 'dataroot_lq')},
        'train': {key: value for key, value in values['train'].items() if key != 'ail'},
        'train.ail': values['train'].get('ail', {}),
        'val.metrics': values['val']['metrics'],
    }
    for path, block in blocks.items():
        found.update({f'{path}.{key}': value for key, value in block.items() if key not in HOW_IT_RUNS})
    return found


@pytest.mark.parametrize('name', ALL)
def test_files_have_the_papers_settings(name):
    expected = {**SETTINGS, **DIFFERENCES[name]}
    lacking = [key for key, value in expected.items() if value is NONE]
    expected = {k: v for k, v in expected.items() if not any(k == key or k.startswith(f'{key}.') for key in lacking)}
    assert settings_of(read_source(OPTIONS / f'{name}.yml').values) == expected


def test_no_file_is_left_out():
    """Of those that train on 291 images."""
    files = [path.stem for path in OPTIONS.glob('train_*.yml') if 'datasets/291/' in str(read_source(path).values)]
    assert sorted(files) == sorted(DIFFERENCES) == sorted(ALL)


# ---- running them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    'name',
    [
        'train_AIL_VDSR-f13_x2',
        'train_AIL_DRRN-f25_x3',
        'train_AIL_FSRCNN_x2',
        'train_AIL_FSRCNN_x3',
        'train_AIL-published_VDSR-f13_x2',
        'train_distillation-long_VDSR-f13_x2',
        *ABLATIONS,
        *PLAIN[:2],
        PUBLISHED[1],
    ],
)
def test_files_train(stores, tmp_path, name):
    """Two iterations of small batches; with AIL a round each."""
    few = ['train:total_iter=2', 'datasets:train:batch_size_per_gpu=2', 'val:val_freq=2', 'logger:print_freq=1']
    if name.startswith('train_AIL') or 'distillation-long' in name:
        few += ['train:ail:round_iterations=1', 'train:ail:round_epochs=~', 'train:ail:rounds=1']
    else:
        few += ['logger:save_checkpoint_freq=1']
    if 'DRRN' in name:
        few += ['network_g:num_unit=2', 'train:ail:teacher:network:num_unit=2', 'train:ail:teacher:network:num_feat=4']
        torch.save(
            build_network({'type': 'DRRN', 'num_feat': 4, 'num_unit': 2}).state_dict(), tmp_path / 'DRRN_128.pth'
        )
    assert forked(run, tmp_path, OPTIONS / f'{name}.yml', '--force_yml', *moved(name, stores, tmp_path), *few) == 0
    lines = read_metrics(tmp_path / f'experiments/{name}/metrics.jsonl')
    if name.startswith('train_AIL'):
        assert [line['round'] for line in lines if line['event'] == 'train'] == [0, 1]
    assert [line['iteration'] for line in lines if line['event'] == 'validation'] == [2]


@pytest.mark.parametrize('scale', [2, 3, 4])
def test_published_students_score_what_they_must(bench_dir, tmp_path, monkeypatch, scale):
    """test_AIL_*.yml on Set5: luminance in double precision, as published; and images in colour and 8 bits."""
    from basicsr_ext.prepare.stores import make_store

    root = tmp_path / 'datasets/benchmark'
    root.mkdir(parents=True)
    for path, folder in (('Set5_HR', 'Set5/HR'), (f'Set5_LR_x{scale}', f'Set5/LR_bicubic/X{scale}')):
        make_store(bench_dir / folder, root / f'{path}.lmdb', num_workers=1)
    luma = [root / f'Set5_luma_x{scale}{kind}.lmdb' for kind in ('', '_LQ', '_small')]
    make_luma([bench_dir / 'Set5/HR'], *luma[:2], [scale], factors=[1.0], output_small=luma[2], num_workers=1)
    monkeypatch.chdir(tmp_path)
    path = OPTIONS / f'test_AIL_VDSR-f13_x{scale}.yml'
    sets = read_source(path).values['datasets']
    names = [block['name'] for block in sets.values()]
    assert names == [f'{name}{bits}' for bits in ('', '_8bit') for name in ('Set5', 'Set14', 'BSD100', 'Urban100')]
    arguments = [f'datasets:{block}=~' for block, name in zip(sets, names, strict=True) if not name.startswith('Set5')]
    arguments += [f'datasets:test_5:filename_tmpl="{{}}x{scale}"', 'num_gpu=0', 'val:save_img=false']
    arguments += [f'path:pretrain_network_g={bench_dir}/weights/ail_ours_ail_r9_f13_s{scale}.pth']
    assert main(['test', '-opt', str(path), '--force_yml', *arguments]) == 0
    found = re.findall(r'# psnr: ([\d.]+)', log(tmp_path))
    assert [float(psnr) for psnr in found] == pytest.approx(SCORES[scale], abs=0.005)


def log(root: Path) -> str:
    return ''.join(path.read_text() for path in root.glob('results/*/*.log'))
