"""Opens files of weights: of ``torch.save`` in both of its formats, and ``.safetensors``.

Nothing in a file is run, see :mod:`basicsr_ext.networks.unpickling`. Tensors are read only when they are asked for.

A file of torch.save is an archive (zip, since torch 1.6)::

    <name>/data.pkl      pickle of all that was saved; tensors name their storage and how it is seen
    <name>/data/<key>    numbers of a storage, not compressed
    <name>/byteorder     "little" (since torch 2.1)

or, before that and with ``_use_new_zipfile_serialization=False``, a row of pickles and numbers::

    magic number | protocol version | properties of the machine | all that was saved | keys of storages
    for each key: count (8 bytes), numbers

In both, a storage is a stretch of bytes of the file.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from basicsr_ext.errors import UserError, brief
from basicsr_ext.networks.unpickling import Described, Named, Refused, Unpickler

# In our network files, besides the weights: label, option and scale of the network.
NETWORK_KEY = 'basicsr_ext'

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001
_HEAD = 512  # bytes that tell what a file is

_STORAGES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
    'UntypedStorage': torch.uint8,
}
# What tensors may be of: numbers that torch turns into others. What packs several into a byte, or is quantized, it may not
# even print.
_NUMBERS = {
    *_STORAGES.values(),
    *(torch.uint16, torch.uint32, torch.uint64, torch.complex32),
    *(torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz),
}
_OTHER_TENSORS = {  # what makes tensors that are no plain arrays of numbers
    'torch._utils._rebuild_sparse_tensor': 'a sparse tensor',
    'torch._utils._rebuild_sparse_csr_tensor': 'a sparse tensor',
    'torch._utils._rebuild_nested_tensor': 'a nested tensor',
    'torch._utils._rebuild_qtensor': 'a quantized tensor',
    'torch._utils._rebuild_meta_tensor_no_storage': 'a tensor without numbers (device "meta")',
    'torch._utils._rebuild_device_tensor_from_numpy': 'a tensor of another device',
    'torch._utils._rebuild_device_tensor_from_cpu_tensor': 'a tensor of another device',
    'torch._utils._rebuild_wrapper_subclass': 'a tensor of a subclass',
}
_MODULE_DEPTH = 100
_MOST_MODULES = 100_000
_MOST_DIMENSIONS = 64  # torch's limit
_LARGEST = 2**62

_BEGINNINGS = {  # of other files
    b'version https://git-lfs': 'a pointer of Git LFS, instead of the file itself (git lfs pull fetches it)',
    b'\x89PNG': 'an image',
    b'\xff\xd8\xff': 'an image',
    b'GIF8': 'an image',
    b'II*\0': 'an image',
    b'MM\0*': 'an image',
    b'RIFF': 'an image or sound',
    b'\x1f\x8b': 'a packed file (gzip): unpack it',
    b'BZh': 'a packed file (bzip2): unpack it',
    b'\xfd7zXZ': 'a packed file (xz): unpack it',
    b'7z\xbc\xaf': 'a packed file (7z): unpack it',
    b'Rar!': 'a packed file (rar): unpack it',
    b'\x89HDF': 'an HDF5 file, as Keras writes',
    b'\x93NUMPY': 'an array of NumPy',
    b'MATLAB 5.0': 'a file of MATLAB',
    b'GGUF': 'a GGUF file',
}


class _Storage(NamedTuple):
    """Numbers that a pickle refers to; ``None`` as type: of a kind that no tensor here has."""

    key: str
    dtype: torch.dtype | None
    offset: int  # of the view of a storage, in elements


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor whose numbers were not read yet; see :meth:`WeightFile.reading`."""

    storage: _Storage
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Stretch(NamedTuple):
    """Where a file has the numbers of a storage."""

    begin: int
    length: int
    crc: int | None


