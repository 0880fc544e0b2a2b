"""``basicsr prepare centroids``."""

from __future__ import annotations

import basicsr_ext

basicsr_ext.register()

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from basicsr_ext.errors import UserError
from basicsr_ext.functional.digest import image_digest
from basicsr_ext.functional.resize import downsample
from basicsr_ext.networks.self_ensemble import self_ensemble
from basicsr_ext.networks.weights import digest_tensors
from basicsr_ext.prepare import assembling, centroids
from basicsr_ext.prepare.centroids import make_centroids
from basicsr_ext.storage import RawLmdbWriter, open_store
from basicsr_ext.trainer.checkpoints import network_content


def images_of(path) -> dict[str, np.ndarray]:
    store = open_store(path)
    keys = store.keys()
    return {key: np.array(store.read(key)) for key in keys}


@pytest.fixture
def make(tmp_path, lq_folder, network_option, weights):
    """Makes centroids of the crops with the small teacher; returns them and their downsampling by name."""

    def run(name: str = 'mu', **changes):
        arguments = {'network': network_option, 'weights': weights, 'scale': 2, 'device': 'cpu', **changes}
        output, output_lq = tmp_path / f'{name}.lmdb', tmp_path / f'{name}_lq.lmdb'
        make_centroids(arguments.pop('lq', lq_folder), output, output_lq, **arguments)
        return images_of(output), images_of(output_lq)

    return run


def forward(network, image: np.ndarray) -> np.ndarray:
    """A plain forward of one image, clipped to [0, 1]."""
    batch = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)[None]
    with torch.no_grad():
        return network(batch)[0].permute(1, 2, 0).clamp(0, 1).double().numpy()


