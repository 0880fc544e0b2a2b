"""ECO against numbers of its published implementation."""

from __future__ import annotations

import numpy as np
import pytest

from basicsr_ext.functional.centroid import sigmoid_alpha


@pytest.mark.parametrize(('name', 'shift'), [('alpha_shift0', 0.0), ('alpha_shift_m2', -2.0), ('alpha_shift2', 2.0)])
def test_golden_alpha_curve(golden_dir, name, shift):
    golden = np.load(golden_dir / 'eco_alpha.npz')
    ours = [sigmoid_alpha(p, shift) for p in golden['progress']]
    np.testing.assert_allclose(ours, golden[name], rtol=0, atol=1e-12)