class WeightFile:
    """What a file of weights holds.

    Attributes:
        path: The file.
        content: Plain values; tensors are tensors, or :class:`StoredTensor`; objects are
            :class:`~basicsr_ext.networks.unpickling.Described`.
    """

    def __init__(self, path: Path, content: Any, stretches: Mapping[str, _Stretch]):
        self.path = path
        self.content = content
        self._stretches = stretches

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """Gives a function that reads a tensor; tensors that share their numbers in the file share them then, too."""
        storages: dict[str, bytearray] = {}
        with self.path.open('rb') as file:

            def read(tensor: Tensor | StoredTensor) -> Tensor:
                if isinstance(tensor, Tensor):
                    return tensor
                key = tensor.storage.key
                if key not in storages:
                    storages[key] = self._read_storage(file, key)
                return self._see(tensor, storages[key])

            yield read

    def _read_storage(self, file: IO[bytes], key: str) -> bytearray:
        stretch = self._stretches.get(key)
        if stretch is None:
            raise self._damaged(f'the numbers "{brief(key)}" are missing')
        numbers = bytearray(stretch.length)
        file.seek(stretch.begin)
        if file.readinto(numbers) < stretch.length or stretch.crc not in (None, zlib.crc32(numbers)):  # type: ignore[attr-defined]
            raise self._damaged(f'the checksum of the numbers "{brief(key)}" is wrong')
        return numbers

    def _see(self, tensor: StoredTensor, numbers: bytearray) -> Tensor:
        size = tensor.dtype.itemsize
        available = len(numbers) // size
        offset = tensor.offset + tensor.storage.offset
        if math.prod(tensor.shape) == 0:
            return torch.empty(tensor.shape, dtype=tensor.dtype)
        last = offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride, strict=True))
        if last >= available or math.prod(tensor.shape) > available:
            raise self._damaged(f'a tensor of {brief(_sides(tensor.shape))} is seen in {available} numbers')
        flat = torch.frombuffer(numbers, dtype=tensor.dtype, count=available)
        return flat.as_strided(tensor.shape, tensor.stride, offset)

    def _damaged(self, reason: str) -> UserError:
        return UserError(f'Weights {self.path}: the file is damaged ({reason}). Fetch or save it again.')


def open_weight_file(path: str | os.PathLike) -> WeightFile:
    """Opens a file of weights; what it is is told by its content, not by its name.

    Args:
        path: A file that ``torch.save`` wrote, or of safetensors.

    Raises:
        UserError: It is missing or damaged, is another kind of file, or asks for something that no file of weights needs.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise UserError(f'Weights {path}: expected a file, such as net_g_latest.pth, found a folder.')
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise UserError(f'Weights {path}: expected a file, found a pipe or device.')
        with path.open('rb') as file:
            head, size = file.read(_HEAD), path.stat().st_size
            file.seek(0)
            return _open(path, file, head, size)
    except FileNotFoundError:
        raise UserError(f'Weights: expected a file at {path}, found none.') from None
    except OSError as error:
        raise UserError(f'Weights {path}: the file cannot be read ({error.strerror or error}).') from None
    except Refused as error:
        raise UserError(
            f'Weights {path}: refused, since {error}, which tensors do not need: it may be made to run something on your '
            'machine. If you trust where it comes from, load it there and save its state_dict() alone.'
        ) from None


def _open(path: Path, file: IO[bytes], head: bytes, size: int) -> WeightFile:
    if head.startswith((b'PK\3\4', b'PK\5\6')):
        return _open_archive(path, file, size)
    if head[:1] == b'\x80':
        return _open_pickles(path, file)
    if 2 <= int.from_bytes(head[:8], 'little') <= size - 8 and head[8:9] == b'{':
        try:
            return WeightFile(path, _safetensors_content(path), {})
        except safetensors.SafetensorError as error:
            raise UserError(f'Weights {path}: the file of safetensors is damaged ({brief(error)}).') from None
    raise _another_kind(path, _kind_of(head, path))


def _safetensors_content(path: Path) -> dict[str, Any]:
    """Tensors by name; beside them, where ``basicsr export`` has written the file, what it says of its network."""
    tensors = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, 'pt') as file:
        described = (file.metadata() or {}).get(NETWORK_KEY)
    try:
        record = None if described is None else json.loads(described)
    except (ValueError, RecursionError):
        record = None
    return tensors if not isinstance(record, dict) else {'params': tensors, NETWORK_KEY: record}


# ---- archives -----------------------------------------------------------------------------------------------------------


def _open_archive(path: Path, file: IO[bytes], size: int) -> WeightFile:
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.rpartition('/')[2] == 'data.pkl']
            if len(pickles) != 1:
                raise _another_kind(path, f'a zip archive with {_named_files(list(entries))}: unpack it')
            folder = pickles[0].removesuffix('data.pkl')
            if f'{folder}constants.pkl' in entries:
                raise _another_kind(path, 'a program of TorchScript, whose weights are not read')
            packed = [entry for entry in entries.values() if entry.compress_type != zipfile.ZIP_STORED]
            if packed or sum(entry.file_size for entry in entries.values()) > size:
                claimed = sum(entry.file_size for entry in entries.values())
                raise UserError(
                    f'Weights {path}: expected tensors as torch.save writes them, not compressed, found an archive of '
                    f'{size:,} bytes that unpacks to {claimed:,}. If you trust it, load it and save it again with torch.'
                )
            if f'{folder}byteorder' in entries and archive.read(f'{folder}byteorder').strip() != b'little':
                raise _another_kind(path, 'numbers of a big-endian machine')
            stretches = {
                name.removeprefix(f'{folder}data/'): _stretch(file, entry)
                for name, entry in entries.items()
                if name.startswith(f'{folder}data/')
            }
            content = _unpickler().load(io.BytesIO(archive.read(pickles[0])))
    except RuntimeError as error:  # of an entry that is encrypted, or needs what zipfile does not know
        raise _another_kind(path, f'a zip archive that torch does not write ({brief(error)}): unpack it') from None
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        reason = brief(error) or type(error).__name__
        raise UserError(
            f'Weights {path}: the file is damaged, or was cut off on its way ({reason}). Fetch or save it again.'
        ) from None
    return WeightFile(path, content, stretches)


def _stretch(file: IO[bytes], entry: zipfile.ZipInfo) -> _Stretch:
    """Finds an entry's bytes: behind its header, name, and padding."""
    file.seek(entry.header_offset + 26)
    lengths = file.read(4)
    begin = entry.header_offset + 30 + int.from_bytes(lengths[:2], 'little') + int.from_bytes(lengths[2:], 'little')
    return _Stretch(begin, entry.file_size, entry.CRC)


