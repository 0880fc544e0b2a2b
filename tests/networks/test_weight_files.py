"""Files of weights that other people have: whole modules, wrappers, other names; damaged, hostile, of other kinds."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import pickle
import random
import struct
import sys
import zipfile
from collections import OrderedDict, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from basicsr_ext.errors import UserError
from basicsr_ext.networks import unpickling
from basicsr_ext.networks.weight_file import open_weight_file
from basicsr_ext.networks.weights import digest_tensors, fit_weights, load_weights, match_weights, read_weights

ARRAYS = np.zeros(1).__reduce__()[0].__module__  # numpy._core.multiarray; before NumPy 2 numpy.core.multiarray
FORMATS = pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])


def save(path: Path, content, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def equal(found, expected) -> bool:
    return found.keys() == expected.keys() and all(
        torch.equal(found[key], value) and found[key].dtype == value.dtype for key, value in expected.items()
    )


def refusal(path: Path, **how) -> str:
    with pytest.raises(UserError) as caught:
        read_weights(path, **how)
    message = str(caught.value)
    assert message.startswith('Weights') and len(message) < 600 and message.isprintable()
    return message


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    return {
        'conv.weight': torch.rand(3, 2, 3, 3, generator=generator),
        'conv.bias': torch.rand(3, generator=generator),
        'index': torch.arange(4),
    }


# ---- whole modules ---------------------------------------------------------------------------------------------------

SOURCE = """
from torch import nn
import torch

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, bias=False)
        self.activation = nn.functional.relu

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(1, 2, 3)
        self.body = nn.Sequential(Block(), nn.BatchNorm2d(2), nn.ReLU())
        self.register_buffer('passing', torch.zeros(2), persistent=False)
        self.register_parameter('nothing', None)

    def __setstate__(self, state):
        raise AssertionError('it was run')
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a class that is gone when the test begins to read, and what saves it."""
    folder = tmp_path / 'code'
    folder.mkdir()
    (folder / 'gone_network.py').write_text(SOURCE)
    monkeypatch.syspath_prepend(str(folder))
    network = importlib.import_module('gone_network').Net()

    def save_and_forget(content, zipped):
        path = save(tmp_path / 'whole.pth', content(network), zipped)
        del sys.modules['gone_network']
        (folder / 'gone_network.py').unlink()
        importlib.invalidate_caches()
        return path

    return network, save_and_forget


@FORMATS
@pytest.mark.parametrize(
    'content',
    [
        lambda network: network,
        lambda network: nn.DataParallel(network),
        lambda network: {'epoch': 51, 'model': nn.DataParallel(network)},
        lambda network: {'model': torch.optim.swa_utils.AveragedModel(nn.Identity()), 'ema': network},
    ],
    ids=['bare', 'parallel', 'published', 'ema'],
)
def test_whole_modules_are_read_without_their_classes(module, content, zipped):
    network, save_and_forget = module
    expected = {key: value.clone() for key, value in network.state_dict().items()}
    path = save_and_forget(content, zipped)
    assert equal(read_weights(path), expected)
    assert 'gone_network' not in sys.modules


@FORMATS
def test_modules_within_themselves_are_refused(tmp_path, zipped):
    network = nn.Sequential(nn.Conv2d(1, 1, 1))
    network._modules['1'] = network
    assert 'more modules than any network has' in refusal(save(tmp_path / 'x.pth', network, zipped))


def test_published_weights_of_another_project_run(tmp_path, module):
    """A pickled module in a mapping starts a network: names are given by the class's rules, and that is said."""
    from basicsr_ext.archs.vdsr_arch import VDSR

    source, network = VDSR(num_feat=4, num_conv=3), VDSR(num_feat=4, num_conv=3)
    published = nn.Module()
    published.input, published.output = source.conv_first, source.conv_last
    block = nn.Module()
    block.conv = source.body[0]
    published.residual_layer = nn.Sequential(block)
    path = save(tmp_path / 'vdsr.pth', {'epoch': 3, 'model': nn.DataParallel(published)}, zipped=False)
    match = load_weights(network, path)
    assert match.share == '3 of 3 tensors matched (100%)'
    assert match.remarks == ['taken from the entry model', '3 renamed, such as input.weight to conv_first.weight']
    assert equal(network.state_dict(), source.state_dict())


