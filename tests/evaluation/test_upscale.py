"""`basicsr upscale` as users run it."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from run_helpers import TINY_EDSR, sr_options, write_images, write_options, write_pairs
from waiting import LIMIT

import basicsr_ext
from basicsr_ext.cli.main import main
from basicsr_ext.errors import Interrupted
from basicsr_ext.evaluation import enlarging, network_file
from basicsr_ext.evaluation import upscale as upscaling
from basicsr_ext.functional.resize import upsample
from basicsr_ext.functional.ycbcr import rgb_to_ycbcr
from basicsr_ext.networks.inference import Inference
from basicsr_ext.networks.requirements import SizeRequirements
from basicsr_ext.networks.self_ensemble import self_ensemble
from basicsr_ext.storage import BasicSRLmdbWriter, RawLmdbWriter, open_store
from basicsr_ext.trainer.run import _forget_logger

basicsr_ext.register()

LUMINANCE = {'type': 'VDSR', 'num_feat': 4, 'num_conv': 3, 'upscale': 2}  # one channel, unless told otherwise
SWINIR = {'type': 'SwinIR', 'upscale': 2, 'in_chans': 3, 'img_size': 8, 'window_size': 4, 'img_range': 1.0, 'depths': [2],
          'embed_dim': 8, 'num_heads': [2], 'mlp_ratio': 2, 'upsampler': 'pixelshuffledirect',
          'resi_connection': '1conv'}  # fmt: skip


def build(network: dict, seed: int = 0) -> torch.nn.Module:
    from basicsr.utils.registry import ARCH_REGISTRY

    torch.manual_seed(seed)
    arguments = {key: value for key, value in network.items() if key != 'type'}
    return ARCH_REGISTRY.get(network['type'])(**arguments).eval().requires_grad_(False)


def save(path: Path, network: dict, scale: int = 2, label: str = 'net_g', factor: float = 1.0) -> torch.nn.Module:
    """Writes a network file as a run does, its random weights times a factor; returns the network."""
    from basicsr_ext.trainer.checkpoints import network_content, write_atomically

    built = build(network)
    for parameter in built.parameters():
        parameter.mul_(factor)
    options = {label.replace('net_', 'network_'): network, 'scale': scale}
    write_atomically(network_content([built], ['params'], label, options), path)
    return built


@pytest.fixture
def root(tmp_path, monkeypatch, photos):
    """Working directory with a folder of small images."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / 'in', {key: image[100:130, 120:145] for key, image in photos.items()})
    yield tmp_path
    _forget_logger()  # BasicSR's holds the stream that pytest gave this test


def run(*arguments: str) -> None:
    assert main(['upscale', '-o', 'out', '--device', 'cpu', *arguments]) == 0


