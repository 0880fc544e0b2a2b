"""bench/gpu: each part in small on the CPU; figures are kept as soon as they are there; the page's tables."""

from __future__ import annotations

import importlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / 'bench/gpu'


@pytest.fixture
def part(monkeypatch, tmp_path):
    """Imports a script of the run, with arguments for a small trial of it; its folder of results is ``out``."""
    pytest.importorskip('skimage')
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delenv('BASICSR_EXT_BENCH_DIR', raising=False)

    def load(name: str, minutes: float = 5):
        arguments = ['--out', str(tmp_path / 'out'), '--minutes', str(minutes), '--small']
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *arguments])
        return importlib.import_module(name)

    disabled = logging.root.manager.disable
    yield load
    logging.disable(disabled)  # the scripts keep their output short
    for name in ('measuring', 'images', 'step', 'feeding', 'centroids', 'evidence', 'tables', 'pack'):
        sys.modules.pop(name, None)


def figures_in(folder: Path) -> dict[str, dict]:
    lines = [json.loads(line) for line in (folder / 'results.jsonl').read_text().splitlines()]
    assert all(line['small'] and line['device'] == 'CPU' for line in lines)
    return {line['figure']: line for line in lines}


def test_steps(part, tmp_path, monkeypatch):
    step = part('step')
    monkeypatch.setattr(step, 'profile', lambda *arguments: None)
    figures = step.Figures('step', tmp_path / 'out', 5, True)
    step.measure_network(figures, 'EDSR-baseline_x2', step.VARIANTS, 0, 1)
    step.measure_eco(figures)
    step.measure_pspl(figures)
    found = figures_in(tmp_path / 'out')
    assert {f'step_EDSR-baseline_x2_{variant}' for variant in step.VARIANTS} <= found.keys()
    assert found['EDSR-baseline_x2_fp32_over_stock']['goal'] == '>= 1.1'
    ratio = found['step_EDSR-baseline_x2_fp32']['value'] / found['step_EDSR-baseline_x2_stock']['value']
    assert found['EDSR-baseline_x2_fp32_over_stock']['value'] == pytest.approx(ratio)
    assert {'eco_over_vanilla_fp32', 'pspl_loss_share_of_step'} <= found.keys()


def test_feeding_and_centroids(part, tmp_path, monkeypatch):
    for name in ('feeding', 'centroids'):
        script = part(name)
        monkeypatch.setattr(script, 'profile', lambda *arguments: None)
        if name == 'feeding':
            monkeypatch.setattr(script, 'LOADERS', {'raw_store_thread': script.LOADERS['raw_store_thread']})
        script.main()
    found = figures_in(tmp_path / 'out')
    wanted = {'feeding_raw_store_thread', 'feeding_run_raw_store_thread_graph', 'feeding_data_share_raw_store_thread_graph',
              'centroids_fp32', 'centroids_bf16', 'centroids_bf16_over_fp32'}  # fmt: skip
    assert wanted == found.keys() and all(line['value'] is not None for line in found.values())


def test_nothing_done_is_lost(part, tmp_path):
    measuring = part('measuring')
    figures = measuring.Figures('step', tmp_path / 'out', 5, True)
    with figures.attempt('one'):
        figures.write('done', 1.5, 's')
        raise ValueError('broken')
    figures.end = 0
    with figures.attempt('two') as there_is_time:
        assert not there_is_time
    found = figures_in(tmp_path / 'out')
    assert found['done']['value'] == 1.5
    assert found['one']['value'] is None and found['one']['reason'] == 'ValueError: broken'
    assert found['two']['reason'] == 'no time was left'


def test_profile_is_a_chrome_trace(part, tmp_path):
    import gzip

    import torch

    part('measuring').profile(lambda: torch.ones(3) + 1, 'sum', tmp_path, 2)
    with gzip.open(tmp_path / 'trace_sum.json.gz', 'rt') as file:
        assert any(event.get('name') == 'aten::add' for event in json.load(file)['traceEvents'])