# ---- rows of pickles ----------------------------------------------------------------------------------------------------


def _open_pickles(path: Path, file: IO[bytes]) -> WeightFile:
    content = io.BytesIO(file.read())  # its reads end where the file ends, whatever lengths it names
    unpickler = _unpickler()
    try:
        if unpickler.load(content) != _MAGIC_NUMBER:
            raise _another_kind(path, 'a pickle that torch.save did not write')
    except ValueError:
        raise _another_kind(path, 'unknown bytes') from None
    try:
        if unpickler.load(content) != _LEGACY_VERSION:
            raise ValueError('its version is unknown')
        if not unpickler.load(content)['little_endian']:
            raise _another_kind(path, 'numbers of a big-endian machine')
        sizes: dict[str, int] = {}
        unpickler = _unpickler(sizes)
        saved = unpickler.load(content)
        stretches = {}
        for key in unpickler.load(content):
            count = int.from_bytes(content.read(8), 'little')
            length = count * sizes[key]
            if length > len(content.getbuffer()) - content.tell():
                raise ValueError('numbers are missing at its end')
            stretches[key] = _Stretch(content.tell(), length, None)
            content.seek(length, io.SEEK_CUR)
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(
            f'Weights {path}: the file is damaged, or was cut off on its way ({brief(error)}). Fetch or save it again.'
        ) from None
    return WeightFile(path, saved, stretches)


# ---- tensors ------------------------------------------------------------------------------------------------------------


def _unpickler(sizes: dict[str, int] | None = None) -> Unpickler:
    """Makes an unpickler that knows torch's tensors.

    Args:
        sizes: Takes the bytes of an element by the storage's key.
    """

    def persistent(identity: Any) -> Any:
        if not isinstance(identity, tuple) or not identity:
            raise Refused('it refers to something outside')
        if identity[0] == 'module':  # a class with its source, which nobody needs
            return identity[1]
        if identity[0] != 'storage' or len(identity) < 5 or not isinstance(identity[1], Named):
            raise Refused('it refers to something outside')
        _, kind, key, _, _, *view = identity
        offset = view[0][1] if view and view[0] is not None else 0
        if not isinstance(key, (str, int)) or not isinstance(offset, int) or not 0 <= offset < _LARGEST:
            raise ValueError('a storage is not described as torch does')
        dtype = _STORAGES.get(kind.name) if kind.module in ('torch', 'torch.cuda', 'torch.storage') else None
        if sizes is not None:
            sizes[str(key)] = dtype.itemsize if dtype is not None else 1
        return _Storage(str(key), dtype, offset)

    def rebuilt(function: Any, kind: Any, arguments: tuple, state: Any) -> Any:
        return unpickler.construct(function, arguments)

    unpickler = Unpickler(
        {
            'torch._utils._rebuild_tensor': _tensor,
            'torch._utils._rebuild_tensor_v2': _tensor_v2,
            'torch._utils._rebuild_tensor_v3': _tensor_v3,
            'torch._utils._rebuild_parameter': _parameter,
            'torch._utils._rebuild_parameter_with_state': _parameter,
            'torch.nn.parameter.Parameter': _parameter,
            'torch.nn.parameter.Buffer': _parameter,
            'torch._tensor._rebuild_from_type_v2': rebuilt,
        },
        persistent,
    )
    return unpickler


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> Any:
    if (
        not isinstance(storage, _Storage)
        or not len(shape) == len(stride) <= _MOST_DIMENSIONS
        or not all(isinstance(number, int) and 0 <= number < _LARGEST for number in (offset, *shape, *stride))
        or math.prod(side or 1 for side in shape) >= _LARGEST  # torch computes that of empty tensors, too
    ):
        raise ValueError('a tensor is not described as torch does')
    dtype = dtype or storage.dtype
    if dtype is None:
        return Described(Named('torch._utils', '_rebuild_qtensor'))
    return StoredTensor(storage, dtype, offset, tuple(shape), tuple(stride))