# ---- where the tensors are ---------------------------------------------------------------------------------------------


def prefixed(prefix, tensors):
    return {prefix + key: value for key, value in tensors.items()}


@FORMATS
@pytest.mark.parametrize(
    ('content', 'remark'),
    [
        (lambda t: prefixed('module.', t), None),
        (lambda t: {'params': prefixed('_orig_mod.', t)}, None),
        (lambda t: {'params_ema': prefixed('module._orig_mod.', t)}, None),
        (lambda t: {'params': prefixed('_orig_mod.module.', t)}, None),
        (lambda t: {**prefixed('module.module.', t), 'n_averaged': torch.tensor(3)}, None),
        (lambda t: {'params': {key.replace('conv.', 'conv._orig_mod.'): value for key, value in t.items()}}, None),
        (lambda t: {'state_dict': prefixed('generator.', t), 'meta': {'x': 1}},
         'taken from the entry state_dict; generator. removed from the names'),
        (lambda t: {'state_dict': prefixed('netG.', t)}, 'taken from the entry state_dict; netG. removed from the names'),
        (lambda t: {'state_dict': {**prefixed('generator.', t), 'discriminator.a': t['index'], 'step_counter': t['index']}},
         'taken from the entry state_dict; generator. removed from the names; 2 tensors of other networks passed over'),
        (lambda t: {'model': t, 'optimizer': {'state': {0: torch.ones(2)}}}, 'taken from the entry model'),
        (lambda t: {'model': {}, 'ema': t}, 'taken from the entry ema'),
        (lambda t: {'state_dict': {}, 'state_dict_ema': t}, 'taken from the entry state_dict_ema'),
        (lambda t: OrderedDict(t), None),
        (lambda t: defaultdict(int, t), None),
        (lambda t: {key: nn.Parameter(value) if value.is_floating_point() else value for key, value in t.items()}, None),
        (lambda t: {'model': t, 'psnr': np.float64(31.2)}, 'taken from the entry model; passed over psnr (a scalar of NumPy)'),
        (lambda t: {'params': t, 'args': argparse.Namespace(a=1), 'at': Path('x')},
         'passed over args (a argparse.Namespace), at (a pathlib.PosixPath)'),
        (lambda t: {**t, 'epoch': 3, 'scores': np.zeros(2)},
         f'passed over scores (a {ARRAYS}._reconstruct), epoch (int)'),
    ],
    ids=range(18),
)  # fmt: skip
def test_tensors_are_found(tmp_path, tensors, content, remark, zipped):
    weights = read_weights(save(tmp_path / 'x.pth', content(tensors), zipped))
    assert equal(weights, tensors)
    assert '; '.join(weights.remarks) == (remark or '')


def test_a_part_is_taken_by_its_name(tmp_path, tensors):
    average = {key: value * 2 for key, value in tensors.items()}
    state = {**prefixed('generator.', tensors), **prefixed('generator_ema.', average)}
    path = save(tmp_path / 'x.pth', {'state_dict': state})
    assert equal(read_weights(path), tensors)
    for exact in (True, False):
        weights = read_weights(path, 'generator_ema', exact)
        assert equal(weights, average) and 'names that begin with generator_ema.' in weights.remarks[-1]
    assert 'expected the key "ema", found state_dict (dict)' in refusal(path, param_key='ema')


def test_the_average_that_is_taken_instead_is_named(tmp_path, tensors):
    path = save(tmp_path / 'x.pth', {'params_ema': tensors})
    assert read_weights(path, 'params', exact_key=False).remarks == ['taken from the entry params_ema']


