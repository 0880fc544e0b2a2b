"""docs/python.md: its blocks run as they stand, and public names are where it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from run_helpers import write_images

import basicsr_ext
from basicsr_ext import archs, data, functional, losses, metrics, models, networks

PAGE = Path(__file__).parents[1] / 'docs/python.md'
PACKAGES = (archs, data, functional, losses, metrics, models, networks)


def test_every_block_runs(tmp_path, monkeypatch, photos, capsys):
    crops = {key: np.ascontiguousarray(photo[100:180, 100:200]) for key, photo in photos.items()}
    write_images(tmp_path / 'photographs', crops)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r'^```python\n(.*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL)
    names: dict = {'__name__': 'page'}
    for block in blocks:
        exec(compile(block, str(PAGE), 'exec'), names)
    log = capsys.readouterr().err
    assert len(blocks) == 7 and 'Network: EDSR' in log and '(_)' not in log and 'Conv2d' not in log  # quiet
    result = names['result']
    assert result.folder == tmp_path / 'experiments/small' and result.iteration == 20
    assert result.weights == {'net_g': result.folder / 'models/net_g_latest.pth'} and result.weights['net_g'].is_file()
    assert result.last.keys() == result.best.keys() == {'DIV2K_valid'}
    assert result.last['DIV2K_valid'].keys() == result.best['DIV2K_valid'].keys() == {'psnr', 'ssim'}
    assert sorted(path.stem for path in names['done'].files) == sorted(crops)
    again = basicsr_ext.train(names['options'], auto_resume=True)  # nothing is left to train
    assert again[:-1] == result[:-1]
    log = capsys.readouterr().err
    assert '(_)' in log and 'Conv2d' in log  # the banner, and the layers


def test_names_are_imported_when_they_are_asked_for():
    """Importing the packages costs nothing; a function needs no BasicSR; a loss makes BasicSR importable by itself."""
    code = (
        'import sys\nfrom basicsr_ext import archs, data, functional, losses, metrics, models\n'
        'assert not {"torch", "basicsr", "numpy", "cv2"} & set(sys.modules)\n'
        'from basicsr_ext.functional import imresize\nassert "basicsr" not in sys.modules\n'
        'from basicsr_ext.losses import PSPLLoss\nassert PSPLLoss().gamma == 2.0\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=120, cwd=PAGE.parents[1])


@pytest.mark.parametrize('package', PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_there_and_no_other(package):
    basicsr_ext.register()
    assert set(dir(package)) == set(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError, match='has no attribute'):
        package.nothing  # noqa: B018


def test_every_registered_class_and_metric_is_public():
    basicsr_ext.register()
    from basicsr.utils import registry

    kinds = {'ARCH': archs, 'DATASET': data, 'LOSS': losses, 'METRIC': metrics, 'MODEL': models}
    for kind, package in kinds.items():
        ours = {
            made.__name__
            for name, made in getattr(registry, f'{kind}_REGISTRY')
            if made.__module__.startswith('basicsr_ext.') and not name.startswith('basicsr_ext')
        }
        assert ours and ours <= set(package.__all__), kind
