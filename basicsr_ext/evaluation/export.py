"""``basicsr export``: a trained network as ONNX, its weights as safetensors."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from basicsr_ext import __version__
from basicsr_ext.errors import UserError, brief, writing_failed
from basicsr_ext.evaluation.network_file import TrainedNetwork, open_network
from basicsr_ext.networks.weight_file import NETWORK_KEY
from basicsr_ext.prepare.whole_files import atomic_write

FORMATS = ('.onnx', '.safetensors')
TOLERANCE = 1e-4  # largest difference from torch, of values in [0, 1]
_SIDES = (24, 36)  # of the image that a network of any size is exported with, at least
_OTHER_SIDES = (41, 27)


def export(
    weights: str | os.PathLike,
    output: str | os.PathLike,
    *,
    options: str | os.PathLike | None = None,
    param_key: str | None = None,
    size: tuple[int, int] | None = None,
    overwrite: bool = False,
) -> str:
    """Writes a trained network for other programs.

    Args:
        weights: Network file; ours say themselves what network they belong to.
        output: File to write: ``.onnx``, a network for images (1, channels, H, W) in [0, 1] that is checked by onnxruntime;
            or ``.safetensors``, its weights, with the description of the network.
        options: Option file with ``network_g`` and ``scale``, for other files.
        param_key: Entry of the file; default: ``params_ema``, else ``params``, else the whole file.
        size: Height and width of the input; default: any. For ONNX.
        overwrite: Whether a file that is there is replaced.

    Returns:
        What was written, as a sentence.

    Raises:
        UserError: The weights or arguments are not as they must be, a library is missing, or the network cannot be exported;
            nothing is written.
    """
    output = Path(output)
    if output.suffix not in FORMATS:
        raise UserError(f'{output}: expected a name that ends in {" or ".join(FORMATS)}.')
    if not output.parent.is_dir():
        raise UserError(f'{output}: expected a folder that exists, found none at {output.parent}.')
    if output.is_dir() or (output.exists() and not overwrite):
        raise UserError(f'{output} exists already. Choose another name, or say --overwrite.')
    if output.exists() and Path(weights).exists() and output.samefile(weights):
        raise UserError(f'{output} is the file of weights itself. Choose another name.')
    if output.suffix == '.onnx':
        _check_libraries()
    elif size is not None:
        raise UserError('--size: weights alone have none; leave it out for .safetensors.')
    trained = open_network(weights, torch.device('cpu'), options=options, param_key=param_key)
    if output.suffix == '.onnx':
        content, said = _as_onnx(trained, size)
    else:
        content, said = _as_safetensors(trained)
    try:
        atomic_write(output, content)
    except OSError as error:
        raise writing_failed(output, error) from None
    return f'{output}: {said}'


def _as_safetensors(trained: TrainedNetwork) -> tuple[bytes, str]:
    import safetensors.torch

    state = {name: tensor.clone().contiguous() for name, tensor in trained.network.state_dict().items()}
    record = {'label': 'net_g', 'network': trained.option, 'scale': trained.scale, 'version': __version__}
    metadata = {'format': 'pt'} | ({} if trained.option is None else {NETWORK_KEY: json.dumps(record)})
    return safetensors.torch.save(state, metadata), f'{len(state)} tensors'


# ---- ONNX ---------------------------------------------------------------------------------------------------------------


class _WholeWindows(nn.Module):
    """Pads images to whole windows, and crops what a network makes of them."""

    def __init__(self, network: nn.Module, window: int, scale: int):
        super().__init__()
        self.network, self.window, self.scale = network, window, scale

    def forward(self, image: Tensor) -> Tensor:
        if self.window == 1:
            return self.network(image)
        height, width = image.shape[-2:]
        padded = functional.pad(image, (0, -width % self.window, 0, -height % self.window), 'reflect')
        return self.network(padded)[..., : height * self.scale, : width * self.scale]


def _as_onnx(trained: TrainedNetwork, size: tuple[int, int] | None) -> tuple[bytes, str]:
    window, channels = trained.needs.window, 1 if trained.needs.luminance else 3
    network = _WholeWindows(trained.network, window, trained.scale).eval()
    _keep_computed_kernels(network)
    sides = (
        [tuple(max(side, window + 1) for side in some) for some in (_SIDES, _OTHER_SIDES)] if size is None else [size]
    )
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(1, channels, *of_image, generator=generator) for of_image in sides]
    expected = [_run_torch(network, image) for image in images]
    option = trained.option or {}
    name = option.get('architecture') or option.get('type') or type(trained.network).__name__
    way_out = (
        f'{name} cannot be exported for any height and width ({{}}). Give those of your images: --size HxW.'
        if size is None
        else f'{name} cannot be exported for {size[0]}x{size[1]} pixels ({{}}).'
    )
    try:
        content = _export(network, images[0], size is None)
    except Exception as error:  # whatever the exporter makes of a network
        raise UserError(way_out.format(_reason(error))) from None
    differences = []
    for image, output in zip(images, expected, strict=True):
        try:
            found = _run_onnx(content, image.numpy())
        except Exception as error:  # onnxruntime's own, which have no common class
            raise UserError(way_out.format(f'onnxruntime: {_reason(error)}')) from None
        if found.shape != output.shape:
            raise UserError(way_out.format(f'it makes {_sides(found.shape)}, torch {_sides(output.shape)}'))
        differences.append(float(np.abs(found - output).max()))
    if not max(differences) <= TOLERANCE:
        raise UserError(
            way_out.format(f'it differs from torch by {max(differences):.2g}, at most {TOLERANCE:g} are allowed')
        )
    shown = ' and '.join(_sides(image.shape) for image in images)
    of_size = 'images of any size' if size is None else f'images of {size[0]}x{size[1]} pixels'
    return content, (
        f'{name} x{trained.scale} for {of_size}; largest difference from torch {max(differences):.1e}, on {shown}'
    )


@torch.no_grad()
def _keep_computed_kernels(network: nn.Module) -> None:
    """Computes once what SPAN's convolutions assign to themselves in every forward: traced, it ends the process."""
    for module in network.modules():
        if callable(update := getattr(module, 'update_params', None)):
            update()
            module.update_params = _nothing  # type: ignore[assignment]


