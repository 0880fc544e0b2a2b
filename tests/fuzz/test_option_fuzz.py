"""Damaged option files end in a message, never in a traceback or a made file; ``make fuzz`` tries many more."""

from __future__ import annotations

from collections import Counter

import basicsr_ext

basicsr_ext.register()

import pytest
from fuzz.option_bases import prepare
from fuzz.option_mutations import mutate
from fuzz.option_trials import run_trial

TRIALS = 200


@pytest.fixture(scope='module')
def bases(tmp_path_factory, photos):
    """A folder with images, and valid options on them."""
    root = tmp_path_factory.mktemp('fuzz').resolve()
    return root, prepare(root, photos)


def test_damaged_option_files(bases):
    root, options = bases
    counts = Counter()
    for number in range(TRIALS):
        trial = run_trial(root, number, options, rehearse=number % 3 == 0)
        assert trial.failure is None, f'trial {number} ({trial.mutation}): {trial.failure}\n{trial.text}'
        counts[trial.accepted] += 1
    assert counts[True] > TRIALS / 20 and counts[False] > TRIALS / 2  # some are still valid, most are not


def test_trials_repeat_themselves(bases):
    import random

    _, options = bases
    assert [mutate(random.Random(n), options[0][1]) for n in range(50)] == [
        mutate(random.Random(n), options[0][1]) for n in range(50)
    ]


def test_a_trial_notices_made_files_and_tracebacks(bases, monkeypatch):
    import fuzz.option_trials as trials

    root, options = bases
    monkeypatch.setattr(trials, '_check', lambda *_, **__: (root / 'made').mkdir(exist_ok=True))
    assert 'made files' in run_trial(root, 0, options).failure
    (root / 'made').rmdir()
    monkeypatch.setattr(trials, '_check', lambda *_, **__: 1 / 0)
    assert 'ZeroDivisionError' in run_trial(root, 0, options).failure
