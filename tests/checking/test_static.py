"""Names and keys are checked without torch and BasicSR, and never more strictly than by the checks that import them."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import subprocess
import sys
from pathlib import Path

import pytest
from basicsr.utils import registry
from checking.option_checks import changed, problems
from run_helpers import sr_options, write_options

from basicsr_ext.checking import static
from basicsr_ext.checking.report import Report
from basicsr_ext.checking.structure import check_structure
from basicsr_ext.cli.main import main
from basicsr_ext.options.source import read_source

OPTIONS = Path(__file__).parents[2] / 'options'
REGISTRIES = {
    'network': registry.ARCH_REGISTRY,
    'loss': registry.LOSS_REGISTRY,
    'metric': registry.METRIC_REGISTRY,
    'dataset': registry.DATASET_REGISTRY,
    'model': registry.MODEL_REGISTRY,
}
# Runs the command as a shell would, and tells what it has imported.
COMMAND = """
import sys
from basicsr_ext.cli.main import main
status = main(sys.argv[1:])
print([name for name in ('torch', 'basicsr', 'cv2') if name in sys.modules])
sys.exit(status)
"""


def found_at_once(options: dict | Path) -> list[str]:
    """Checks options as the command does before it imports anything; returns what is wrong with them."""
    source = read_source(options)
    report = Report(source, is_train='train' in source.values)
    check_structure(report)
    static.check_names_and_keys(report)
    return [str(problem) for problem in report.problems]


@pytest.mark.parametrize('what', REGISTRIES)
def test_reading_finds_what_is_registered(what):
    """But for what tests register themselves."""
    registered = {
        name.removesuffix('_basicsr')
        for name, target in REGISTRIES[what]
        if target.__module__.partition('.')[0] in ('basicsr', 'basicsr_ext')
    }
    assert set(static._definitions(what).registered) == registered


@pytest.mark.parametrize('path', sorted(OPTIONS.glob('*.yml')), ids=lambda path: path.stem)
def test_files_that_come_with_the_package_are_right(path):
    assert found_at_once(path) == []


def eco() -> dict:
    options = read_source(OPTIONS / 'train_ECO_EDSR_x2.yml').values
    return {**options, 'num_gpu': 0}


@pytest.mark.parametrize(
    ('path', 'value', 'message'),
    [
        ('model_type', 'ECOModl', 'registered model, found .*did you mean "ECOModel"'),
        ('network_g.type', 'EDSRR', 'registered network, found .*did you mean "EDSR"'),
        ('datasets.val.type', 'PairdStoreDataset', 'registered dataset, found .*did you mean "PairedStoreDataset"'),
        ('train.pixel_opt.type', 'L1Lss', 'registered loss, found .*did you mean "L1Loss"'),
        ('val.metrics.psnr.type', 'calculate_psrn', 'registered metric, found .*did you mean "calculate_psnr"'),
        ('train.eco.objectiv', 'eco', 'train.eco.objectiv: unknown option; did you mean "objective"'),
        ('train.eco.schedule', {'typ': 'linear'}, 'train.eco.schedule.typ: unknown option; did you mean "type"'),
        ('train.eco.objective', 'echo', 'train.eco.objective: input should be'),
        ('train.guard', {'facto': 5}, 'train.guard.facto: unknown option; did you mean "factor"'),
        ('train.grad_clip', {'norms': 1}, 'train.grad_clip.norms: unknown option'),
        ('datasets.train.use_flip', True, 'datasets.train.use_flip: unknown option; did you mean "use_hflip"'),
        ('datasets.train.gt_size', 97, 'datasets.train.gt_size: expected a multiple of scale'),
        ('train.optim_g.lr', 'fast', 'train.optim_g.lr'),
    ],
)
def test_slips_are_told_in_the_same_words(tmp_path, path, value, message):
    options = changed(eco(), path, value)
    at_once, later = found_at_once(options), problems(options, tmp_path)
    assert set(at_once) <= set(later)
    import re

    if path != 'train.optim_g.lr':  # of torch's optimizer nothing is known without torch
        assert len([problem for problem in at_once if re.search(message, problem)]) == 1, at_once


def test_names_of_others_are_left_to_the_checks_that_import(tmp_path):
    """A name that is like no known one may be registered by somebody else; and so may one that is defined in the folder."""
    options = changed(eco(), 'network_g.type', 'MyOwnTransformer')
    assert found_at_once(options) == []
    assert any('network_g.type' in problem for problem in problems(options, tmp_path))
    assert 'ResidualBlockNoBN' not in static._definitions('network').registered
    for name in ('EDSR_basicsr', 'SwinIR'):
        assert found_at_once(changed(eco(), 'network_g.type', name)) == []


@pytest.mark.parametrize('command', ['check', 'train', 'test'])
def test_the_command_answers_without_torch(tmp_path, command):
    options = eco()
    if command == 'test':
        options = {**{key: options[key] for key in ('name', 'model_type', 'scale', 'num_gpu', 'network_g', 'path')}}
        options['datasets'] = {'test': {'name': 'a', 'type': 'PairedStoreDataset', 'dataroot_lq': 'lq'}}
    file = write_options(tmp_path / 'o.yml', changed(options, 'network_g.type', 'EDSRR'))
    result = subprocess.run(
        [sys.executable, '-c', COMMAND, command, '-opt', str(file)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout) == (2, '[]\n'), result.stderr
    assert 'did you mean "EDSR"?\nAll else is checked once this is right.\n' in result.stderr


def test_the_first_line_says_that_it_takes_seconds(tmp_path, monkeypatch, capsys):
    """Before torch is imported; of several ranks one says it; nothing is said where torch is there already."""
    file = write_options(tmp_path / 'o.yml', sr_options(tmp_path))
    line = f'basicsr check: {file}: loading torch and BasicSR ...\n'
    assert main(['check', '-opt', str(file)]) == 2  # there are no images
    assert line not in capsys.readouterr().err
    monkeypatch.delitem(sys.modules, 'torch')
    checked = []
    monkeypatch.setattr(
        'basicsr_ext.checking.check.check', lambda *_, **__: checked.append(capsys.readouterr().err) or ''
    )
    for rank, expected in (('0', line), ('1', '')):
        monkeypatch.setenv('RANK', rank)
        assert main(['check', '-opt', str(file)]) == 0
        assert checked.pop() == expected
