"""LPIPS and DISTS, without downloads."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

import basicsr_ext

basicsr_ext.register()

from basicsr.metrics import calculate_metric

from basicsr_ext.metrics.dists_metric import build_dists
from basicsr_ext.metrics.lpips_metric import build_lpips
from basicsr_ext.metrics.networks import BACKBONES
from basicsr_ext.networks.weights import read_weights


@pytest.fixture
def squeeze(bench_dir):
    """Options of LPIPS with the weights of the bench data."""
    pytest.importorskip('lpips', reason='needs the extra metrics')
    weights = bench_dir / 'weights' / 'lpips'
    return {
        'type': 'LPIPS',
        'net': 'squeeze',
        'backbone_path': str(weights / 'squeeze.backbone.pth'),
        'linear_path': str(weights / 'squeeze.pth'),
        'better': 'lower',
    }


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_, **__):
        raise OSError('no connection')

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('torch.hub._hub_dir', None)
    monkeypatch.setattr('torch.hub.urlopen', refuse)
    monkeypatch.setattr('torchvision.models.VGG.__init__', refuse)  # DISTS makes the whole network first, which is slow


def reference_lpips(image: np.ndarray, gt: np.ndarray, backbone: dict, linear: dict) -> float:
    """Equation 1 of the paper with SqueezeNet 1.1, written out in float64.

    Args:
        image: RGB (height, width, 3) on [-1, 1].
        gt: The same.
        backbone: Weights of SqueezeNet's features.
        linear: Weights of the linear layers.
    """

    def features(x):
        x = torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1)))[None].double()
        shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float32).double().view(1, 3, 1, 1)
        spread = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float32).double().view(1, 3, 1, 1)
        x = (x - shift) / spread

        def convolve(x, name, **options):
            return functional.conv2d(
                x, backbone[f'{name}.weight'].double(), backbone[f'{name}.bias'].double(), **options
            )

        def fire(x, index):
            x = convolve(x, f'{index}.squeeze').relu()
            sides = [
                convolve(x, f'{index}.expand1x1').relu(),
                convolve(x, f'{index}.expand3x3', padding=1).relu(),
            ]
            return torch.cat(sides, 1)

        taken = []
        for block in (('conv',), ('pool', 3, 4), ('pool', 6, 7), ('pool', 9), (10,), (11,), (12,)):
            for layer in block:
                if layer == 'conv':
                    x = convolve(x, '0', stride=2).relu()
                elif layer == 'pool':
                    x = functional.max_pool2d(x, 3, 2, ceil_mode=True)
                else:
                    x = fire(x, layer)
            taken.append(x)
        return [f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in taken]

    layers = zip(features(image), features(gt), strict=True)
    return sum(
        float((linear[f'lin{k}.model.1.weight'].double() * (a - b) ** 2).sum(1).mean())
        for k, (a, b) in enumerate(layers)
    )


def test_lpips_is_the_papers_formula(bench_dir, squeeze):
    folder = bench_dir / 'weights' / 'lpips'
    gt = cv2.imread(str(folder / 'ex_ref.png'))
    backbone, linear = read_weights(squeeze['backbone_path']), read_weights(squeeze['linear_path'])
    for name in ('ex_p0.png', 'ex_p1.png'):
        image = cv2.imread(str(folder / name))
        expected = reference_lpips(*(i[..., ::-1] / 127.5 - 1 for i in (image, gt)), backbone, linear)
        assert calculate_metric({'img': image, 'img2': gt}, squeeze) == pytest.approx(expected, abs=1e-5)
    assert calculate_metric({'img': gt, 'img2': gt}, squeeze) == 0


def test_lpips_has_the_values_of_the_documentation_of_torchmetrics(squeeze):
    generator = torch.Generator().manual_seed(42)
    images, gts = (torch.rand(2, 3, 100, 100, generator=generator) * 255 for _ in range(2))
    values = [
        calculate_metric(
            {'img': a.flip(0).numpy().transpose(1, 2, 0), 'img2': b.flip(0).numpy().transpose(1, 2, 0)}, squeeze
        )
        for a, b in zip(images, gts, strict=True)
    ]
    assert values == pytest.approx([0.1024, 0.0938], abs=5e-5)


def test_the_linear_layers_that_the_package_carries_are_the_same(squeeze, photos):
    image = photos['chelsea'][:64, :64]
    data = {'img': image, 'img2': 255 - image}
    own = calculate_metric(data, squeeze)
    del squeeze['linear_path']
    assert calculate_metric(data, squeeze) == own


def test_linear_layers_of_ones_own(squeeze, photos, tmp_path):
    """The distance is linear in them."""
    image = photos['chelsea'][:64, :64]
    data = {'img': image, 'img2': 255 - image}
    expected = 3 * calculate_metric(data, squeeze)
    torch.save({k: 3 * v for k, v in read_weights(squeeze['linear_path']).items()}, tmp_path / 'linear.pth')
    squeeze['linear_path'] = str(tmp_path / 'linear.pth')
    assert calculate_metric(data, squeeze) == pytest.approx(expected, rel=1e-5)


def test_crop_border_and_grey_images(squeeze, photos):
    image = photos['chelsea'][:80, :90]
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 9, image.shape), 0, 255).astype(np.uint8)
    inner = {key: np.ascontiguousarray(i[8:-8, 8:-8]) for key, i in {'img': noisy, 'img2': image}.items()}
    cropped = calculate_metric({'img': noisy, 'img2': image}, {**squeeze, 'crop_border': 8})
    assert cropped == calculate_metric(inner, squeeze) > 0
    grey = {'img': noisy[..., 0], 'img2': image[..., 0]}
    repeated = {key: np.repeat(i[..., None], 3, axis=2) for key, i in grey.items()}
    assert calculate_metric(grey, squeeze) == calculate_metric(repeated, squeeze)


def test_the_network_is_built_once(squeeze):
    arguments = squeeze['net'], squeeze['backbone_path'], squeeze['linear_path']
    network = build_lpips(*arguments)
    assert build_lpips(*arguments) is network
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_a_whole_network_as_torchvision_saves_it(squeeze, tmp_path):
    """Its classifier is left out, and its features have a prefix."""
    weights = {f'features.{key}': value for key, value in read_weights(squeeze['backbone_path']).items()}
    torch.save({**weights, 'classifier.1.weight': torch.zeros(1000, 512, 1, 1)}, tmp_path / 'squeezenet1_1.pth')
    image = {'img': np.zeros((64, 64, 3), np.uint8), 'img2': np.full((64, 64, 3), 200, np.uint8)}
    expected = calculate_metric(image, squeeze)
    squeeze['backbone_path'] = str(tmp_path / 'squeezenet1_1.pth')
    assert calculate_metric(image, squeeze) == expected


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'net': 'resnet'}, 'net: expected one of alex, vgg, squeeze'),
        ({'backbone_path': '/nonexistent.pth'}, 'expected a file at /nonexistent.pth, found none'),
        ({'net': 'alex'}, 'do not fit alexnet'),
        ({'device': 'cuda:99'}, "device: expected auto, cpu or a CUDA device that is present, found 'cuda:99'"),
    ],
)
def test_wrong_options_of_lpips(squeeze, change, message):
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(basicsr_ext.UserError, match=message):
        calculate_metric({'img': image, 'img2': image}, {**squeeze, **change})


@pytest.mark.parametrize(('metric', 'module'), [('LPIPS', 'lpips'), ('DISTS', 'torchmetrics')])
def test_missing_packages(metric, module, monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, 'meta_path', [_Hiding(module), *sys.meta_path])
    build_lpips.cache_clear()
    build_dists.cache_clear()
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(basicsr_ext.UserError, match=rf'{metric} needs the package {module}: .*basicsr-ext\[metrics\]'):
        calculate_metric({'img': image, 'img2': image}, {'type': metric})


class _Hiding:
    """Makes a package look as if it were not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] == self.package:
            raise ModuleNotFoundError(f"No module named '{name}'", name=self.package)