def files_of(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_equal_to_a_plain_forward(make, teacher, crops):
    mu, low = make()
    assert list(mu) == list(low) == sorted(crops)
    for key, image in crops.items():
        expected = forward(teacher, image)
        assert expected.std() > 0.01  # not a flat image
        assert mu[key].dtype == np.uint8
        assert abs(mu[key] - expected * 255).max() <= 0.501
        np.testing.assert_array_equal(low[key], downsample(mu[key], 2))


@pytest.mark.parametrize(('dtype', 'levels'), [('uint16', 65535), ('float32', 1)])
def test_finer_types(make, teacher, crops, dtype, levels):
    mu, low = make(dtype=dtype)
    for key, image in crops.items():
        assert mu[key].dtype == low[key].dtype == np.dtype(dtype)
        assert abs(mu[key] / levels - forward(teacher, image)).max() < 1.1e-5
        if dtype == 'uint16':
            np.testing.assert_array_equal(low[key], downsample(mu[key], 2))
        else:
            expected = np.clip(downsample(mu[key].astype(np.float64), 2), 0, 1)
            np.testing.assert_allclose(low[key], expected, rtol=0, atol=1e-6)


def test_16_bit_lr_images(make, tmp_path, crops):
    with RawLmdbWriter(tmp_path / 'deep.lmdb', channels=3, dtype=np.uint16) as writer:
        for key, image in crops.items():
            writer.put(key, image.astype(np.uint16) * 257)
    mu, _ = make()
    deep, _ = make('deep_mu', lq=tmp_path / 'deep.lmdb')
    for key in crops:
        assert deep[key].dtype == np.uint8
        assert abs(deep[key].astype(int) - mu[key]).max() <= 1  # float32 rounds x / 65535 and x / 255 differently


def test_tiles_that_overlap_enough_equal_whole_images(make, crops):
    whole, _ = make('whole', dtype='float32')
    for batch_size in (1, 3):
        tiled, _ = make(f'tiled{batch_size}', dtype='float32', tile=20, overlap=14, batch_size=batch_size)
        for key in crops:
            np.testing.assert_allclose(tiled[key], whole[key], rtol=0, atol=1e-5)
    torn, _ = make('torn', dtype='float32', tile=8, overlap=0)
    assert max(abs(torn[key] - whole[key]).max() for key in crops) > 1e-3


def test_images_of_one_size_share_a_batch(make, tmp_path, crops, folder_of, monkeypatch):
    names = {'a': 'astronaut', 'b': 'coffee', 'c': 'chelsea', 'd': 'coffee', 'e': 'astronaut', 'f': 'coffee'}
    folder = folder_of(tmp_path / 'names', {key: crops[name] for key, name in names.items()})
    sizes = []
    original = centroids.super_resolve

    def counted(teacher, images, *rest):
        sizes.append(len(images))
        return original(teacher, images, *rest)

    monkeypatch.setattr(centroids, 'super_resolve', counted)
    batched, _ = make('batched', lq=folder, batch_size=2, dtype='float32')
    assert sizes == [2, 1, 2, 1]
    single, _ = make('single', dtype='float32')
    for key, name in names.items():
        np.testing.assert_allclose(batched[key], single[name], rtol=0, atol=1e-5)


def test_self_ensemble(make, teacher, crops):
    mu, _ = make(self_ensemble=True, dtype='float32')
    plain, _ = make('plain', dtype='float32')
    for key, image in crops.items():
        expected = forward(lambda batch: self_ensemble(teacher, batch), image)
        np.testing.assert_allclose(mu[key], expected, rtol=0, atol=1e-5)
        assert abs(mu[key] - plain[key]).max() > 1e-3


def test_bf16_is_close(make):
    full, _ = make('full', dtype='float32')
    half, _ = make('half', dtype='float32', precision='bf16')
    differences = np.concatenate([(half[key] - full[key]).ravel() for key in full])
    assert 0 < abs(differences).mean() < 0.01
    assert abs(differences).max() < 0.05


def test_the_record(make, tmp_path, crops, weights, network_option):
    make(tile=20, overlap=14, self_ensemble=True, param_key='params_ema', dtype='uint16')
    metas = [open_store(tmp_path / name).meta for name in ('mu.lmdb', 'mu_lq.lmdb')]
    assert [meta['kind'] for meta in metas] == ['centroid', 'centroid_lq']
    expected = {
        'network': network_option,
        'weights': 'teacher.pth',
        'weights_sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
        'weights_tensors_sha256': digest_tensors(weights),
        'param_key': 'params_ema',
        'scale': 2,
        'source': 'LR',
        'source_count': 4,
        'source_keys_sha256': hashlib.sha256(b'astronaut\nchelsea\ncoffee\nrocket\n').hexdigest(),
        'lq_digests': {key: image_digest(image) for key, image in crops.items()},
        'resizer': 'matlab_bicubic',
        'precision': 'fp32',
        'tile': 20,
        'overlap': 14,
        'batch_size': 1,
        'self_ensemble': True,
        'window': 1,
        'dtype': 'uint16',
        'tool_version': basicsr_ext.__version__,
    }
    for meta in metas:
        assert {key: value for key, value in meta.items() if key != 'kind'} == expected
        assert str(tmp_path) not in json.dumps(dict(meta))


def test_as_a_command_with_an_option_file(prepare, make, tmp_path, lq_folder, weights, network_option):
    by_hand, by_hand_lq = make()
    option_file = tmp_path / 'train.yml'
    option_file.write_text(json.dumps({'scale': 2, 'network_g': network_option}))
    for name, teacher in {
        'file': ['-opt', option_file],
        'text': ['--network', json.dumps(network_option), '--scale', 2],
    }.items():
        outputs = tmp_path / f'{name}.lmdb', tmp_path / f'{name}_lq.lmdb'
        command = ['centroids', '-i', lq_folder, '-o', outputs[0], '--output-lq', outputs[1], '--weights', weights]
        prepare(*command, '--device=cpu', *teacher)
        for path, expected in zip(outputs, (by_hand, by_hand_lq), strict=True):
            store = open_store(path)
            assert all(np.array_equal(store.read(key), image) for key, image in expected.items())


@pytest.fixture
def checkpoint(tmp_path, teacher, network_option):
    """The small teacher as a training saves it."""
    content = network_content([teacher], ['params'], 'net_g', {'network_g': network_option, 'scale': 2})
    torch.save(content, tmp_path / 'net_g_latest.pth')
    return tmp_path / 'net_g_latest.pth'


def test_a_checkpoint_alone_is_enough(prepare, make, tmp_path, lq_folder, checkpoint, network_option):
    make('by_hand', weights=checkpoint)
    command = ['centroids', '-i', lq_folder, '-o', tmp_path / 'alone.lmdb', '--output_lq', tmp_path / 'alone_lq.lmdb']
    prepare(*command, '--weights', checkpoint, '--device=cpu')
    for suffix in ('', '_lq'):  # pixels and records, all that is in the stores
        alone, by_hand = (tmp_path / f'{name}{suffix}.lmdb/data.mdb' for name in ('alone', 'by_hand'))
        assert alone.read_bytes() == by_hand.read_bytes()
    meta = open_store(tmp_path / 'alone.lmdb').meta
    assert meta['network'] == network_option and meta['scale'] == 2
    assert meta['weights_sha256'] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def test_what_is_given_comes_before_what_a_checkpoint_says(make, tmp_path, checkpoint, network_option):
    make('given', weights=checkpoint, network={**network_option, 'res_scale': 0.5})
    assert open_store(tmp_path / 'given.lmdb').meta['network'] == {**network_option, 'res_scale': 0.5}
    with pytest.raises(
        UserError, match=r'--scale: the network of .*net_g_latest.pth enlarges 2 times, and 4 was given'
    ):
        make(weights=checkpoint, network=None, scale=4)
    discriminator = network_content([torch.nn.Linear(1, 1)], ['params'], 'net_d', {'network_d': {'type': 'D'}})
    torch.save(discriminator, tmp_path / 'net_d.pth')
    with pytest.raises(UserError, match='expected a network that makes images, found net_d'):
        make(weights=tmp_path / 'net_d.pth', network=None)


def test_a_failure_in_the_middle_leaves_what_is_done_and_no_store(make, tmp_path, monkeypatch):
    expected = make('undisturbed')
    original = centroids.super_resolve
    for failure in (KeyboardInterrupt, MemoryError):
        calls = []

        def failing(*arguments, calls=calls, failure=failure):
            calls.append(1)
            if len(calls) == 3:
                raise failure
            return original(*arguments)

        monkeypatch.setattr(centroids, 'super_resolve', failing)
        with pytest.raises(failure):
            make(failure.__name__)
        assert [name for name in files_of(tmp_path) if failure.__name__ in name] == [f'{failure.__name__}.lmdb.parts']
        monkeypatch.setattr(
            centroids, 'super_resolve', lambda *arguments, calls=calls: calls.append(1) or original(*arguments)
        )
        for made, whole in zip(make(failure.__name__), expected, strict=True):
            assert all(np.array_equal(made[key], image) for key, image in whole.items())
        assert len(calls) == 3 + 2  # two were done, and are not done again
    assert not [name for name in files_of(tmp_path) if name.endswith('.parts')]


def test_a_failure_of_the_network_says_what_is_kept(make, tmp_path, monkeypatch):
    original = centroids.super_resolve
    calls = []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise UserError('The device has not enough memory.')
        return original(*arguments)

    monkeypatch.setattr(centroids, 'super_resolve', failing)
    with pytest.raises(UserError, match=r'not enough memory. 2 of 4 pieces of the work are kept in .*mu.lmdb.parts'):
        make()
    with pytest.raises(UserError, match='scale was 2, is 4'):
        make(scale=4)
    with pytest.raises(UserError, match='dtype was "uint8", is "float32"'):
        make(dtype='float32')
    monkeypatch.undo()
    make()


def test_a_damaged_image_leaves_no_store(make, tmp_path, lq_folder):
    damaged = lq_folder / 'coffee.png'
    damaged.write_bytes(damaged.read_bytes()[:200])
    before = files_of(tmp_path)
    with pytest.raises(UserError, match='coffee'):
        make()
    assert files_of(tmp_path) == before


def test_a_failure_in_the_last_step_leaves_no_store(make, tmp_path, monkeypatch):
    expected = make('undisturbed')

    class Failing(RawLmdbWriter):
        def __exit__(self, *error):
            if str(self.path).endswith('mu.lmdb'):
                super().__exit__(OSError, OSError('disk full'), None)
                raise UserError('disk full')
            return super().__exit__(*error)

    monkeypatch.setattr(assembling, 'RawLmdbWriter', Failing)
    with pytest.raises(UserError, match='disk full 4 of 4 pieces of the work are kept'):
        make()
    assert [name for name in files_of(tmp_path) if name.startswith('mu')] == ['mu.lmdb.parts']
    monkeypatch.undo()
    for made, whole in zip(make(), expected, strict=True):
        assert all(np.array_equal(made[key], image) for key, image in whole.items())


def test_existing_outputs_are_refused_and_kept(make, tmp_path):
    for taken in ('mu.lmdb', 'mu_lq.lmdb'):
        (tmp_path / taken).mkdir()
        (tmp_path / taken / 'precious').touch()
        before = files_of(tmp_path)
        with pytest.raises(UserError, match=taken):
            make()
        assert files_of(tmp_path) == before
        assert (tmp_path / taken / 'precious').exists()
        (tmp_path / taken / 'precious').unlink()
        (tmp_path / taken).rmdir()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'scale': 4}, 'expected 96x128 for scale 4: change scale, or the network'),
        ({'scale': 4, 'tile': 12, 'overlap': 4}, 'expected 48x48 for scale 4'),
        ({'scale': 0}, 'scale: expected a positive integer'),
        ({'scale': '2'}, "scale: expected a positive integer, found '2'"),
        ({'batch_size': 0}, '--batch_size: expected a positive integer'),
        ({'tile': 0}, 'tile: expected a positive number'),
        ({'tile': 16, 'overlap': 16}, 'overlap: expected 0 to 15'),
        ({'precision': 'half'}, 'precision: expected one of fp32, bf16, fp16'),
        ({'dtype': 'int8'}, 'dtype: expected one of uint8, uint16, float32'),
        ({'device': 'gpu'}, 'device: expected auto'),
        ({'network': {'type': 'EDSRR'}}, 'did you mean "EDSR"'),
        ({'network': {}}, 'name of the network as type'),
        ({'param_key': 'missing'}, 'missing'),
        ({'lq': 'nowhere'}, 'nowhere'),
    ],
)
def test_bad_arguments(make, tmp_path, changes, message):
    before = files_of(tmp_path)
    with pytest.raises(UserError, match=message):
        make(**changes)
    assert files_of(tmp_path) == before