def test_tensors_with_and_without_wrappers_are_not_mixed(tmp_path, tensors):
    path = save(tmp_path / 'x.pth', {**tensors, **prefixed('module.', tensors)})
    assert 'found two, with and without wrappers' in refusal(path)


@FORMATS
@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.bool, torch.uint16,
                                   torch.float8_e4m3fn, torch.complex64])  # fmt: skip
def test_all_types_of_numbers(tmp_path, dtype, zipped):
    tensor = torch.arange(6).reshape(2, 3).to(dtype)
    try:
        path = save(tmp_path / 'x.pth', {'a': tensor, 'part': tensor[:, 1:], 'none': tensor[:0]}, zipped)
    except KeyError:
        pytest.skip(f'this version of torch saves no {dtype}')
    found = read_weights(path)
    for key, expected in (('a', tensor), ('part', tensor[:, 1:]), ('none', tensor[:0])):
        assert found[key].dtype == dtype and found[key].shape == expected.shape
        assert torch.equal(found[key].to(torch.complex64), expected.to(torch.complex64))


@FORMATS
def test_shared_and_permuted_tensors(tmp_path, zipped):
    tensor = torch.arange(24.0).reshape(2, 3, 4)
    content = {'a': tensor, 'same': tensor, 'permuted': tensor.permute(2, 0, 1), 'expanded': torch.ones(1)}
    found = read_weights(save(tmp_path / 'x.pth', content, zipped))
    assert equal(found, content)
    assert found['a'].data_ptr() == found['same'].data_ptr()


@pytest.mark.parametrize('name', ['x.safetensors', 'x.pth'])
def test_safetensors_are_told_by_their_content(tmp_path, tensors, name):
    import safetensors.torch

    safetensors.torch.save_file(tensors, tmp_path / name)
    assert equal(read_weights(tmp_path / name), tensors)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-8])
    assert 'safetensors is damaged' in refusal(tmp_path / name)


# ---- hostile and damaged files -----------------------------------------------------------------------------------------


