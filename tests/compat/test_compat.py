"""Each mend makes BasicSR importable where something is broken, and does nothing where nothing is, or something else."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import basicsr_ext

ROOT = Path(basicsr_ext.__file__).parents[1]
GONE = """
import sys
class Gone:
    def __init__(self, *names): self.names = names
    def find_spec(self, name, path=None, target=None):
        if name in self.names: raise ModuleNotFoundError(f'No module named {name!r}', name=name)
def gone(*names):
    for name in list(sys.modules):
        if name.startswith(names): del sys.modules[name]
    sys.meta_path.insert(0, Gone(*names))
"""
# what torchvision does when it is imported: load its compiled part, whatever that is called, then describe its operators
TORCHVISION = """
import torch
from torchvision import extension, shapes
"""
SHAPES = """
import torch, torchvision.extension
assert torchvision.extension
for name in {names}:
    torch.library.register_fake('torchvision::' + name)(lambda dets, scores, iou_threshold: dets)
"""
LOADS = """
import torch
library = torch.library.Library('torchvision', 'DEF')
for name in ('nms', 'qnms'):
    library.define(name + '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
"""


def run(code: str, path: Path | None = None) -> str:
    """Runs code in a fresh Python, with a folder of stand-in packages that are found before the installed ones."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(str(part) for part in (path, ROOT) if part)}
    command = [sys.executable, '-W', 'ignore::DeprecationWarning', '-c', GONE + code]
    result = subprocess.run(command, cwd=ROOT.anchor, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def write_package(folder: Path, **modules: str) -> Path:
    """Writes a package named torchvision; keywords are its modules' names and texts."""
    for name, text in modules.items():
        path = folder / 'torchvision' / f'{name}.py'
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return folder


def test_importing_the_package_is_light():
    run('import basicsr_ext\nassert not {"torch", "basicsr", "numpy", "cv2"} & set(sys.modules)')


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


def test_without_basicsr_the_error_says_what_installs_it(tmp_path):
    """On Python 3.13 pip alone cannot install BasicSR, and SciPy, which comes with it, is missing too."""
    run(
        'import importlib.util as u\nfind = u.find_spec\n'
        'u.find_spec = lambda name, package=None: None if name == "basicsr" else find(name, package)\n'
        'gone("basicsr", "scipy")\n'
        f'import io, os; os.chdir({str(tmp_path)!r})\nfrom contextlib import redirect_stderr\n'
        'import cv2, numpy, torch\nfrom basicsr_ext.cli.main import main\n'
        'os.mkdir("in"); cv2.imwrite("in/a.png", numpy.zeros((8, 8, 3), "uint8"))\n'
        'torch.save({"a": torch.zeros(1)}, "a.pth")\n'
        'for command in ("train -opt basicsr_ext:train_vanilla_EDSR_x2", "check -opt basicsr_ext:train_vanilla_EDSR_x2",\n'
        '                "upscale -i in -o up --weights a.pth", "evaluate --gt in --sr in"):\n'
        '    with redirect_stderr(io.StringIO()) as said: assert main(command.split()) == 2\n'
        '    start = f"basicsr {command.split()[0]}: error: BasicSR 1.4.2 is not installed. This builds and installs it: "\n'
        '    assert said.getvalue() == start + "python -m basicsr_ext.install_basicsr\\n", said.getvalue()\n'
    )


def test_deprecation_warnings_of_our_own_code_are_errors():
    for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
        with pytest.raises(category):
            warnings.warn_explicit('will go', category, 'file.py', 1, module='basicsr_ext.storage.folder')
    warnings.warn_explicit('will go', DeprecationWarning, 'file.py', 1, module='basicsr.data')  # others may


# ---- names that are gone -------------------------------------------------------------------------------------------------


def test_modules_that_are_gone_are_offered_under_their_old_names():
    """As if torchvision, SciPy, setuptools and Python had none of them."""
    run(
        'from basicsr_ext import compat\n'
        'import scipy.ndimage; from basicsr_ext.compat import torchvision_operators as t; t.apply()\n'
        'gone("distutils", "torchvision.transforms.functional_tensor", "scipy.ndimage.filters")\n'
        'compat.apply(); compat.apply()\n'
        'from torchvision.transforms.functional_tensor import rgb_to_grayscale\n'
        'from scipy.ndimage.filters import convolve\nfrom scipy.ndimage import convolve as own, filters\n'
        'assert convolve is own and filters.gaussian_filter([0., 1., 0.], 1).shape == (3,)\n'
        'from distutils.version import LooseVersion\n'
        'assert LooseVersion("0.28.0+cpu") >= LooseVersion("0.13") > LooseVersion("0.9.1")\n'
        'import basicsr.archs.arch_util, basicsr.metrics.niqe, basicsr.data.degradations\n'
        'import torch\nassert rgb_to_grayscale(torch.rand(3, 4, 4)).shape == (1, 4, 4)'
    )


MODULES = """
from basicsr_ext.compat import distutils_version, functional_tensor, scipy_filters, torchvision_operators
torchvision_operators.apply()
MODULES = [
    (distutils_version, 'distutils.version', 'LooseVersion'),
    (functional_tensor, 'torchvision.transforms.functional_tensor', 'rgb_to_grayscale'),
    (scipy_filters, 'scipy.ndimage.filters', 'convolve'),
]
"""


def test_modules_that_are_there_are_left_alone_but_for_a_name_that_they_lost():
    run(
        MODULES + 'from types import ModuleType\nimport scipy.ndimage\n'
        'sys.modules.setdefault("distutils", ModuleType("distutils"))\n'
        'for mend, module, name in MODULES:\n'
        '    mine = sys.modules[module] = ModuleType(module)\n'
        '    mine.convolve = mine.gaussian_filter = "mine"\n    setattr(mine, name, "mine")\n'
        '    before = dict(vars(mine)); mend.apply()\n'
        '    assert sys.modules[module] is mine and vars(mine) == before\n'
        '    delattr(mine, name); mend.apply()\n'
        '    assert callable(getattr(mine, name)) and vars(mine).keys() == before.keys()\n'
    )


def test_another_failure_is_not_covered_up():
    """The modules are there, and cannot be imported for want of something else."""
    run(
        MODULES + 'import importlib, scipy.ndimage\nreal = importlib.import_module\n'
        'def importing(name, package=None):\n'
        '    if name in wanting: raise ModuleNotFoundError("No module named wanted", name="wanted")\n'
        '    return real(name, package)\n'
        'importlib.import_module = importing\n'
        'wanting = [module for _, module, _ in MODULES]\n'
        'for mend, module, _ in MODULES:\n'
        '    try: mend.apply()\n'
        '    except ModuleNotFoundError as error: assert error.name == "wanted"\n'
        '    else: raise AssertionError(module)\n'
    )


def test_a_package_that_is_missing_is_not_made_up():
    run(
        'from basicsr_ext.compat import scipy_filters, torchvision_operators\n'
        'gone("scipy", "torchvision")\n'
        'for mend, package in ((scipy_filters, "scipy"), (torchvision_operators, "torchvision")):\n'
        '    try: mend.apply()\n'
        '    except ModuleNotFoundError as error: assert error.name == package\n'
        '    else: raise AssertionError(package)\n'
        '    assert package not in sys.modules\n'
    )


# ---- torchvision's operators ---------------------------------------------------------------------------------------------


def test_the_installed_torchvision_is_imported_whole_whether_or_not_its_operators_load():
    run(
        'from basicsr_ext.compat import torchvision_operators as t\nt.apply(); t.apply()\n'
        'import torch, torchvision, torchvision.ops\nassert hasattr(torch.ops.torchvision, "nms")\n'
        'assert torchvision.extension._has_ops() != bool(t._declared), t._declared'
    )


def test_operators_that_load_are_not_declared_whatever_their_file_is_called(tmp_path):
    """Declared twice, they abort the process."""
    package = write_package(
        tmp_path, __init__=TORCHVISION, extension=LOADS, shapes=SHAPES.format(names=('nms', 'qnms'))
    )
    run(
        'from basicsr_ext.compat import torchvision_operators as t\nt.apply(); t.apply()\nassert not t._declared\n'
        'import torch\nassert torch.ops.torchvision.nms and torch.ops.torchvision.qnms',
        package,
    )


def test_operators_that_cannot_load_are_declared_as_far_as_the_import_needs_them(tmp_path):
    package = write_package(tmp_path, __init__=TORCHVISION, extension='', shapes=SHAPES.format(names=('nms', 'qnms')))
    run(
        'from basicsr_ext.compat import torchvision_operators as t\nt.apply(); t.apply()\n'
        'assert list(t._declared) == ["torchvision::nms", "torchvision::qnms"]\nimport torch, torchvision\n'
        'assert torchvision.extension and torchvision.shapes and torch.ops.torchvision.nms',
        package,
    )


@pytest.mark.parametrize(
    ('extension', 'names', 'message'),
    [
        ('', ('other',), 'operator torchvision::other does not exist'),
        ('raise RuntimeError("compiled for another CUDA")', (), 'compiled for another CUDA'),
        (
            'raise RuntimeError("operator torchvision::nms does not exist")',
            (),
            'operator torchvision::nms does not exist',
        ),
    ],
)
def test_another_failure_of_torchvision_is_not_covered_up(tmp_path, extension, names, message):
    package = write_package(tmp_path, __init__=TORCHVISION, extension=extension, shapes=SHAPES.format(names=names))
    run(
        'from basicsr_ext.compat import torchvision_operators as t\n'
        f'try: t.apply()\nexcept RuntimeError as error: assert {message!r} in str(error), error\n'
        'else: raise AssertionError',
        package,
    )


def test_cuda_calls_are_ignored_only_inside():
    run(
        'import torch\nfrom basicsr_ext.compat import cuda_calls\nbefore = torch.Tensor.cuda, torch.nn.Module.cuda\n'
        'with cuda_calls.ignored():\n    x = torch.zeros(2)\n    assert x.cuda() is x\n'
        '    m = torch.nn.Linear(1, 1)\n    assert m.cuda(0) is m\n'
        'assert (torch.Tensor.cuda, torch.nn.Module.cuda) == before'
    )