def _nothing() -> None:
    pass


@torch.no_grad()
def _run_torch(network: nn.Module, image: Tensor) -> np.ndarray:
    try:
        return network(image).numpy()
    except Exception as error:  # whatever a network makes of an image that it was not made for
        raise UserError(f'The network fails on an image of {_sides(image.shape)} ({_reason(error)}).') from None


def _export(network: nn.Module, image: Tensor, any_size: bool) -> bytes:
    dynamic = torch.export.Dim.DYNAMIC
    shapes = ({2: dynamic, 3: dynamic},) if any_size else None
    with _quiet(), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=['image'],
            output_names=['enlarged'],
            verbose=False,
        )
        file = Path(folder, 'network.onnx')
        program.save(file, external_data=False)
        return file.read_bytes()


def _run_onnx(content: bytes, image: np.ndarray) -> np.ndarray:
    runtime: Any = importlib.import_module('onnxruntime')
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, too
    session = runtime.InferenceSession(content, options, providers=['CPUExecutionProvider'])
    return session.run(None, {'image': image})[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Swallows what the exporter prints and warns of."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter('ignore')
        yield


def _check_libraries() -> None:
    if not hasattr(torch.export.Dim, 'DYNAMIC'):
        raise UserError(f'Export to ONNX needs PyTorch 2.6 or newer, found {torch.__version__}.')
    for library in ('onnx', 'onnxscript', 'onnxruntime'):
        try:
            importlib.import_module(library)
        except ImportError as error:
            raise UserError(f'Export to ONNX needs {library}: pip install "basicsr-ext[export]" ({error}).') from None


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:  # the exporter's own message says only how to report it
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {brief(lines[0], 160)}' if lines else type(error).__name__


def _sides(shape: Any) -> str:
    return 'x'.join(map(str, shape[-2:]))