class Calls:
    """Is unpickled by a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class CallsAsState(nn.Module):
    def __reduce__(self):
        return Calls, (os.getpid,), {'_parameters': {}, '_modules': {}}


HOSTILE = {
    'system': lambda marker: Calls(os.system, f'touch {marker}'),
    'eval': lambda marker: Calls(eval, f'open({str(marker)!r}, "w")'),
    'reference': lambda marker: os.system,
    'getattr': lambda marker: Calls(getattr, Calls(importlib.import_module, 'os'), 'system'),
    'load': lambda marker: Calls(torch.load, str(marker)),
    'hub': lambda marker: Calls(torch.hub.load, 'a/b', 'c'),
    'bytes': lambda marker: Calls(torch.storage._load_from_bytes, b'x'),
    'runstring': lambda marker: Calls(np.lib.format.read_array, None),
    'module': lambda marker: CallsAsState(),
    'unknown': lambda marker: Calls(Calls, 1),
}


@FORMATS
@pytest.mark.parametrize('kind', HOSTILE)
@pytest.mark.parametrize('place', ['beside', 'within'])
def test_hostile_files_are_refused(tmp_path, tensors, kind, place, zipped):
    marker = tmp_path / 'was_run'
    hostile = HOSTILE[kind](marker)
    content = {'params': tensors, 'x': hostile} if place == 'beside' else {'params': {**tensors, 'x': hostile}}
    message = refusal(save(tmp_path / 'x.pth', content, zipped))
    assert 'it names' in message or 'it calls' in message
    assert not marker.exists()


def archive_of(path: Path, pickled: bytes, compression=zipfile.ZIP_STORED, **records: bytes) -> Path:
    with zipfile.ZipFile(path, 'w', compression) as archive:
        archive.writestr('archive/data.pkl', pickled)
        for name, content in records.items():
            archive.writestr(f'archive/data/{name}', content)
    return path


STORAGE = b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ'
TENSOR = b'\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor\n(' + STORAGE


@pytest.mark.parametrize(
    ('pickled', 'reason'),
    [
        (b'\x80\x02cos\nsystem\n(S"x"\ntR.', 'it names os.system'),
        (b'\x80\x02(S"x"\nios\nsystem\n.', 'it names os.system'),
        (b'\x80\x02(cos\nsystem\nS"x"\no.', 'it names os.system'),
        (b'\x80\x04\x8c\x05torch\x8c\x10serialization.os\x93.', 'it names torch.serialization.os'),
        (b'\x80\x02c__builtin__\neval\n.', 'it names builtins.eval'),
        (b'\x80\x02ccommands\ngetoutput\n.', 'it names commands.getoutput'),
        (b'\x80\x02\x82\x01.', 'it has the operation EXT1'),
        (b'\x80\x02(' + b'(' * 100_000 + b't' * 100_000 + b'.', 'expected tensors by name, found tuple'),
        (b'\x80\x02}' + b'(' * 100_000 + b't' * 100_000 + b'K\x01s.', 'a key is nested'),
        (b'\x80\x02}]K\x01s.', 'unhashable'),
        (b'\x80\x02' + b']' * 300_000 + b'.', 'more than 250,000 operations'),
        (b'\x80\x02' + b'N0' * 10, 'exhausted before'),
        (b'\x80\x02.', 'damaged'),
        (b'\x80\x02h\x05.', 'damaged'),
        (b'\x80\x02X\xff\xff\xff\x7fabc.', 'damaged'),
        (b'\x80\x02\x8b\xff\xff\xff\x7fabc.', 'damaged'),
        (b'\x80\x02I' + b'9' * 100_000 + b'\n.', 'damaged'),
        (b'\x80\x02K\x01K\x02K\x03\x87Q.', 'refers to something outside'),
        (TENSOR + b'K\x00(I1000000\nI1000000\nt(K\x00K\x00ttRs.', 'is seen in 4 numbers'),
        (TENSOR + b'K\x03(K\x02t(K\x01ttRs.', 'is seen in 4 numbers'),
        (TENSOR + b'J\xff\xff\xff\xff(K\x02t(K\x01ttRs.', 'not described as torch does'),
        (TENSOR + b'K\x00(K\x02t(ttRs.', 'not described as torch does'),
        (TENSOR + b'K\x00(K\x00' + b'J\xff\xff\xff\x7f' * 3 + b't(K\x01K\x01K\x01K\x01ttRs.', 'not described as torch does'),
    ],
    ids=range(23),
)  # fmt: skip
def test_pickles_that_torch_does_not_write(tmp_path, pickled, reason, monkeypatch):
    monkeypatch.setattr(unpickling, '_MOST_OPERATIONS', 250_000)
    path = archive_of(tmp_path / 'x.pth', pickled, **{'0': np.zeros(4, np.float32).tobytes()})
    assert reason in refusal(path)


def test_a_tensor_of_the_test_above_is_right_when_it_is_whole(tmp_path):
    pickled = TENSOR + b'K\x01(K\x02t(K\x01ttRs.'
    path = archive_of(tmp_path / 'x.pth', pickled, **{'0': np.arange(4, dtype=np.float32).tobytes()})
    assert read_weights(path)['a'].tolist() == [1, 2]
    archive_of(path, pickled, **{'1': b''})
    assert 'the numbers "0" are missing' in refusal(path)


def test_repeated_copies_are_counted(tmp_path, monkeypatch):
    """A list of many pairs that is made into a mapping over and over."""
    monkeypatch.setattr(unpickling, '_MOST_OPERATIONS', 250_000)
    pairs = pickle.dumps([['a', 1]] * 10_000, 2)[:-1]
    pickled = pairs + b'q\xff' + b'ccollections\nOrderedDict\nh\xff\x85R0' * 1000 + b'.'
    assert 'more than 250,000 operations' in refusal(archive_of(tmp_path / 'x.pth', pickled))


def test_archives_that_unpack_to_more_than_they_are(tmp_path, tensors):
    whole = save(tmp_path / 'whole.pth', {'params': tensors})
    path = tmp_path / 'packed.pth'
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as packed:
        for entry in source.infolist():
            packed.writestr(entry.filename, source.read(entry))
        with packed.open('whole/data/9', 'w', force_zip64=True) as file:
            for _ in range(256):
                file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    before = _peak_memory()
    assert 'found an archive of' in refusal(path) and 'unpacks to 268,' in refusal(path)
    assert _peak_memory() - before < 50 * 2**20


def _peak_memory() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_entries_that_overlap_are_refused(tmp_path, tensors):
    """One stretch of the file under many names."""
    path = archive_of(tmp_path / 'x.pth', b'\x80\x02}.', **{str(i): bytes(4000) for i in range(3)})
    content = bytearray(path.read_bytes())
    end = content.rindex(b'PK\5\6')
    place, first = struct.unpack('<I', content[end + 16 : end + 20])[0], None
    for _ in range(4):
        size = 46 + sum(struct.unpack('<HHH', content[place + 28 : place + 34]))
        if content[place + 46 : place + size].startswith(b'archive/data/'):
            first = first if first is not None else content[place + 42 : place + 46]
            content[place + 20 : place + 28] = struct.pack('<II', 400_000, 400_000)
        place += size
    path.write_bytes(content)
    assert 'unpacks to' in refusal(path)


@FORMATS
def test_damage_is_told(tmp_path, tensors, zipped):
    """Wherever a file is cut off, and whatever byte is another one: an error of one sentence, or the same tensors."""
    content = save(tmp_path / 'x.pth', {'params': tensors, 'iter': 3}, zipped).read_bytes()
    path = tmp_path / 'damaged.pth'
    for length in range(0, len(content), max(1, len(content) // 40)):
        path.write_bytes(content[:length])
        refusal(path)
    draw = random.Random(0)
    messages = []
    for _ in range(200):
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_weights(path)
        except UserError as error:
            messages.append(str(error))
        else:
            assert not zipped or all(torch.equal(found[key], tensors[key]) for key in tensors.keys() & found.keys())
    assert len(messages) > 50
    assert all(len(message) < 600 and message.isprintable() for message in messages)


def test_numbers_that_were_changed_are_told(tmp_path, tensors):
    path = save(tmp_path / 'x.pth', {'params': tensors})
    content = path.read_bytes()
    place = content.index(tensors['conv.weight'].numpy().tobytes())
    path.write_bytes(content[: place + 9] + bytes([content[place + 9] ^ 1]) + content[place + 10 :])
    assert 'the checksum of the numbers' in refusal(path)


OTHER_KINDS = {
    b'': 'an empty file',
    b'version https://git-lfs.github.com/spec/v1\noid sha256:0\n': 'a pointer of Git LFS',
    b'<!DOCTYPE html>\n<html>': 'a web page',
    b'\n<HTML><head>': 'a web page',
    b'\x89PNG\r\n\x1a\n': 'an image',
    b'\x1f\x8b\x08': 'a packed file (gzip)',
    b'\x89HDF\r\n': 'an HDF5 file',
    b'\x93NUMPY\x01': 'an array of NumPy',
    bytes(600): 'a file of zeros',
    'scale: 2\nname: größer\n'.encode(): 'a text file ("scale: 2")',
    b'\x07\x01\xff\xfe': 'unknown bytes',
    pickle.dumps({'a': 1}): 'a pickle that torch.save did not write',
}


@pytest.mark.parametrize('content', OTHER_KINDS, ids=[kind.split('(')[0] for kind in OTHER_KINDS.values()])
def test_other_files_are_named(tmp_path, content):
    (tmp_path / 'x.pth').write_bytes(content)
    assert f'found {OTHER_KINDS[content]}' in refusal(tmp_path / 'x.pth')


def test_other_archives_and_places_are_named(tmp_path):
    np.savez(tmp_path / 'x.npz', a=np.zeros(2))
    assert 'a zip archive with a.npy' in refusal(tmp_path / 'x.npz')
    script = torch.jit.script(nn.Conv2d(1, 1, 1))
    script.save(str(tmp_path / 'script.pt'))
    assert 'a program of TorchScript' in refusal(tmp_path / 'script.pt')
    os.mkfifo(tmp_path / 'pipe')
    assert 'a pipe or device' in refusal(tmp_path / 'pipe')
    assert 'found a folder' in refusal(tmp_path)
    save(tmp_path / 'state.pth', {'epoch': 3, 'best': [1.5]})
    assert 'expected tensors by name, found epoch (int), best (list)' in refusal(tmp_path / 'state.pth')


# ---- tensors of other kinds --------------------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize(
    ('change', 'kind'),
    [
        (lambda t: t.to_sparse(), 'a sparse tensor'),
        (lambda t: t.reshape(3, -1).to_sparse_csr(), 'a sparse tensor'),
        (lambda t: t.to('meta'), 'a tensor without numbers'),
        (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), 'a quantized tensor'),
    ],
    ids=['sparse', 'csr', 'meta', 'quantized'],
)
@pytest.mark.filterwarnings('ignore')
def test_tensors_that_are_no_arrays_are_refused(tmp_path, tensors, change, kind, zipped):
    path = save(tmp_path / 'x.pth', {'params': {**tensors, 'conv.weight': change(tensors['conv.weight'])}}, zipped)
    assert f'found {kind}' in refusal(path) and 'conv.weight (1 of 3)' in refusal(path)


@pytest.mark.parametrize('dtype', ['quint8', 'qint32', 'bits16', 'quint4x2', 'float4_e2m1fn_x2', 'uint4'])
def test_what_torch_does_not_compute_with_is_no_tensor_of_numbers(tmp_path, dtype):
    """Looking at such a tensor, which torch.save does not write so, can end the process."""
    if not hasattr(torch, dtype):
        pytest.skip(f'this version of torch has no {dtype}')
    pickled = TENSOR.replace(b'_rebuild_tensor\n', b'_rebuild_tensor_v3\n') + b'K\x00(K\x01t(K\x01t\x89}'
    path = archive_of(tmp_path / 'x.pth', pickled + f'ctorch\n{dtype}\ntRs.'.encode(), **{'0': bytes(16)})
    assert 'found a quantized tensor, a (1 of 1)' in refusal(path)
    digest_tensors(path)  # does not read it either


def test_an_archive_that_is_encrypted_or_of_a_later_format_is_named(tmp_path, tensors):
    whole = save(tmp_path / 'x.pth', tensors).read_bytes()
    for bit in (1, 32, 64):  # encrypted, patched, strongly encrypted
        changed = bytearray(whole)
        for header, place in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
            begin = -1
            while (begin := changed.find(header, begin + 1)) >= 0:
                changed[begin + place] |= bit
        (tmp_path / 'changed.pth').write_bytes(changed)
        assert 'found a zip archive that torch does not write (' in refusal(tmp_path / 'changed.pth')
    changed = bytearray(whole)
    begin = changed.find(b'PK\1\2')
    changed[begin + 6] = 99  # version of the format
    (tmp_path / 'changed.pth').write_bytes(changed)
    assert 'found a zip archive that torch does not write (' in refusal(tmp_path / 'changed.pth')


def test_a_number_of_thousands_of_digits_is_told(tmp_path):
    assert 'found a long int (int)' in refusal(save(tmp_path / 'x.pth', {10**5000: 1}))


@pytest.mark.parametrize(
    ('key', 'dtype', 'message'),
    [
        ('weight', torch.int8, 'weight int8 instead of float32'),
        ('weight', torch.complex64, 'weight complex64 instead of float32'),
        ('num_batches_tracked', torch.float32, 'num_batches_tracked float32 instead of int64'),
    ],
)
def test_numbers_of_another_kind_are_refused(key, dtype, message):
    network = nn.BatchNorm2d(2)
    state = network.state_dict()
    state[key] = (state[key] + 0.5).to(dtype)
    for built in (network, nn.BatchNorm2d(2, device='meta')):
        with pytest.raises(UserError, match=f'1 of another kind of numbers .{message}'):
            match_weights(built, state, 'x.pth')


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_counts_that_were_converted_with_the_weights_are_counts(dtype):
    network, state = nn.BatchNorm2d(2), {key: value.to(dtype) for key, value in nn.BatchNorm2d(2).state_dict().items()}
    fit_weights(network, state, 'x.pth')
    assert network.num_batches_tracked.dtype == torch.int64


def test_names_reach_no_terminal_raw(tmp_path):
    evil = '\x1b[2Jconv\n' + 'x' * 500
    path = save(tmp_path / 'x.pth', {evil: torch.ones(1), 'other': torch.ones(2)})
    with pytest.raises(UserError) as caught:
        load_weights(nn.Conv2d(1, 1, 1), path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    refusal(save(path, {evil: 1}))
    refusal(save(path, {'params': {evil: torch.ones(2).to_sparse()}}))
    remarks = read_weights(save(path, {'params': {'a': torch.ones(1)}, evil: np.float64(1)})).remarks
    assert '; '.join(remarks).isprintable()


# ---- names of published weights ----------------------------------------------------------------------------------------


def basicsr_network(name, **options):
    import basicsr_ext

    basicsr_ext.register()
    from basicsr.archs import build_network

    return build_network({'type': name, 'num_in_ch': 3, 'num_out_ch': 3, 'num_feat': 4, **options})


def renamed(state, rules):
    import re

    result = {}
    for key, value in state.items():
        for pattern, replacement in rules:
            key, found = re.subn(f'^{pattern}', replacement, key)
            if found:
                break
        result[key] = value
    return result


IN_SEQUENCE = [
    (r'conv_first', 'model.0'), (r'body\.(\d+)\.rdb(\d)\.conv(\d)', r'model.1.sub.\1.RDB\2.conv\3.0'),
    (r'conv_body', 'model.1.sub.2'), (r'conv_up1', 'model.3'), (r'conv_up2', 'model.6'), (r'conv_hr', 'model.8'),
    (r'conv_last', 'model.10'),
]  # fmt: skip
WITH_TRUNK = [
    (r'body\.(\d+)\.rdb(\d)', r'RRDB_trunk.\1.RDB\2'), (r'conv_body', 'trunk_conv'), (r'conv_up(\d)', r'upconv\1'),
    (r'conv_hr', 'HRconv'),
]  # fmt: skip
EDSR_NAMES = [
    (r'conv_first', 'head.0'), (r'body\.(\d+)\.conv1', r'body.\1.body.0'), (r'body\.(\d+)\.conv2', r'body.\1.body.2'),
    (r'conv_after_body', 'body.2'), (r'upsample', 'tail.0'), (r'conv_last', 'tail.1'),
]  # fmt: skip
RCAN_NAMES = [
    (r'conv_first', 'head.0'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.1', r'body.\1.body.\2.body.3.conv_du.0'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab\.3\.attention\.3', r'body.\1.body.\2.body.3.conv_du.2'),
    (r'body\.(\d+)\.residual_group\.(\d+)\.rcab', r'body.\1.body.\2.body'), (r'body\.(\d+)\.conv', r'body.\1.body.2'),
    (r'conv_after_body', 'body.2'), (r'upsample', 'tail.0'), (r'conv_last', 'tail.1'),
]  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'options', 'rules'),
    [
        ('RRDBNet', {'num_block': 2, 'num_grow_ch': 2}, IN_SEQUENCE),
        ('RRDBNet', {'num_block': 2, 'num_grow_ch': 2}, WITH_TRUNK),
        ('EDSR', {'num_block': 2, 'upscale': 4}, EDSR_NAMES),
        ('RCAN', {'num_group': 2, 'num_block': 2, 'squeeze_factor': 2, 'upscale': 4}, RCAN_NAMES),
    ],
    ids=['ESRGAN in sequence', 'ESRGAN with trunk', 'EDSR', 'RCAN'],
)
@pytest.mark.parametrize('wrap', ['', 'module.', 'generator.', 'anything.'])
def test_published_names_of_networks_of_basicsr(tmp_path, name, options, rules, wrap):
    source, network = basicsr_network(name, **options), basicsr_network(name, **options)
    published = renamed(source.state_dict(), rules)
    assert len(published.keys() & source.state_dict().keys()) <= 4  # conv_first and conv_last of one of them
    if name != 'RRDBNet':
        for layer, sign in (('sub_mean', -1), ('add_mean', 1)):
            published[f'{layer}.weight'] = torch.eye(3).view(3, 3, 1, 1)
            published[f'{layer}.bias'] = sign * 255 * torch.tensor([0.4488, 0.4371, 0.4040])
    path = save(tmp_path / 'x.pth', prefixed(wrap, published), zipped=False)
    match = load_weights(network, path)
    assert '(100%)' in match.share and 'renamed, such as' in str(match)
    assert equal(network.state_dict(), source.state_dict())


def test_another_mean_is_refused(tmp_path):
    network = basicsr_network('EDSR', num_block=2, upscale=4, img_range=1.0)
    published = renamed(network.state_dict(), EDSR_NAMES)
    published['sub_mean.bias'] = -255 * torch.tensor([0.4488, 0.4371, 0.4040])
    with pytest.raises(UserError, match=r'subtract the mean \(114.4, .*img_range'):
        load_weights(network, save(tmp_path / 'x.pth', published))


def test_another_mean_is_refused_in_han(tmp_path):
    from basicsr_ext.archs.han_arch import HAN

    network = HAN(num_feat=4, num_group=1, num_block=1, squeeze_factor=2, img_range=1.0)
    published = {
        'head.0.weight': network.conv_first.weight,
        'sub_mean.bias': -255 * torch.tensor([0.4488, 0.4371, 0.4040]),
    }
    with pytest.raises(UserError, match=r'Published weights of HAN: they subtract the mean \(114.4'):
        load_weights(network, save(tmp_path / 'x.pth', published))


def test_unknown_names_are_not_guessed_by_shapes():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 3))
    state = {f'layer{key}': value for key, value in network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        match_weights(network, state, 'x.pth')
    assert 'under names that are known of no published weights' in str(caught.value)
    assert 'options' not in str(caught.value)


def test_x2_weights_in_an_x4_network_name_the_options_that_start_from_them():
    state = basicsr_network('EDSR', num_block=2, upscale=2).state_dict()
    network = basicsr_network('EDSR', num_block=2, upscale=4)
    with pytest.raises(UserError) as caught:
        match_weights(network, state, 'x2.pth', start_of='network_g')
    assert 'path.pretrain_network_g_leave_out: [upsample], or path.strict_load_g: false' in str(caught.value)
    with pytest.raises(UserError) as caught:
        match_weights(network, state, 'x2.pth')
    assert 'leave_out' not in str(caught.value)
    fit_weights(network, state, 'x2.pth', leave_out=['upsample'], start_of='network_g')


def test_plain_values_beside_weights_are_kept(tmp_path, tensors):
    record = {'label': 'net_g', 'network': {'type': 'X', 'list': [1, 2.5, None, True]}, 'scale': 2}
    content = open_weight_file(save(tmp_path / 'x.pth', {'params': tensors, 'basicsr_ext': record})).content
    assert content['basicsr_ext'] == record


def test_the_unpickler_reads_what_pickle_writes():
    """Plain values of every protocol."""
    value = {
        'a': [1, -(2**70), 2.5, 'ü\n', b'x', None, True, (), (1,), (1, 2, 3, 4), {3}, frozenset({4})],
        5: {'b': {}},
    }
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        found = unpickling.Unpickler({}, lambda identity: None).load(io.BytesIO(pickle.dumps(value, protocol)))
        if protocol >= 4:  # sets are calls before
            assert found == value
        assert found['a'][:4] == value['a'][:4] and found['a'][5:10] == value['a'][5:10] and found[5] == value[5]