def line_of(figure: str, value: float | None, unit: str = 'x', goal: str | None = None, **details) -> str:
    line = {'part': 'step', 'figure': figure, 'value': value, 'unit': unit, 'goal': goal, 'device': 'a GPU', 'torch': '2',
            'small': False, 'time': '2026-01-02T03:04:05Z', **details}  # fmt: skip
    return json.dumps(line) + '\n'


def test_tables_say_what_was_measured_and_what_was_not(part, tmp_path):
    tables = part('tables')
    results, page = tmp_path / 'a.jsonl', tmp_path / 'page.md'
    results.write_text(
        line_of('step_RCAN_x4_bf16', 800, 'images/s', peak_MB=2500, share_of_bf16_peak=0.25)
        + line_of('RCAN_x4_over', 3.9, goal='>= 4')
        + line_of('eco', 0.5, '%', '<= 1')
        + line_of('lost', None, reason='no time was left')
        + line_of('trial', 9, small=True)
    )
    text = tables.text_of(tables.read([results]))
    assert '| bf16 | not measured | 800 images/s, 2.5 GB, 25.0% | not measured |' in text
    assert '| `RCAN_x4_over` | 3.9 x | >= 4: not reached |' in text
    assert '| `eco` | 0.5 % | <= 1 |' in text and '| `lost` | not measured (no time was left) |  |' in text
    assert 'trial' not in text and tables.text_of({}) == 'GPU: not measured.'
    page.write_text(f'before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n')
    sys.argv = ['tables.py', str(results), '--docs', str(page)]
    tables.main()
    assert page.read_text() == f'before\n{tables.BEGIN}\n\n{text}\n\n{tables.END}\nafter\n'


def test_the_page_is_fresh(part):
    tables = part('tables')
    page = (FOLDER.parents[1] / 'docs/benchmarks.md').read_text('utf-8')
    block = page.partition(tables.BEGIN)[2].partition(tables.END)[0]
    assert block.strip() == tables.text_of(tables.read(sorted((FOLDER / 'results').glob('*.jsonl'))))


@pytest.mark.parametrize('arguments', [['--only', 'nothing'], ['--minutes'], ['--what', '3']])
def test_wrong_arguments_are_refused(arguments):
    result = subprocess.run([str(FOLDER / 'run.sh'), *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and 'run.sh: expected' in result.stderr


FAKE = """
import argparse, json, pathlib, sys, time
parser = argparse.ArgumentParser()
for name in ('minutes', 'device', 'root', 'jobs', 'iterations', 'seeds'):
    parser.add_argument('--' + name)
args = parser.parse_args()
folder = pathlib.Path(args.root, 'json', 'fake')
folder.mkdir(parents=True, exist_ok=True)
(folder / 'fake_seed0.json').write_text(json.dumps(vars(args)))
(folder / 'images.json').write_text('{}')
(pathlib.Path(args.root) / 'store').write_text('large')
sys.exit(0)
"""


def test_what_experiments_have_done_comes_back(part, tmp_path, monkeypatch):
    import tarfile

    evidence = part('evidence')
    (tmp_path / 'fake.py').write_text(FAKE)
    monkeypatch.setattr(evidence, 'SCRIPTS', tmp_path)
    monkeypatch.setattr(sys, 'argv', [*sys.argv, '--scripts', 'fake.py:3'])
    evidence.main()
    line = figures_in(tmp_path / 'out')['evidence_fake.py']
    assert line['value'] == 1 and line['status'] == 0
    with tarfile.open(tmp_path / 'out/evidence.tar.gz') as archive:
        names = archive.getnames()
        told = json.load(archive.extractfile('evidence/json/fake/fake_seed0.json'))
    assert told['device'] == 'cpu' and 0 < float(told['minutes']) < 5
    assert not any('store' in name for name in names)