@pytest.mark.parametrize(('metric', 'file'), [('LPIPS', 'alexnet-owt-7be5be79.pth'), ('DISTS', 'vgg16-397923af.pth')])
def test_weights_that_cannot_be_downloaded(metric, file, no_network):
    pytest.importorskip('torchmetrics' if metric == 'DISTS' else 'lpips', reason='needs the extra metrics')
    image = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(basicsr_ext.UserError, match=f'{metric}: its weights, {file}, are not .* in backbone_path'):
        calculate_metric({'img': image, 'img2': image}, {'type': metric})


# The layers whose output is compared, and torchvision's name of the network.
TAPS = {'alex': ([1, 4, 7, 9, 11], 'alexnet'), 'vgg': ([3, 8, 15, 22, 29], 'vgg16')}


@pytest.fixture
def features_of(tmp_path, monkeypatch):
    """Gives a backbone's features of random weights; torchvision finds these where it keeps what it has downloaded."""
    import torchvision

    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    monkeypatch.setattr('torch.hub._hub_dir', None)
    monkeypatch.setattr('torch.nn.Linear.reset_parameters', lambda _: None)  # most weights, soon replaced
    build_lpips.cache_clear()
    build_dists.cache_clear()

    def make(net: str) -> torch.nn.Sequential:
        with torch.device('meta'):
            network = getattr(torchvision.models, TAPS[net][1])()
        generator = torch.Generator().manual_seed(0)
        state = {
            key: torch.randn(value.shape, generator=generator) * (2 / max(1, value[0].numel())) ** 0.5
            if key.startswith('features.')
            else torch.zeros(1).expand(value.shape)  # one number in the file
            for key, value in network.state_dict().items()
        }
        (tmp_path / 'hub/checkpoints').mkdir(parents=True)
        torch.save(state, tmp_path / 'hub/checkpoints' / BACKBONES[net])
        network.load_state_dict(state, assign=True)
        torch.save(network.features.state_dict(), tmp_path / 'features.pth')
        return network.features

    yield make
    build_lpips.cache_clear()
    build_dists.cache_clear()


