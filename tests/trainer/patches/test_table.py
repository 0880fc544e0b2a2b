"""What a run replaces in BasicSR is put back, and another BasicSR is refused."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import basicsr
import pytest
from run_helpers import sr_options

from basicsr_ext.trainer.patches.table import Patch, _locate, all_patches, installed
from basicsr_ext.trainer.session import Run


@pytest.fixture
def seams(tmp_path):
    return all_patches(Run(sr_options(tmp_path), is_train=True, root=tmp_path))


def test_replacements_stand_during_a_run_and_go_with_it(seams):
    def current():
        return [getattr(*_locate(seam.target)) for seam in seams]

    before = current()
    with installed(seams):
        assert all(now == seam.replacement for now, seam in zip(current(), seams, strict=True))
    assert current() == before
    with pytest.raises(ZeroDivisionError), installed(seams):
        print(1 / 0)
    assert current() == before


def test_register_replaces_nothing(seams):
    basicsr_ext.register()
    for seam in seams:
        assert getattr(*_locate(seam.target)).__module__.startswith('basicsr.')


def test_every_seam_says_what_and_why(seams):
    import inspect
    from pathlib import Path

    for seam in seams:
        file, line = seam.upstream.split(':')
        text = Path(basicsr.__file__).parent.joinpath(file).read_text().splitlines()[int(line) - 1]
        name = seam.target.replace(':', '.').split('.')[-1]
        assert name in text and text.lstrip().startswith(('def ', 'class ')), (seam.target, text)
        assert len(seam.why) > 5 and inspect.isroutine(seam.replacement)


def test_another_basicsr_is_refused(seams, monkeypatch):
    monkeypatch.setattr(basicsr, '__version__', '1.4.3')
    with pytest.raises(basicsr_ext.UserError, match=r'expected version 1\.4\.2, found 1\.4\.3'), installed(seams):
        pass


def test_a_missing_name_is_refused_before_anything_is_replaced(seams):
    original = basicsr.train.parse_options
    broken = [*seams, Patch('basicsr.train:no_such_function', print, 'train.py:1', 'why')]
    with pytest.raises(basicsr_ext.UserError, match=r'lacks basicsr\.train:no_such_function'), installed(broken):
        pass
    assert basicsr.train.parse_options is original
