"""Which known name was probably meant."""

from __future__ import annotations

import pytest

from basicsr_ext.options.closest import closest_name, closest_names


@pytest.mark.parametrize(
    ('written', 'closest'),
    [
        ('EDRS', 'EDSR'),  # two letters the wrong way round
        ('edsr', 'EDSR'),
        ('Residual', 'ResidualInResidualNetwork'),  # a part
        ('zzz', None),
        ('', None),
        (3, None),
        ('x' * 5000, None),
    ],
)
def test_the_closest_name(written, closest):
    assert closest_name(written, ['EDSR', 'EDVR', 'ResidualInResidualNetwork']) == closest


def test_several_close_names():
    assert closest_names('Adan1', ['Adam', 'SGD', 'Adan'], count=2) == ['Adan', 'Adam']
    assert closest_names('Adan', []) == []