def read(path: str | Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return image


def forward(network: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    """BGR in, BGR out, as the command should round it."""
    peak = np.iinfo(image.dtype).max
    unit = torch.from_numpy((image[..., ::-1] / np.float32(peak)).copy()).permute(2, 0, 1)[None]
    output = network(unit)[0].permute(1, 2, 0).clamp(0, 1).numpy()[..., ::-1]
    return np.floor(output * peak + 0.5).astype(image.dtype)


def files(folder: str | Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob('*') if path.is_file())


def close(found: np.ndarray, expected: np.ndarray, levels: int = 1) -> bool:
    return (
        found.shape == expected.shape
        and found.dtype == expected.dtype
        and np.abs(found.astype(int) - expected).max() <= levels
    )


def test_a_checkpoint_of_a_run_is_enough(root, photos, capsys):
    """Trained here, and read without its option file; stock BasicSR reads the file too."""
    from basicsr.models.base_model import BaseModel

    write_pairs(root, photos)
    options = sr_options(root)
    options['train']['ema_decay'] = 0.5
    assert (
        main(['train', '-opt', str(write_options(root / 'o.yml', options)), '--force_yml', 'train:total_iter=2']) == 0
    )
    file = root / 'experiments/run/models/net_g_latest.pth'
    run('-i', 'in', '--weights', str(file), '--suffix', '_x2')
    network = build(options['network_g'], seed=9)
    network.load_state_dict(torch.load(file, weights_only=True)['params_ema'])
    assert files('out') == sorted(f'{key}_x2.png' for key in photos)
    for key in photos:
        assert close(read(f'out/{key}_x2.png'), forward(network, read(f'in/{key}.png')))
    assert 'out: 5 images' in capsys.readouterr().out

    stock = build(options['network_g'], seed=10)
    BaseModel({'num_gpu': 0, 'is_train': False}).load_network(stock, str(file), True, 'params_ema')
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in stock.state_dict().items())


def test_one_image_and_weights_of_others(root):
    network = build(TINY_EDSR)
    torch.save(network.state_dict(), 'bare.pth')
    (root / 'x.yml').write_text(
        'scale: 2\nnetwork_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 1, upscale: 2}\n'
    )
    run('-i', 'in/coffee.png', '--weights', 'bare.pth', '-opt', 'x.yml')
    assert files('out') == ['coffee.png']
    assert close(read('out/coffee.png'), forward(network, read('in/coffee.png')))


def test_tiles_ensemble_and_precision(root):
    network = save(root / 'a.pth', TINY_EDSR)
    run('-i', 'in', '--weights', 'a.pth', '--tile', '20', '--overlap', '14', '--batch_size', '3')
    expected = forward(network, read('in/coffee.png'))
    assert close(read('out/coffee.png'), expected)
    run('-i', 'in', '--weights', 'a.pth', '--overwrite', '--self_ensemble')
    assert close(read('out/coffee.png'), forward(lambda image: self_ensemble(network, image), read('in/coffee.png')))
    assert not close(read('out/coffee.png'), expected, levels=0)
    run('-i', 'in', '--weights', 'a.pth', '--overwrite', '--precision', 'bf16')
    assert close(read('out/coffee.png'), expected, levels=6)


@pytest.mark.parametrize(
    ('network', 'overlap'),
    [
        (TINY_EDSR, 13),
        ({'type': 'VDSR', 'in_channels': 3, 'num_feat': 4, 'num_conv': 4, 'upscale': 2}, 10),
        ({'type': 'LapSRN', 'in_channels': 3, 'num_feat': 4, 'num_conv': 2, 'upscale': 2}, 13),
    ],
    ids=lambda value: value['type'] if isinstance(value, dict) else '',
)
def test_tiles_equal_the_whole_image(network, overlap, photos):
    """Within 1e-4 where the overlap covers the receptive field, and not without overlap."""
    built = build(network)
    for parameter in built.parameters():
        parameter.mul_(1.5)  # livelier than at the start of a training
    image = torch.from_numpy(photos['coffee'][:90, :110] / np.float32(255)).permute(2, 0, 1)[None].contiguous()
    needs = network_file.requirements_of(network)
    whole, tiled, cut = (
        enlarging.super_resolve(built, image, Inference(2, tile, over, 2, False, 'fp32', *needs)).images
        for tile, over in ((None, 0), (overlap + 20, overlap), (20, 0))
    )
    assert (tiled - whole).abs().max() < 1e-4 < (cut - whole).abs().max()


def test_networks_with_windows_take_any_size(root):
    network = save(root / 'a.pth', SWINIR)
    run('-i', 'in', '--weights', 'a.pth')
    image = read('in/coffee.png')
    assert image.shape == (30, 25, 3)
    padded = np.pad(image, ((0, 2), (0, 3), (0, 0)), mode='reflect')
    assert close(read('out/coffee.png'), forward(network, padded)[:60, :50])
    run('-i', 'in', '--weights', 'a.pth', '--overwrite', '--tile', '22', '--overlap', '14')
    assert read('out/coffee.png').shape == (60, 50, 3)


def test_a_luminance_network(root):
    network = save(root / 'a.pth', LUMINANCE, factor=0.3)
    image = read('in/coffee.png')
    cv2.imwrite('in/grey.png', image[..., 1])
    cv2.imwrite('in/grey_as_colour.png', np.repeat(image[..., 1:2], 3, axis=2))
    run('-i', 'in', '--weights', 'a.pth')

    def ycbcr(bgr):
        return rgb_to_ycbcr(torch.from_numpy(bgr[..., ::-1] / 255.0).permute(2, 0, 1)[None])

    made, of_input = ycbcr(read('out/coffee.png')), ycbcr(image)
    keep = np.all((read('out/coffee.png') > 0) & (read('out/coffee.png') < 255), axis=2)  # no colour that RGB lacks
    assert keep.sum() > 200
    expected = network(of_input[:, :1].float()).double()
    assert (expected - upsample(of_input[:, :1], 2)).abs().max() > 0.02
    assert (made[:, :1] - expected)[0, 0].abs().numpy()[keep].max() < 0.004
    chroma = (made[:, 1:] - upsample(of_input[:, 1:], 2))[0].abs().numpy()
    assert chroma[:, keep].max() < 0.004
    assert read('out/grey.png').ndim == 2
    assert np.array_equal(read('out/grey.png'), read('out/grey_as_colour.png')[..., 0])


def test_grey_alpha_and_16_bits_are_kept(root, capsys):
    network = save(root / 'a.pth', TINY_EDSR)
    image = read('in/coffee.png')
    alpha = np.tile(np.arange(25, dtype=np.uint8) * 10, (30, 1))
    deep = image.astype(np.uint16) * 257 - 100 * (image > 0)
    (root / 'more/sub').mkdir(parents=True)
    cv2.imwrite('more/alpha.png', np.dstack([image, alpha]))
    cv2.imwrite('more/sub/deep.png', deep.astype(np.uint16))
    cv2.imwrite('more/deep_alpha.png', np.dstack([deep, alpha.astype(np.uint16) * 257]).astype(np.uint16))
    cv2.imwrite('more/grey.png', image[..., 0])
    run('-i', 'more', '--weights', 'a.pth')
    assert files('out') == ['alpha.png', 'deep_alpha.png', 'grey.png', 'sub/deep.png']
    found = read('out/alpha.png')
    assert close(np.ascontiguousarray(found[..., :3]), forward(network, image))
    assert np.array_equal(found[..., 3], upsample(alpha, 2))
    expected = forward(network, deep.astype(np.uint16))
    assert close(read('out/sub/deep.png'), expected, levels=2)
    found = read('out/deep_alpha.png')
    assert close(np.ascontiguousarray(found[..., :3]), expected, levels=2)
    assert np.array_equal(found[..., 3], upsample(alpha.astype(np.uint16) * 257, 2))
    grey = forward(network, np.repeat(image[..., :1], 3, axis=2)).astype(float).mean(axis=2)
    assert np.abs(read('out/grey.png') - grey).max() <= 1.01
    assert 'Warning' not in capsys.readouterr().err

    assert main(['upscale', '-i', 'more', '-o', 'out', '--weights', 'a.pth', '--ext', 'jpg']) == 0
    assert 'Warning: jpg lacks alpha or 16 bits, which 3 of the images have' in capsys.readouterr().err
    assert read('out/alpha.jpg').shape == (60, 50, 3) and read('out/sub/deep.jpg').dtype == np.uint8
    run('-i', 'more', '--weights', 'a.pth', '--ext', 'webp')
    assert np.array_equal(read('out/alpha.webp')[..., 3], upsample(alpha, 2))
    run('-i', 'more/sub', '--weights', 'a.pth', '--ext', 'tif')
    assert np.array_equal(read('out/deep.tif'), read('out/sub/deep.png'))


def test_four_inks_are_no_alpha(root):
    network = save(root / 'a.pth', TINY_EDSR)
    Image.fromarray(read('in/coffee.png')[..., ::-1]).convert('CMYK').save('inks.tif')
    run('-i', 'inks.tif', '--weights', 'a.pth')
    assert close(read('out/inks.png'), forward(network, cv2.imread('inks.tif')))


@pytest.mark.parametrize('orientation', [3, 6])
def test_alpha_turns_with_the_colours(root, orientation):
    save(root / 'a.pth', TINY_EDSR)
    image = Image.fromarray(read('in/coffee.png')[..., ::-1])
    image.putalpha(Image.fromarray(np.tile(np.arange(25, dtype=np.uint8) * 10, (30, 1))))
    tags = Image.Exif()
    tags[0x0112] = orientation
    encoded = io.BytesIO()
    image.save(encoded, 'PNG', exif=tags)
    (root / 'turned').mkdir()
    (root / 'turned/a.png').write_bytes(encoded.getvalue())
    colours = cv2.imread('turned/a.png')  # as BasicSR reads it
    run('-i', 'turned', '--weights', 'a.pth')
    found = read('out/a.png')
    assert found.shape[:2] == (2 * colours.shape[0], 2 * colours.shape[1])
    alpha = np.tile(np.arange(25, dtype=np.uint8) * 10, (30, 1))
    turned = {0: alpha, 3: alpha[::-1, ::-1], 6: np.rot90(alpha, -1)}
    was_turned = not np.array_equal(colours, read('in/coffee.png'))
    assert np.array_equal(found[..., 3], upsample(turned[orientation if was_turned else 0].copy(), 2))


def test_networks_of_enlarged_images(root):
    residual = torch.nn.Conv2d(3, 3, 3, padding=1)
    from basicsr_ext.evaluation.network_file import TrainedNetwork
    from basicsr_ext.evaluation.pictures import Picture

    image = read('in/coffee.png')
    trained = TrainedNetwork(residual.eval().requires_grad_(False), 1, SizeRequirements(1, False))
    found = enlarging.Upscaler(trained, Inference(1), before=3)(Picture(image[..., ::-1].copy()), 'x')
    expected = forward(lambda unit: residual(upsample(unit, 3)), image)
    assert close(found.pixels[..., ::-1], expected)


# ---- errors ----------------------------------------------------------------------------------------------------------


def fails(capsys, *arguments: str) -> str:
    """Runs a command that must end with one error, and leave nothing in ``out``."""
    assert main(['upscale', '-o', 'out', *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('basicsr upscale: error: ') == 1 and 'Traceback' not in error
    assert not Path('out').exists()
    return error


def test_bad_images(root, capsys):
    save(root / 'a.pth', TINY_EDSR)
    weights = ['--weights', 'a.pth']
    (root / 'empty').mkdir()
    assert 'expected images' in fails(capsys, '-i', 'empty', *weights)
    assert 'there is nothing' in fails(capsys, '-i', 'nowhere', *weights)
    assert 'a.pth: not an image' in fails(capsys, '-i', 'a.pth', *weights)
    content = (root / 'in/rocket.png').read_bytes()
    for damaged in (content[: len(content) // 2], b'', content[:100]):
        (root / 'bad.png').write_bytes(damaged)
        assert 'bad.png: ' in fails(capsys, '-i', 'bad.png', *weights)
    for file in files('in'):
        Path('in', file).write_bytes(content[:100])
    assert 'None of 5 images can be enlarged. in/astronaut.png: ' in fails(capsys, '-i', 'in', *weights)


def test_a_store_is_not_enlarged(root, capsys):
    save(root / 'a.pth', TINY_EDSR)
    store = open_store('in')
    for writer in (RawLmdbWriter('raw.lmdb', channels=3, dtype=np.uint8), BasicSRLmdbWriter('stock.lmdb')):
        with writer:
            writer.put('coffee', store.read('coffee'))
    for path in ('raw.lmdb', 'stock.lmdb'):
        error = fails(capsys, '-i', path, '--weights', 'a.pth')
        assert f'{path}: expected an image or a folder of images, found a store (LMDB)' in error


@pytest.mark.parametrize('name', ['out.png', 'new/out.JPG'])
def test_results_go_to_a_folder(root, capsys, name):
    save(root / 'a.pth', TINY_EDSR)
    command = ['upscale', '-i', 'in/coffee.png', '--weights', 'a.pth', '-o', name]
    assert main(command) == 2
    assert f'{root / name}: expected a folder' in capsys.readouterr().err and not Path(name).exists()
    Path(name).mkdir(parents=True)
    assert main(command) == 0
    assert files(name) == ['coffee.png']


def test_bad_images_of_a_folder_are_left_out_and_listed(root, capsys, monkeypatch):
    """Damaged, of a kind that is not supported, unreadable, too small for the network, too large for the format."""
    network = save(root / 'a.pth', TINY_EDSR)
    content = (root / 'in/rocket.png').read_bytes()
    good = set(files('in'))
    (root / 'in/sub').mkdir()
    (root / 'in/sub/cut.png').write_bytes(content[: len(content) // 2])
    (root / 'in/text.jpg').write_bytes(b'no image')
    Image.new('F', (30, 30)).save('in/float.tif')
    (root / 'in/gone.png').symlink_to('nowhere')
    cv2.imwrite('in/tiny.png', np.full((2, 3, 3), 90, np.uint8))
    cv2.imwrite('in/long.png', np.full((3, 33000, 3), 90, np.uint8))
    run_network = enlarging.super_resolve

    def refusing(network, image, how):
        if image.shape[-2] < 3:
            raise RuntimeError("Kernel size can't be greater than actual input size")
        return run_network(network, image, how)

    monkeypatch.setattr(enlarging, 'super_resolve', refusing)
    with pytest.raises(SystemExit) as end:
        main(['upscale', '-i', 'in', '-o', 'out', '--weights', 'a.pth', '--device', 'cpu', '--ext', 'jpg'])
    assert end.value.code == 1
    assert files('out') == sorted(name.replace('.png', '.jpg') for name in good)
    assert read('out/coffee.jpg').shape == forward(network, read('in/coffee.png')).shape
    printed = capsys.readouterr()
    assert printed.out == 'out: 5 images\n' and 'Traceback' not in printed.err
    listed = printed.err[printed.err.index('6 of 11 images were left out:') :].splitlines()
    names = ['in/float.tif', 'in/gone.png', 'out/long.jpg', 'in/sub/cut.png', 'in/text.jpg', 'in/tiny.png']
    assert [line.partition(': ')[0] for line in listed[1:]] == names
    assert 'fails on this image of 2x3 pixels' in listed[-1] and 'No such file' in listed[2]
    assert 'an image of 6x66000 pixels cannot be written in this format' in listed[3]


def test_a_full_disk_is_no_bad_image(root, capsys, monkeypatch):
    """It ends the command: what is there is named with the error."""
    save(root / 'a.pth', TINY_EDSR)
    write = upscaling.write_picture

    def full(file, picture):
        if file.name == 'coffee.png':
            raise Interrupted('coffee.png: writing failed (No space left on device).')
        write(file, picture)

    monkeypatch.setattr(upscaling, 'write_picture', full)
    assert main(['upscale', '-i', 'in', '-o', 'out', '--weights', 'a.pth']) == 2
    assert 'writing failed' in capsys.readouterr().err
    assert files('out') == ['astronaut.png', 'chelsea.png']


def test_bad_weights(root, capsys):
    torch.save(build(TINY_EDSR).state_dict(), 'bare.pth')
    images = ['-i', 'in', '--weights']
    error = fails(capsys, *images, 'bare.pth')
    assert 'his file holds weights only' in error
    assert importlib.util.find_spec('spandrel') is None or 'UnsupportedModelError' in error
    assert 'expected a file at nowhere.pth' in fails(capsys, *images, 'nowhere.pth')
    assert 'found a folder' in fails(capsys, *images, 'in')
    (root / 'x.yml').write_text(
        'scale: 2\nnetwork_g: {type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 8, num_block: 1, upscale: 2}\n'
    )
    assert 'do not fit EDSR' in fails(capsys, *images, 'bare.pth', '-opt', 'x.yml')
    (root / 'x.yml').write_text('scale: 2\n')
    assert 'expected a block network_g' in fails(capsys, *images, 'bare.pth', '-opt', 'x.yml')
    save(root / 'net_d_4.pth', {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 4}, label='net_d')
    assert 'found net_d, the discriminator UNetDiscriminatorSN' in fails(capsys, *images, 'net_d_4.pth')
    (root / 'training_states').mkdir()
    torch.save({'iter': 4, 'optimizers': []}, 'training_states/4.state')
    error = fails(capsys, *images, 'training_states/4.state')
    assert 'found a training state' in error and 'models/net_g_4.pth' in error
    save(root / 'other.pth', TINY_EDSR, scale=4)
    assert 'expected 120x100 for scale 4' in fails(capsys, *images, 'other.pth')
    (root / 'cut.pth').write_bytes((root / 'other.pth').read_bytes()[:500])
    assert 'cut.pth' in fails(capsys, *images, 'cut.pth')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'scale': 'x' * 5000}, "expected a scale from 1 to 64, found 'xxx"),
        ({'scale': 0}, 'expected a scale from 1 to 64, found 0'),
        ({'scale': True}, 'expected a scale from 1 to 64, found True'),
        ({'scale': 10**5000}, 'found a number of thousands of digits'),
        ({'network': [1] * 5000}, 'expected a mapping with the name of the network as type, found list'),
        ({'network': {'type': 3}}, 'expected a mapping with the name of the network as type, found dict'),
        ({'network': {**TINY_EDSR, 'num_feat': torch.ones(2)}}, 'expected plain values'),
        ({'network': {**TINY_EDSR, 'num_feat': np.float64(3)}}, 'expected plain values'),
        ({'network': {**TINY_EDSR, 'num_feat': 'x' * 5000}}, 'EDSR cannot be built with'),
        ({'network': {**TINY_EDSR, 'num_feat': 30_000}}, 'more than the file of'),
        ({'network': {**TINY_EDSR, 'num_block': 10**9}}, 'more than the file of'),
        ({'network': {'type': '\x1b[2J' + 'x' * 5000}}, 'unknown network "\\x1b[2Jxxx'),
    ],
    ids=range(12),
)
def test_wrong_descriptions_in_network_files(root, capsys, change, message):
    network = save(root / 'a.pth', TINY_EDSR)
    content = torch.load('a.pth', weights_only=True)
    content['basicsr_ext'].update(change)
    torch.save(content, 'a.pth')
    error = fails(capsys, '-i', 'in', '--weights', 'a.pth')
    assert message in error and len(error) < 1500 and '\x1b' not in error
    (root / 'x.yml').write_text(f'scale: 2\nnetwork_g: {json.dumps(TINY_EDSR)}\n')
    run('-i', 'in/coffee.png', '--weights', 'a.pth', '-opt', 'x.yml')
    assert close(read('out/coffee.png'), forward(network, read('in/coffee.png')))


@pytest.mark.parametrize('zipped', [True, False])
def test_a_network_that_was_pickled_as_a_whole(root, capsys, zipped):
    """As VDSR's and AIL's were published; what was renamed is said."""
    network = build(LUMINANCE)
    published, block = torch.nn.Module(), torch.nn.Module()
    published.input, block.conv, published.output = network.conv_first, network.body[0], network.conv_last
    published.residual_layer = torch.nn.Sequential(block)
    content = {'epoch': 3, 'model': torch.nn.DataParallel(published), 'psnr': np.float64(31.2)}
    torch.save(content, 'published.pth', _use_new_zipfile_serialization=zipped)
    save(root / 'own.pth', LUMINANCE)
    (root / 'x.yml').write_text(f'scale: 2\nnetwork_g: {json.dumps(LUMINANCE)}\n')
    run('-i', 'in/coffee.png', '--weights', 'own.pth', '--suffix', '_own')
    capsys.readouterr()
    run('-i', 'in/coffee.png', '--weights', 'published.pth', '-opt', 'x.yml')
    assert np.array_equal(read('out/coffee.png'), read('out/coffee_own.png'))
    assert (
        'Weights published.pth: taken from the entry model; passed over psnr (a scalar of NumPy); 3 renamed, such as '
        'input.weight to conv_first.weight.\n'
    ) in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--tile', '0'], 'tile: expected a positive number'),
        (['--tile', '8', '--overlap', '8'], 'overlap: expected 0 to 7'),
        (['--batch_size', '0'], 'batch size'),
        (['--device', 'gpu'], 'device: expected auto'),
        (['--suffix', '../x'], 'suffix: expected'),
        (['--scale', '4'], 'scale: the network enlarges by 2, the command line says 4'),
    ],
)
def test_bad_arguments(root, capsys, arguments, message):
    save(root / 'a.pth', TINY_EDSR)
    assert message in fails(capsys, '-i', 'in', '--weights', 'a.pth', *arguments)


def test_sides_that_a_network_does_not_take(root, capsys, monkeypatch):
    """Pixels of 2x2 become channels; images have 30x25 pixels."""
    network = {'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2, 'num_feat': 4, 'num_block': 1,
               'num_grow_ch': 2}  # fmt: skip
    save(root / 'a.pth', network)
    run('-i', 'in', '--weights', 'a.pth')
    assert read('out/coffee.png').shape == (60, 50, 3)
    shutil.rmtree('out')
    monkeypatch.setattr(network_file, 'requirements_of', lambda network: SizeRequirements(1, False))
    assert 'in/astronaut.png: the network fails on this image of 30x25 pixels: AssertionError.' in fails(
        capsys, '-i', 'in', '--weights', 'a.pth'
    )


def test_recognised_networks_say_their_multiple(root):
    pytest.importorskip('spandrel')
    torch.save(build({'type': 'RRDBNet', 'num_in_ch': 3, 'num_out_ch': 3, 'scale': 2, 'num_feat': 16,
                      'num_block': 1}).state_dict(), 'bare.pth')  # fmt: skip
    trained = network_file.open_network('bare.pth', torch.device('cpu'))
    assert trained.scale == 2 and trained.needs.window % 2 == 0


def test_values_that_are_not_finite(root, capsys):
    content = {key: value * 1e30 for key, value in build(TINY_EDSR).state_dict().items()}
    torch.save({'params': content, 'basicsr_ext': {'label': 'net_g', 'network': TINY_EDSR, 'scale': 2}}, 'huge.pth')
    assert 'not finite' in fails(capsys, '-i', 'in', '--weights', 'huge.pth')


def test_inputs_and_results_are_not_overwritten(root, capsys):
    save(root / 'a.pth', TINY_EDSR)
    before = {file: Path('in', file).read_bytes() for file in files('in')}
    assert main(['upscale', '-i', 'in', '-o', 'in', '--weights', 'a.pth', '--overwrite']) == 2
    assert 'is an input, and would be overwritten' in capsys.readouterr().err
    assert {file: Path('in', file).read_bytes() for file in files('in')} == before
    run('-i', 'in/coffee.png', '--weights', 'a.pth')
    assert main(['upscale', '-i', 'in', '-o', 'out', '--weights', 'a.pth']) == 2
    assert 'out/coffee.png exist already' in capsys.readouterr().err
    assert files('out') == ['coffee.png']


def test_a_place_that_cannot_be_written(root, capsys, monkeypatch):
    save(root / 'a.pth', TINY_EDSR)
    (root / 'file').touch()
    assert main(['upscale', '-i', 'in', '-o', 'file/out', '--weights', 'a.pth']) == 2
    assert 'expected a folder, but' in capsys.readouterr().err
    assert main(['upscale', '-i', 'in', '-o', '/proc/out', '--weights', 'a.pth']) == 2
    assert '/proc/out' in capsys.readouterr().err

    def full(file, *content):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('basicsr_ext.evaluation.pictures._write', full)
    assert 'writing failed (No space left on device)' in fails(capsys, '-i', 'in', '--weights', 'a.pth')


@pytest.mark.skipif(os.name != 'posix', reason='needs limits of file sizes')
def test_a_full_disk_leaves_no_part_of_an_image(root, capsys):
    """Files of at most 4 KB: the larger images fail."""
    import resource
    import signal

    save(root / 'a.pth', TINY_EDSR)
    cv2.imwrite('in/aaa.png', np.full((8, 8, 3), 90, np.uint8))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert main(['upscale', '-i', 'in', '-o', 'out', '--weights', 'a.pth']) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert 'writing failed' in capsys.readouterr().err
    assert files('out') == ['aaa.png'] and read('out/aaa.png').shape == (16, 16, 3)


@pytest.mark.skipif(os.name != 'posix', reason='needs limits of file sizes')
def test_a_writer_that_removes_what_it_could_not_write_does_not_hide_a_full_disk(root, capsys, monkeypatch):
    """OpenCV removes the file where libpng fails: one byte then fits."""
    import resource
    import signal

    save(root / 'a.pth', TINY_EDSR)
    monkeypatch.setattr(cv2, 'imwrite', lambda *arguments: False)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        error = fails(capsys, '-i', 'in/coffee.png', '--weights', 'a.pth')
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert 'writing failed' in error and '--ext' not in error


@pytest.mark.skipif(os.name != 'posix', reason='needs named pipes')
def test_a_pipe_is_told(root, capsys):
    os.mkfifo('a.png')
    save(root / 'a.pth', TINY_EDSR)
    error = fails(capsys, '-i', 'a.png', '--weights', 'a.pth')
    assert 'a.png: expected an image or a folder of images, found a pipe or device' in error


def test_small_tiles_take_less_overlap_by_default(root, capsys, monkeypatch):
    """Of 30 x 25 pixels; with 16 of 17 shared, it would be 126 tiles."""
    network = save(root / 'a.pth', TINY_EDSR)
    sizes = []
    monkeypatch.setattr(type(network), 'forward', counted(type(network).forward, sizes))
    run('-i', 'in/coffee.png', '--weights', 'a.pth', '--tile', '17')
    assert len(sizes) == 9 and 'Warning' not in capsys.readouterr().err
    run('-i', 'in/coffee.png', '--weights', 'a.pth', '--tile', '16', '--overwrite')  # no complaint of an overlap of 16
    assert 'Warning' not in capsys.readouterr().err
    run('-i', 'in/coffee.png', '--weights', 'a.pth', '--tile', '17', '--overlap', '14', '--overwrite')
    assert 'Warning: --overlap: tiles of 17 pixels that share 14 go on by 3 or fewer' in capsys.readouterr().err
    assert close(read('out/coffee.png'), forward(network, read('in/coffee.png')))


MEMORY = """
import resource, sys
from basicsr_ext.cli.main import main
for name in sys.argv[1:]:
    arguments = ['-i', f'{name}.png', '-o', 'out', '--weights', 'a.pth', '--tile', '64', '--device', 'cpu']
    assert main(['upscale', *arguments]) == 0
    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_the_memory_of_tiles_is_that_of_the_result(root):
    """In noise, whose file is as large as the image: 10 bytes an output pixel, and what decoding takes."""
    save(root / 'a.pth', TINY_EDSR)
    side, scale, cases = 1000, 2, [(np.uint8, 3), (np.uint16, 3)]  # ascending
    for name, (dtype, channels), size in [('first', cases[0], 130), *((str(n), c, side) for n, c in enumerate(cases))]:
        image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (size, size, channels), dtype, endpoint=True)
        cv2.imwrite(f'{name}.png', image)
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-c', MEMORY, 'first', *map(str, range(len(cases)))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stderr
    before, *peaks = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith('peak')]
    for (dtype, channels), peak in zip(cases, peaks, strict=True):
        decoding = 2.5 * side**2 * channels * np.dtype(dtype).itemsize
        assert peak - before <= 10 * (scale * side) ** 2 + decoding, (dtype, channels)


def test_an_image_that_memory_does_not_suffice_for_is_refused_before_the_first_tile(root, capsys, monkeypatch):
    network = save(root / 'a.pth', TINY_EDSR)
    sizes = []
    monkeypatch.setattr(type(network), 'forward', counted(type(network).forward, sizes))
    monkeypatch.setattr(enlarging, 'available_memory', lambda: 40_000)
    for arguments, advice in ((['--tile', '16'], 'Cut the image into parts'), ([], 'Run it in tiles (--tile 256)')):
        message = fails(capsys, '-i', 'in/coffee.png', '--weights', 'a.pth', *arguments)
        assert (
            'coffee.png: the enlarged image of 30x25 pixels takes at least 0.1 MB of memory, and 0.0 MB are' in message
        )
        assert advice in message
    assert not sizes


@pytest.mark.parametrize('case', ['before', 'windows', 'luminance', 'grey', 'ensemble'])
def test_tiles_of_all_kinds_equal_the_whole(root, photos, case):
    """Whatever is done to an image before and after the network is done tile by tile."""
    network = {'before': {**LUMINANCE, 'in_channels': 3, 'upscale': 1}, 'windows': SWINIR, 'luminance': LUMINANCE}.get(
        case, TINY_EDSR
    )
    save(root / 'a.pth', network, scale=1 if case == 'before' else 2)
    image = photos['coffee'][100:163, 120:191]
    cv2.imwrite('x.png', image if case != 'grey' else image[..., 0])
    arguments = ['-i', 'x.png', '--weights', 'a.pth', *(['-s', '3'] if case == 'before' else [])]
    arguments += ['--self_ensemble'] if case == 'ensemble' else []
    run(*arguments)
    whole = read('out/x.png')
    run(*arguments, '--tile', '40', '--overlap', '24', '--overwrite')
    tiled = read('out/x.png')
    assert tiled.shape == whole.shape == ((189, 213) if case == 'before' else (126, 142)) + whole.shape[2:]
    if case == 'windows':  # attention sees no farther than its windows, whose places are the same
        assert np.abs(tiled.astype(int) - whole).mean() < 1
    else:
        assert close(tiled, whole)


def counted(function, sizes: list):
    """A forward that notes the sizes of what it is given."""

    def noting(self, image):
        sizes.append(tuple(image.shape))
        return function(self, image)

    return noting