@pytest.mark.parametrize('net', ['alex', 'vgg'])
def test_lpips_of_other_backbones(net, features_of, photos, tmp_path):
    """Equation 1 of the paper, with the weights where torchvision keeps them, or in a file."""
    lpips = pytest.importorskip('lpips', reason='needs the extra metrics')
    layers = features_of(net).double()
    file = Path(lpips.__file__).with_name('weights') / f'v0.1/{net}.pth'
    linear = {key.removeprefix('lin')[0]: value.double() for key, value in read_weights(file).items()}
    gt = np.ascontiguousarray(photos['astronaut'][:64, 100:170, ::-1])
    image = np.clip(gt + np.random.default_rng(0).normal(0, 20, gt.shape), 0, 255).astype(np.uint8)

    def features(bgr):
        shift, spread = (torch.tensor(values) for values in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450]))
        x = torch.from_numpy(bgr[..., ::-1] / 127.5 - 1).sub(shift).div(spread).permute(2, 0, 1)[None]
        taken = []
        for number, layer in enumerate(layers):
            x = layer(x)
            taken += [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)] if number in TAPS[net][0] else []
        return taken

    with torch.no_grad():
        pairs = zip(linear.values(), features(image), features(gt), strict=True)
        expected = sum(float((weight * (a - b) ** 2).sum(1).mean()) for weight, a, b in pairs)
    options = {'type': 'LPIPS', 'net': net, 'device': 'cpu'}
    found = calculate_metric({'img': image, 'img2': gt}, options)
    assert found == pytest.approx(expected, rel=1e-4) and expected > 1e-3
    assert (
        calculate_metric({'img': image, 'img2': gt}, {**options, 'backbone_path': f'{tmp_path}/features.pth'}) == found
    )


def test_dists_of_weights_where_torchvision_keeps_them(features_of, photos, tmp_path):
    pytest.importorskip('torchmetrics', reason='needs the extra metrics')
    features_of('vgg')
    gt = np.ascontiguousarray(photos['astronaut'][:64, 100:170, ::-1])
    options = {'type': 'DISTS', 'device': 'cpu'}
    found = calculate_metric({'img': 255 - gt, 'img2': gt}, options)
    assert found > 1e-3
    options['backbone_path'] = f'{tmp_path}/features.pth'
    assert calculate_metric({'img': 255 - gt, 'img2': gt}, options) == found


def test_the_names_of_files_are_torchvisions():
    from torchvision.models import AlexNet_Weights, SqueezeNet1_1_Weights, VGG16_Weights

    for net, weights in {'alex': AlexNet_Weights, 'vgg': VGG16_Weights, 'squeeze': SqueezeNet1_1_Weights}.items():
        assert weights.DEFAULT.url.rpartition('/')[2] == BACKBONES[net]


def test_dists(tmp_path, photos):
    """With a backbone of random weights: 0 for equal images, more the more noise; the library's own number."""
    library = pytest.importorskip('torchmetrics.functional.image.dists', reason='needs the extra metrics')
    from torchvision.models import vgg16

    with torch.device('meta'):
        features = vgg16().features
    generator = torch.Generator().manual_seed(0)
    weights = {
        key: torch.randn(value.shape, generator=generator) * (2 / max(1, value[0].numel())) ** 0.5
        for key, value in features.state_dict().items()
    }
    torch.save(weights, tmp_path / 'vgg16.pth')
    options = {'type': 'DISTS', 'backbone_path': str(tmp_path / 'vgg16.pth')}
    gt = np.ascontiguousarray(photos['astronaut'][:64, 100:164])
    noise = np.random.default_rng(0).normal(0, 1, gt.shape)
    images = [np.clip(gt + level * noise, 0, 255).astype(np.uint8) for level in (0, 10, 40)]
    values = [calculate_metric({'img': image, 'img2': gt}, options) for image in images]
    assert values[0] == pytest.approx(0, abs=1e-5)
    assert 1e-4 < values[1] < values[2]

    network = build_dists(options['backbone_path'])
    assert isinstance(network, library.DISTSNetwork) and build_dists(options['backbone_path']) is network
    assert torch.equal(dict(network.named_parameters())['stage3.10.weight'], weights['10.weight'])
    tensors = [torch.from_numpy(i[..., ::-1].copy()).permute(2, 0, 1)[None] / 255 for i in (images[2], gt)]
    assert values[2] == pytest.approx(float(network(*tensors)), abs=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_the_gpu_measures_the_same(squeeze, photos):
    gt = np.ascontiguousarray(photos['astronaut'][:64, 100:170, ::-1])
    values = [calculate_metric({'img': 255 - gt, 'img2': gt}, {**squeeze, 'device': name}) for name in ('cpu', 'cuda')]
    assert values[1] == pytest.approx(values[0], rel=1e-3)