def test_one_path_for_both_outputs(tmp_path, lq_folder, network_option, weights):
    with pytest.raises(UserError, match='expected another path'):
        make_centroids(
            lq_folder, tmp_path / 'mu.lmdb', tmp_path / 'mu.lmdb', network=network_option, weights=weights, scale=2
        )


def test_a_network_for_other_channels(make, tmp_path, crops):
    with RawLmdbWriter(tmp_path / 'grey.lmdb', channels=1, dtype=np.uint8) as writer:
        writer.put('a', np.ascontiguousarray(crops['coffee'][:, :, :1]))
    with pytest.raises(UserError, match='channels'):
        make(lq=tmp_path / 'grey.lmdb')


def test_a_network_that_cannot_take_the_image(make, monkeypatch):
    def refuse(self, image):
        raise RuntimeError('shape is invalid for input of size 5\nand more')

    monkeypatch.setattr('basicsr.archs.edsr_arch.EDSR.forward', refuse)
    with pytest.raises(UserError, match='fails on image "astronaut" of 24x32 pixels, 3 channels: shape is invalid'):
        make()


def test_values_that_are_not_finite_are_refused(make, tmp_path, network_option, teacher):
    state = {key: value * 1e30 for key, value in teacher.state_dict().items()}
    torch.save(state, tmp_path / 'huge.pth')
    with pytest.raises(UserError, match='not finite for image "astronaut"'):
        make(weights=tmp_path / 'huge.pth')


def test_the_training_side_accepts_them_and_refuses_others(make, tmp_path, lq_folder, folder_of, crops):
    from basicsr_ext.data.provenance import check_centroids

    make()
    changed = dict(crops, coffee=crops['coffee'] ^ 1)
    other_folder = folder_of(tmp_path / 'other', changed)
    stores = {'centroid_store': 'mu.lmdb', 'centroid_lq_store': 'mu_lq.lmdb'}
    train_set = SimpleNamespace(
        pairs=[(key, key) for key in crops],
        lq_store=open_store(lq_folder),
        **{name: open_store(tmp_path / path) for name, path in stores.items()},
    )
    assert check_centroids(train_set, 2)['kind'] == 'centroid'
    train_set.lq_store = open_store(other_folder)
    with pytest.raises(UserError, match='"coffee"'):
        check_centroids(train_set, 2)