def _tensor_v2(
    storage: Any, offset: Any, shape: Any, stride: Any, requires_grad: Any = None, hooks: Any = None, more: Any = None
) -> Any:
    if more:  # conjugate or negative views
        return Described(Named('torch._utils', '_rebuild_wrapper_subclass'))
    return _tensor(storage, offset, shape, stride)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    more: Any = None,
) -> Any:
    known = vars(torch).get(dtype.name) if isinstance(dtype, Named) and dtype.module == 'torch' else None
    if isinstance(known, torch.dtype) and known not in _NUMBERS:
        return Described(Named('torch._utils', '_rebuild_qtensor'))
    if more or not isinstance(known, torch.dtype):
        return Described(Named('torch._utils', '_rebuild_wrapper_subclass'))
    return _tensor(storage, offset, shape, stride, known)


def _parameter(data: Any = None, *more: Any) -> Any:
    return data


def is_tensor(value: Any) -> bool:
    """Whether a value is a tensor of numbers, read or not."""
    return isinstance(value, (Tensor, StoredTensor))


def other_tensor(value: Any) -> str | None:
    """Says what a value is that is a tensor of another kind: sparse, quantized, without numbers."""
    if is_tensor(value) and value.dtype not in _NUMBERS:
        return _OTHER_TENSORS['torch._utils._rebuild_qtensor']
    return _OTHER_TENSORS.get(str(value.kind)) if isinstance(value, Described) else None


def describe(value: Any) -> str:
    """Says what a value is, in a few words."""
    if is_tensor(value):
        return f'a tensor of {brief(_sides(tuple(value.shape)))}'
    if isinstance(value, Described):
        kind = str(value.kind)
        return _OTHER_TENSORS.get(kind) or ('a scalar of NumPy' if kind.endswith('multiarray.scalar') else f'a {kind}')
    return type(value).__name__


def tensors_of_module(value: Any) -> dict[str, Any] | None:
    """Returns the parameters and buffers of a module that was saved as a whole, by name; ``None`` where it is none.

    Raises:
        ValueError: Modules are nested without end, or hold what is no module.
    """
    if not _is_module(value):
        return None
    tensors: dict[str, Any] = {}
    pending, seen = [('', value, 0)], 0
    while pending:
        prefix, module, depth = pending.pop()
        seen += 1
        if depth > _MODULE_DEPTH or seen + len(pending) > _MOST_MODULES:
            raise ValueError('it holds more modules than any network has')
        state = module.state
        passing = state.get('_non_persistent_buffers_set')
        passing = passing if isinstance(passing, set) else set()
        for group in ('_parameters', '_buffers'):
            entries = state.get(group)
            for name, tensor in entries.items() if isinstance(entries, dict) else ():
                if tensor is not None and name not in passing:
                    tensors[f'{prefix}{name}'] = tensor
        children = [
            (f'{prefix}{name}.', child, depth + 1) for name, child in state['_modules'].items() if child is not None
        ]
        if not all(_is_module(child) for _, child, _ in children):
            raise ValueError('a module holds what is none')
        pending.extend(reversed(children))
    return tensors


def _is_module(value: Any) -> bool:
    return (
        isinstance(value, Described)
        and isinstance(value.state, dict)
        and isinstance(value.state.get('_modules'), dict)
        and '_parameters' in value.state
    )


def _sides(shape: tuple[int, ...]) -> str:
    return 'x'.join(map(str, shape)) or '1 number'


# ---- what else a file may be --------------------------------------------------------------------------------------------


def _another_kind(path: Path, kind: str) -> UserError:
    return UserError(f'Weights {path}: expected a file that torch.save wrote, or one of safetensors, found {kind}.')


def _kind_of(head: bytes, path: Path) -> str:
    if not head:
        return 'an empty file'
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head[257:262] == b'ustar':
        return 'a tar archive: unpack it'
    if not any(head):
        return 'a file of zeros: it was not copied whole'
    if head.lstrip().lower().startswith((b'<!doctype html', b'<html')):
        return 'a web page, which the download gave instead of the file'
    if path.suffix == '.onnx':
        return 'an ONNX file'
    try:
        text = head.decode('utf-8')
    except UnicodeDecodeError as error:
        text = head[: error.start].decode('utf-8') if error.start > _HEAD - 4 else '\0'
    if all(character.isprintable() or character.isspace() for character in text):
        return f'a text file ("{brief(text.split(chr(10))[0], 40)}")'
    return 'unknown bytes'


def _named_files(names: list[str]) -> str:
    return ', '.join(brief(name, 40) for name in names[:3]) if names else 'nothing in it'
