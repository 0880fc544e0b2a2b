"""What networks need of their input."""

from __future__ import annotations

import pytest

import basicsr_ext

basicsr_ext.register()

from basicsr_ext.models.network_needs import needs_of


@pytest.mark.parametrize(
    ('network', 'expected'),
    [
        ({'type': 'EDSR', 'num_in_ch': 3, 'num_out_ch': 3}, (1, False)),
        ({'type': 'EDSR', 'num_in_ch': 1, 'num_out_ch': 1}, (1, True)),
        ({'type': 'SwinIR'}, (7, False)),  # its default
        ({'type': 'SwinIR', 'window_size': 8, 'in_chans': 1}, (8, True)),
        ({'type': 'VDSR'}, (1, True)),  # its default
        ({'type': 'VDSR', 'in_channels': 3}, (1, False)),
        ({'type': 'Unknown', 'window_size': [4, 6], 'num_in_ch': 3}, (12, False)),
        ({'type': 'Unknown'}, (1, False)),
    ],
)
def test_needs(network, expected):
    assert needs_of(network) == expected
