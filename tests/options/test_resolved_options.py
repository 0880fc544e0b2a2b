"""What a run writes down is enough to repeat it, from wherever it is started."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import pytest
import yaml
from run_helpers import (
    assert_same_weights,
    eco_options,
    network_weights,
    sr_options,
    write_centroids,
    write_options,
    write_pairs,
)

from basicsr_ext.cli.main import main
from basicsr_ext.options.yaml import read_yaml, write_yaml


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    """Working directory with a tiny image set; option files in it name files by relative paths."""
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path, photos)
    return tmp_path


def relative(options: dict, root) -> dict:
    return yaml.safe_load(yaml.safe_dump(options).replace(f'{root}/', ''))


def train(*arguments: str) -> None:
    assert main(['train', '-opt', *arguments]) == 0


def written(root, name: str = 'run', file: str = 'o.yml') -> dict:
    return yaml.safe_load((root / 'experiments' / name / file).read_text())


def test_written_options_hold_base_files_forced_values_seed_and_absolute_paths(root):
    options = relative(sr_options(root), root)
    options['manual_seed'] = None
    write_options(root / 'base.yml', options)
    (root / 'o.yml').write_text('_base_: base.yml\nname: ablation\nval: ~\n')
    train('o.yml', '--force_yml', 'train:total_iter=2', 'train:optim_g:lr=5e-4')
    found = written(root, 'ablation')
    assert '_base_' not in found and found['name'] == 'ablation' and found['val'] is None
    assert found['train']['total_iter'] == 2 and found['train']['optim_g']['lr'] == 5e-4
    assert isinstance(found['manual_seed'], int)
    assert found['datasets']['train']['dataroot_gt'] == f'{root}/hr'
    assert found['path']['root'] == str(root)


@pytest.mark.parametrize('start', ['elsewhere', 'inside'])
def test_a_run_repeats_itself_from_its_written_options_alone(root, monkeypatch, tmp_path_factory, start):
    write_options(root / 'o.yml', relative(sr_options(root, manual_seed=None), root))
    train('o.yml', '--force_yml', 'train:total_iter=3')
    first, options = network_weights(root), written(root)
    if start == 'inside':
        monkeypatch.chdir(root / 'experiments/run')
        train('o.yml')
    else:
        monkeypatch.chdir(tmp_path_factory.mktemp('elsewhere'))
        train(str(root / 'experiments/run/o.yml'))
    assert_same_weights(first, network_weights(root))
    assert written(root) == options
    assert len(list((root / 'experiments').glob('run_archived_*'))) == 1  # made anew, where the first one was


def test_a_run_goes_on_from_inside_its_folder(root, monkeypatch):
    write_options(root / 'o.yml', relative(sr_options(root), root))
    train('o.yml')
    monkeypatch.chdir(root / 'experiments/run')
    train('o.yml', '--auto_resume', '--force_yml', 'train:total_iter=6')
    assert (root / 'experiments/run/training_states/6.state').is_file()
    assert not list((root / 'experiments').glob('*archived*')) and not (root / 'experiments/run/experiments').exists()


def test_paths_in_blocks_of_models(root, monkeypatch, tmp_path_factory):
    """A teacher's weights, and files of weights in path."""
    weights = write_centroids(root)
    teacher = {'network': sr_options(root)['network_g'], 'weights': weights.name}
    options = relative(eco_options(root, teacher=teacher), root)
    options['datasets']['train'] = relative(sr_options(root), root)['datasets']['train']
    options['path']['pretrain_network_g'] = 'other.pth'
    import torch
    from basicsr.archs import build_network

    torch.manual_seed(9)
    torch.save({'params': build_network(options['network_g']).state_dict()}, root / 'other.pth')
    write_options(root / 'o.yml', options)
    train('o.yml', '--force_yml', 'train:total_iter=2')
    found = written(root)
    assert found['train']['eco']['teacher']['weights'] == str(root / 'teacher.pth')
    assert found['path']['pretrain_network_g'] == str(root / 'other.pth')
    first = network_weights(root)
    monkeypatch.chdir(tmp_path_factory.mktemp('elsewhere'))
    train(str(root / 'experiments/run/o.yml'))
    assert_same_weights(first, network_weights(root))


@pytest.mark.parametrize('name', ['1e5', '1_000', '2026-01-02', 'yes', '=', 'null', '1e-4x', '0x1f'])
def test_written_text_is_read_back_as_text(name):
    options = {'name': name, 'lr': 1e-05, 'list': [name, 3, 0.5, True, None]}
    text = write_yaml(options)
    assert read_yaml(text, 'o.yml') == (options, [])
    assert yaml.safe_load(text) == options


def test_a_run_whose_name_looks_like_a_number_repeats_itself(root):
    write_options(root / 'o.yml', sr_options(root))
    train('o.yml', '--force_yml', 'name="1e5"', 'train:total_iter=1')
    train(str(root / 'experiments/1e5/o.yml'))


def test_debug_runs_repeat_themselves(root):
    write_options(root / 'o.yml', sr_options(root))
    train('o.yml', '--debug', '--force_yml', 'train:total_iter=2')
    options = written(root, 'debug_run')
    assert options['name'] == 'debug_run'
    train(str(root / 'experiments/debug_run/o.yml'))
    assert written(root, 'debug_run') == options and not (root / 'experiments/run').exists()


def test_an_argument_wins_over_the_root_in_the_options(root, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    options = sr_options(root)
    options['path']['root'] = str(other)
    basicsr_ext.train(options, force_yml=['train:total_iter=1'])
    assert network_weights(other)
    third = tmp_path_factory.mktemp('third')
    basicsr_ext.train(options, force_yml=['train:total_iter=1'], root=third)
    assert network_weights(third) and not (root / 'experiments').exists()


def test_lmdbs_that_the_check_has_read_can_be_opened_by_the_run(root):
    """LMDB refuses to open a file twice in a process; the check reads an image of validation."""
    from basicsr_ext.storage import BasicSRLmdbWriter, open_store

    options = sr_options(root)
    for name in ('train', 'val'):
        for part in ('hr', 'lr'):
            store = open_store(root / part)
            with BasicSRLmdbWriter(root / f'{name}_{part}.lmdb') as writer:
                for key in store.keys():
                    writer.put(key, store.read(key))
        options['datasets'][name].update(
            dataroot_gt=f'{root}/{name}_hr.lmdb', dataroot_lq=f'{root}/{name}_lr.lmdb', io_backend={'type': 'lmdb'}
        )
    write_options(root / 'o.yml', options)
    train('o.yml', '--force_yml', 'train:total_iter=2')
