"""Names that are keys at a glance are those that the whole rule allows."""

from __future__ import annotations

import itertools

import pytest

from basicsr_ext.storage import base
from basicsr_ext.storage.base import unfit_key

PARTS = ('', '.', '..', 'a', 'a.b', '.a', '-', 'ä', 'C:', 'a\\b', 'a\0', ' ', 'a b', '\udce9', 'a\n')


@pytest.mark.parametrize('count', [1, 2, 3])
def test_plain_names_are_no_exception(monkeypatch, count):
    names = ['/'.join(parts) for parts in itertools.product(PARTS, repeat=count)]
    at_a_glance = [unfit_key(name) for name in names]
    monkeypatch.setattr(base, '_PLAIN', base.re.compile('(?!)'))
    assert at_a_glance == [unfit_key(name) for name in names]
    assert '' in at_a_glance and len(set(at_a_glance)) > 1
