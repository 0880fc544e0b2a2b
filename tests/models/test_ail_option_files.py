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

from basicsr_ext.cli import main
from basicsr_ext.prepare.luma import make_luma
from basicsr_ext.trainer.checking import check_options
from basicsr_ext.trainer.checking.source import read_source
from basicsr_ext.trainer.metrics_log import read_metrics

OPTIONS = Path(__file__).parents[2] / 'options'
STUDENTS = ('VDSR-f13', 'VDSR-f16', 'VDSR-f22', 'VDSR-f32', 'DRRN-f25', 'FSRCNN')
AIL = [f'train_AIL_{student}_x{scale}' for student in STUDENTS for scale in (2, 3, 4)]
ABLATIONS = [
    f'train_{kind}_VDSR-f13_x2' for kind in ('AIL-direct', 'AIL-zeros', 'AIL-random', 'AIL-ones', 'distillation')
]
PLAIN = [f'train_plain_{name}' for name in ('VDSR-f13_x2', 'VDSR-291_x234', 'VDSR-f13_x234', 'DRRN-291_x234')]
SCORES = {2: 37.396, 3: 33.365, 4: 31.018}  # of the published students on Set5 (dB), input from the uint8 LR images


@pytest.fixture(scope='module')
def stores(tmp_path_factory, photos):
    """What the recipes make, of photographs; and where each store that a file names is."""
    root = tmp_path_factory.mktemp('luma')
    write_images(root / 'photos', {name: photos[name][100:190, 100:230] for name in ('astronaut', 'coffee')})
    for scales in ('2', '3', '4', '234'):
        luma = root / f'luma_x{scales}'
        outputs = [Path(f'{luma}{kind}.lmdb') for kind in ('', '_LQ')]
        make_luma(
            [root / 'photos'], *outputs, [*map(int, scales)], output_small=Path(f'{luma}_small.lmdb'), num_workers=1
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


@pytest.mark.parametrize('name', AIL + ABLATIONS + PLAIN)
def test_files_are_right_in_every_key(stores, tmp_path, name):
    source = read_source(OPTIONS / f'{name}.yml', moved(name, stores, tmp_path))
    report = check_options(source, is_train=True, root=tmp_path)
    assert [str(problem) for problem in report.problems] == []
    assert source.values['name'] == name


@pytest.mark.parametrize('name', AIL)
def test_files_have_the_papers_settings(name):
    values = read_source(OPTIONS / f'{name}.yml').values
    student, scale = re.fullmatch(r'train_AIL_(.+)_x(\d)', name).groups()
    train, ail, network = values['train'], values['train']['ail'], values['network_g']
    assert train['optim_g'] == {'type': 'SGD', 'lr': 0.1, 'momentum': 0.9, 'weight_decay': 1e-4}
    assert train['grad_clip'] == {'norm': 0.4} and train['pixel_opt'] == {'type': 'MSELoss', 'reduction': 'sum'}
    assert values['datasets']['train']['batch_size_per_gpu'] == 128
    epochs = ail['round_iterations'] / 50
    assert train['scheduler'] == {
        'type': 'MultiStepLR', 'gamma': 0.1, 'milestones': [10 * n * epochs for n in range(1, 5)]
    }  # fmt: skip
    assert (ail['form'], ail['rounds'], ail['step'], ail['midpoint'], ail['steepness']) == (
        'recursive',
        10,
        0.15,
        0.01,
        100,
    )
    assert train['total_iter'] == 11 * ail['round_iterations']
    features = {'FSRCNN': 56}.get(student) or int(student.split('-f')[1])
    assert network['type'] == student.split('-')[0] and network['num_feat'] == features
    enlarges = int(scale) if student == 'FSRCNN' else 1
    assert values['scale'] == network['upscale'] == ail['teacher']['network']['upscale'] == enlarges
    assert ail['teacher']['network']['type'] == ('DRRN' if 'DRRN' in student else 'VDSR')
    stores = [block[key] for block in values['datasets'].values() for key in ('dataroot_gt', 'dataroot_lq')]
    assert all(f'_x{scale}' in store for store in stores)
    assert all(metric['crop_border'] == int(scale) for metric in values['val']['metrics'].values())


@pytest.mark.parametrize(
    'name',
    [
        'train_AIL_VDSR-f13_x2',
        'train_AIL_DRRN-f25_x3',
        'train_AIL_FSRCNN_x2',
        'train_AIL_FSRCNN_x3',
        *ABLATIONS,
        *PLAIN[:2],
    ],
)
def test_files_train(stores, tmp_path, name):
    """Two iterations of small batches; with AIL a round each."""
    few = ['train:total_iter=2', 'datasets:train:batch_size_per_gpu=2', 'val:val_freq=2', 'logger:print_freq=1']
    if name.startswith('train_AIL'):
        few += ['train:ail:round_iterations=1', 'train:ail:rounds=1']
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
def test_published_students_score_what_they_must(bench_dir, tmp_path, monkeypatch, scale, capfd):
    """test_AIL_*.yml on Set5 in colour: luminance goes through the network."""
    from basicsr_ext.prepare.stores import make_store

    data = {'gt': tmp_path / 'HR.lmdb', 'lq': tmp_path / 'LR.lmdb'}
    for path, folder in zip(data.values(), ('Set5/HR', f'Set5/LR_bicubic/X{scale}'), strict=True):
        make_store(bench_dir / folder, path, num_workers=1)
    monkeypatch.chdir(tmp_path)
    arguments = [f'datasets:test_1:dataroot_{key}={path}' for key, path in data.items()]
    arguments += [f'datasets:test_1:filename_tmpl="{{}}x{scale}"', 'num_gpu=0', 'val:save_img=false']
    arguments += [f'path:pretrain_network_g={bench_dir}/weights/ail_ours_ail_r9_f13_s{scale}.pth']
    path = OPTIONS / f'test_AIL_VDSR-f13_x{scale}.yml'
    assert main(['test', '-opt', str(path), '--force_yml', *arguments]) == 0
    psnr = float(re.search(r'# psnr: ([\d.]+)', capfd.readouterr().out + log(tmp_path))[1])
    assert psnr == pytest.approx(SCORES[scale], abs=0.005)


def log(root: Path) -> str:
    return ''.join(path.read_text() for path in root.glob('results/*/*.log'))
