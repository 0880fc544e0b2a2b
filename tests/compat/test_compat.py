"""Each mend makes BasicSR importable where something is broken, and is harmless where nothing is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import basicsr_ext

ROOT = Path(basicsr_ext.__file__).parents[1]


def run(code: str) -> str:
    result = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def test_importing_the_package_is_light():
    run('import sys, basicsr_ext\nassert not {"torch", "basicsr", "numpy", "cv2"} & set(sys.modules)')


def test_registering_twice_is_harmless_and_basicsr_imports():
    out = run(
        'import basicsr_ext\nbasicsr_ext.register()\nbasicsr_ext.register()\nimport basicsr, torchvision\n'
        'from basicsr.utils.registry import MODEL_REGISTRY, DATASET_REGISTRY\n'
        'print("ECOModel" in MODEL_REGISTRY, "PairedCentroidDataset" in DATASET_REGISTRY, basicsr.__version__)'
    )
    assert out.split()[-3:] == ['True', 'True', '1.4.2']


def test_registering_does_not_shadow_names_of_basicsr():
    run(
        'import basicsr_ext.compat as c\nc.apply()\nimport basicsr\nfrom basicsr.utils import registry as r\n'
        'regs = [v for k, v in vars(r).items() if k.endswith("_REGISTRY")]\nbefore = [dict(x._obj_map) for x in regs]\n'
        'import basicsr_ext\nbasicsr_ext.register()\n'
        'for x, old in zip(regs, before):\n    assert all(x._obj_map[k] is v for k, v in old.items())'
    )


def test_modules_that_are_gone_are_offered_under_their_old_names():
    """As if torchvision, SciPy and Python had none of them."""
    run(
        'import sys, importlib.util as u\n'
        'gone = ("torchvision.transforms.functional_tensor", "scipy.ndimage.filters", "distutils")\n'
        'find = u.find_spec\n'
        'u.find_spec = lambda name, package=None: None if name in gone else find(name, package)\n'
        'for name in [m for m in sys.modules if m.startswith("distutils")]: del sys.modules[name]\n'
        'from basicsr_ext import compat\ncompat.apply()\n'
        'for name in gone: assert name in sys.modules, name\n'
        'from torchvision.transforms.functional_tensor import rgb_to_grayscale\n'
        'from scipy.ndimage.filters import convolve, gaussian_filter\nfrom scipy.ndimage import convolve as own\n'
        'assert convolve is own\n'
        'from distutils.version import LooseVersion\n'
        'assert LooseVersion("0.28.0+cpu") >= LooseVersion("0.13") > LooseVersion("0.9.1")\n'
        'import basicsr.archs.arch_util, basicsr.metrics.niqe, basicsr.data.degradations\n'
        'import torch\nassert rgb_to_grayscale(torch.rand(3, 4, 4)).shape == (1, 4, 4)'
    )


def test_existing_modules_are_left_alone():
    run(
        'import sys, types\nmine = types.ModuleType("torchvision.transforms.functional_tensor")\n'
        'from basicsr_ext.compat import torchvision_operators, functional_tensor\ntorchvision_operators.apply()\n'
        'sys.modules[mine.__name__] = mine\nfunctional_tensor.apply()\nassert sys.modules[mine.__name__] is mine'
    )


@pytest.mark.parametrize('loads', [True, False])
def test_operators_are_declared_only_where_they_cannot_be_loaded(loads):
    run(
        'import torch\nfrom basicsr_ext.compat import torchvision_operators as t\n'
        f't._compiled_operators_load = lambda torch: {loads}\n'
        't.apply()\nt.apply()\n'
        f'assert (t._library is None) == {loads}\n'
        f'assert hasattr(torch.ops.torchvision, "nms") != {loads}'
    )


def test_cuda_calls_are_ignored_only_inside():
    run(
        'import torch\nfrom basicsr_ext.compat import cuda_calls\nbefore = torch.Tensor.cuda, torch.nn.Module.cuda\n'
        'with cuda_calls.ignored():\n    x = torch.zeros(2)\n    assert x.cuda() is x\n'
        '    m = torch.nn.Linear(1, 1)\n    assert m.cuda(0) is m\n'
        'assert (torch.Tensor.cuda, torch.nn.Module.cuda) == before'
    )
