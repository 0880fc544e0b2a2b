import csv
import io
import json
import math
import os

import pytest

from basicsr_ext import UserError
from basicsr_ext.report.results import (
    FILES,
    Scores,
    as_csv,
    as_json,
    as_markdown,
    as_text,
    check_new_report,
    check_output,
    set_aside,
    write_results,
)


@pytest.fixture
def results():
    first = Scores('Set5', 'RCAN', {'baby': {'PSNR': 38.0, 'SSIM': 0.9}, 'bi|rd': {'PSNR': 40.5, 'SSIM': 1.0}})
    return [first, Scores('Set5', 'ECO', {'baby': {'PSNR': math.inf, 'NIQE': 5.0}})]


def test_console(results):
    assert as_text(results[:1]).splitlines() == [
        'Set5: RCAN     PSNR    SSIM',
        'baby        38.0000  0.9000',
        'bi|rd       40.5000  1.0000',
        'mean        39.2500  0.9500',
    ]
    assert as_text(results).splitlines()[-3:] == [
        'Set5 (mean)     PSNR    SSIM    NIQE',
        'RCAN         39.2500  0.9500       -',
        'ECO              inf       -  5.0000',
    ]


def test_markdown(results):
    lines = as_markdown(results, {'scale': 2}).splitlines()
    assert lines[:4] == [
        '| Set5 (mean) | PSNR | SSIM | NIQE |',
        '| --- | ---: | ---: | ---: |',
        '| RCAN | 39.2500 | 0.9500 | - |',
        '| ECO | inf | - | 5.0000 |',
    ]
    assert '- scale: 2' in lines
    assert '| bi\\|rd | 40.5000 | 1.0000 |' in lines


def test_csv(results):
    rows = list(csv.DictReader(io.StringIO(as_csv(results))))
    assert [(row['method'], row['image'], row['PSNR'], row['NIQE']) for row in rows] == [
        ('RCAN', 'baby', '38.0', ''),
        ('RCAN', 'bi|rd', '40.5', ''),
        ('RCAN', '(mean)', '39.25', ''),
        ('ECO', 'baby', 'inf', '5.0'),
        ('ECO', '(mean)', 'inf', '5.0'),
    ]


def test_json(results):
    def refuse(constant):
        raise AssertionError(f'{constant} is no JSON')

    content = json.loads(as_json(results, {'scale': 2}), parse_constant=refuse)
    assert content['settings'] == {'scale': 2}
    assert content['results'][0]['mean'] == {'PSNR': 39.25, 'SSIM': 0.95}
    assert float(content['results'][1]['images']['baby']['PSNR']) == math.inf


def test_every_image_has_the_same_metrics():
    with pytest.raises(ValueError, match='the same metrics'):
        Scores('Set5', 'ECO', {'a': {'PSNR': 1.0}, 'b': {'SSIM': 1.0}})
    with pytest.raises(ValueError, match='the same metrics'):
        Scores('Set5', 'ECO', {})


def test_files_are_replaced(results, tmp_path):
    folder = tmp_path / 'new' / 'out'
    check_output(folder)
    assert not folder.exists()
    write_results(results[:1], folder)
    write_results(results, folder, {'scale': 2})
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert (folder / 'metrics.csv').read_text() == as_csv(results)
    assert (folder / 'metrics.md').read_text() == as_markdown(results, {'scale': 2})
    assert (folder / 'metrics.json').read_text() == as_json(results, {'scale': 2})


@pytest.mark.parametrize('name', FILES)
def test_an_earlier_report_is_found(tmp_path, name):
    check_new_report(tmp_path)
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=f'{name} exist already. Choose another folder'):
        check_new_report(tmp_path)


@pytest.mark.parametrize('name', ['out.json', 'out.MD', 'metrics.csv'])
def test_a_report_is_a_folder(tmp_path, name):
    with pytest.raises(UserError, match='found the name of a file'):
        check_new_report(tmp_path / name)
    (tmp_path / name).mkdir()
    check_new_report(tmp_path / name)


def test_an_earlier_report_is_set_aside(results, tmp_path):
    set_aside(tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_results(results[:1], tmp_path)
    set_aside(tmp_path)
    (archive,) = tmp_path.iterdir()
    assert archive.name.startswith('metrics_archived_')
    assert (archive / 'metrics.csv').read_text() == as_csv(results[:1])
    assert sorted(path.name for path in archive.iterdir()) == sorted(FILES)


def test_a_full_disk_leaves_the_earlier_files_alone(results, tmp_path, monkeypatch):
    write_results(results[:1], tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    calls = []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(UserError, match=r'writing failed \(No space left on device\)'):
        write_results(results, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_outputs_that_cannot_be_written_to(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file is a file'):
        check_output(tmp_path / 'file' / 'out')
    monkeypatch.setattr(os, 'access', lambda *_: False)  # root may write everywhere
    with pytest.raises(UserError, match='is not writable'):
        check_output(tmp_path / 'out')
