"""Networks against the same equations written with torch's functions, their sizes, starts, and bad options."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import distributed
from torch.nn import functional

from basicsr_ext.archs.drrn_arch import DRRN
from basicsr_ext.archs.fsrcnn_arch import FSRCNN
from basicsr_ext.archs.lapsrn_arch import LapSRN
from basicsr_ext.archs.registry import ARCH_REGISTRY
from basicsr_ext.archs.srcnn_arch import SRCNN
from basicsr_ext.archs.vdsr_arch import VDSR
from basicsr_ext.errors import UserError
from basicsr_ext.functional.resize import upsample

TINY = {
    VDSR: {'num_feat': 5, 'num_conv': 4, 'bias': True},
    DRRN: {'num_feat': 5, 'num_block': 2, 'num_unit': 3, 'bias': True},
    SRCNN: {'num_feat': 6, 'num_mapping_feat': 4, 'kernel_sizes': [9, 3, 5]},
    FSRCNN: {'num_feat': 6, 'num_shrink_feat': 4, 'num_mapping': 2},
    LapSRN: {'num_feat': 5, 'num_conv': 2, 'bias': True},
}
NETWORKS = pytest.mark.parametrize('network', TINY, ids=lambda network: network.__name__)


def tiny(network, seed: int = 0, **options) -> torch.nn.Module:
    """A small network; weights are drawn anew, since some of the published starts are too near to zero to test with."""
    torch.manual_seed(seed)
    built = network(**{**TINY[network], **options})
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.normal_(std=0.2)
    return built


def images(channels: int, *size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(size[0], channels, *size[1:], generator=torch.Generator().manual_seed(7)).to(dtype)


def enlarged(x: torch.Tensor, factor: int) -> torch.Tensor:
    """The exact bicubic enlargement by the form for arrays."""
    arrays = [upsample(image.permute(1, 2, 0).numpy(), factor) for image in x]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def convolve(x: torch.Tensor, state: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """A convolution that pads by zeros to keep the size, as a matrix product of patches."""
    weight, bias = state[f'{name}.weight'], state.get(f'{name}.bias')
    outputs, _, side, _ = weight.shape
    patches = functional.unfold(x, side, padding=side // 2)
    products = (weight.reshape(outputs, -1) @ patches).reshape(len(x), outputs, *x.shape[-2:])
    return products if bias is None else products + bias[:, None, None]


def scatter(
    x: torch.Tensor, state: dict[str, torch.Tensor], name: str, stride: int, crop_first: int, size: tuple[int, int]
) -> torch.Tensor:
    """A transposed convolution: every pixel adds its kernel to the output, which is then cropped."""
    weight, bias = state[f'{name}.weight'], state.get(f'{name}.bias')
    side, (height, width) = weight.shape[-1], x.shape[-2:]
    output = torch.zeros(len(x), weight.shape[1], stride * height + side, stride * width + side, dtype=x.dtype)
    for i in range(height):
        for j in range(width):
            kernels = torch.einsum('nc,cohw->nohw', x[:, :, i, j], weight)
            output[..., stride * i : stride * i + side, stride * j : stride * j + side] += kernels
    output = output[..., crop_first : crop_first + size[0], crop_first : crop_first + size[1]]
    return output if bias is None else output + bias[:, None, None]


def vdsr(x, state, upscale):
    image = enlarged(x, upscale)
    features = convolve(image, state, 'conv_first').clamp(min=0)
    for k in range(2):
        features = convolve(features, state, f'body.{k}').clamp(min=0)
    return image + convolve(features, state, 'conv_last')


def drrn(x, state, upscale):
    image = features = enlarged(x, upscale)
    for k in range(2):
        start = features = convolve(features.clamp(min=0), state, f'blocks.{k}.conv_first')
        for _ in range(3):
            hidden = convolve(features.clamp(min=0), state, f'blocks.{k}.conv1').clamp(min=0)
            features = convolve(hidden, state, f'blocks.{k}.conv2') + start
    return image + convolve(features.clamp(min=0), state, 'conv_last')


def srcnn(x, state, upscale):
    features = convolve(enlarged(x, upscale), state, 'conv1').clamp(min=0)
    return convolve(convolve(features, state, 'conv2').clamp(min=0), state, 'conv3')


def fsrcnn(x, state, upscale):
    features = x
    for name in ('feature_extraction', 'shrinking', 'mapping.0', 'mapping.1', 'expanding'):
        features = convolve(features, state, f'{name}.0')
        slopes = state[f'{name}.1.weight'][:, None, None]
        features = torch.where(features > 0, features, slopes * features)
    size = (upscale * x.shape[-2], upscale * x.shape[-1])
    return scatter(features, state, 'deconvolution', upscale, 4, size)


def lapsrn(x, state, upscale):
    def leaky(values):
        return torch.where(values > 0, values, 0.2 * values)

    image, features = x, leaky(convolve(x, state, 'conv_first'))
    for k in range(round(math.log2(upscale))):
        size = (2 * image.shape[-2], 2 * image.shape[-1])
        for layer in (0, 2):
            features = leaky(convolve(features, state, f'levels.{k}.features.{layer}'))
        features = leaky(scatter(features, state, f'levels.{k}.features.4', 2, 1, size))
        image = scatter(image, state, f'levels.{k}.up_image', 2, 1, size)
        image = image + convolve(features, state, f'levels.{k}.conv_residual')
    return image


EQUATIONS = {VDSR: vdsr, DRRN: drrn, SRCNN: srcnn, FSRCNN: fsrcnn, LapSRN: lapsrn}


@NETWORKS
@pytest.mark.parametrize(('channels', 'upscale'), [(1, 2), (3, 4), (1, 8)])
def test_forward_follows_the_equations(network, channels, upscale):
    built = tiny(network, in_channels=channels, upscale=upscale).double()
    x = images(channels, 2, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        expected = EQUATIONS[network](x, built.state_dict(), upscale)
        found = built(x)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_kernels_of_three_double_the_features_as_kernels_of_four_do():
    built = tiny(LapSRN, upscale=2, up_kernel_size=3).double()
    x = images(1, 2, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(built(x), lapsrn(x, built.state_dict(), 2), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('network', [VDSR, DRRN, SRCNN], ids=lambda network: network.__name__)
def test_upscale_1_takes_images_that_are_enlarged_already(network):
    """The same weights, once with the enlargement inside, once without."""
    inside, outside = tiny(network, upscale=3), tiny(network, upscale=1)
    outside.load_state_dict(inside.state_dict())
    x = images(1, 1, 9, 6)
    torch.testing.assert_close(inside(x), outside(upsample(x, 3)))


@NETWORKS
@pytest.mark.parametrize('upscale', [2, 4])
def test_any_size_and_batch(network, upscale):
    built = tiny(network, upscale=upscale).eval()
    for size in [(1, 1, 1), (3, 11, 8), (2, 16, 13)]:
        x = images(1, *size)
        with torch.no_grad():
            y = built(x)
            assert y.shape == (size[0], 1, upscale * size[1], upscale * size[2])
            torch.testing.assert_close(y[:1], built(x[:1]))  # images of a batch do not meet


@NETWORKS
def test_every_parameter_and_the_input_get_gradients(network):
    built = tiny(network, upscale=4)
    x = images(1, 2, 6, 5).requires_grad_()
    built(x).square().mean().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert x.grad.abs().min() > 0


@NETWORKS
def test_gradients_are_those_of_the_forward(network):
    built = tiny(network, upscale=2).double()
    x = images(1, 1, 4, 3, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(built, (x,), eps=1e-7, atol=1e-5, fast_mode=True)


@NETWORKS
def test_half_precision(network):
    built = tiny(network, upscale=2)
    x = images(1, 2, 9, 12)
    exact = built(x)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = built(x)
    y.float().square().mean().backward()
    assert (y.float() - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(parameter.grad.isfinite().all() for parameter in built.parameters())
    if network in (VDSR, DRRN):
        assert y.dtype == torch.float32  # the image itself keeps its precision; only the residual is half
    half = built.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize('upscale', [2, 4, 8])
def test_levels_on_request(upscale):
    built = tiny(LapSRN, upscale=upscale)
    x = images(1, 2, 5, 3)
    levels = built(x, return_levels=True)
    assert [level.shape[-1] // 3 for level in levels] == [2, 4, 8][: len(levels)]
    assert torch.equal(levels[-1], built(x))
    single = tiny(LapSRN, upscale=2)
    single.load_state_dict(built.state_dict(), strict=False)
    torch.testing.assert_close(levels[0], single(x))


def test_shared_levels_have_the_same_weights():
    """A pyramid whose levels share weights equals one whose levels have been given the same ones."""
    shared, own = tiny(LapSRN, upscale=4, share_levels=True), tiny(LapSRN, upscale=4)
    state = shared.state_dict()
    doubled = state | {key.replace('levels.0', 'levels.1'): value for key, value in state.items()}
    own.load_state_dict(doubled)
    x = images(1, 1, 5, 4)
    torch.testing.assert_close(shared(x), own(x))
    assert len(own.state_dict()) > len(state)


def test_units_share_their_weights():
    """U counts how often the two convolutions are used: the same weights serve any U, and its value matters."""
    few, many = tiny(DRRN, upscale=2, num_unit=1), tiny(DRRN, upscale=2, num_unit=4)
    many.load_state_dict(few.state_dict())
    x = images(1, 1, 6, 6)
    assert (few(x) - many(x)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ('network', 'options', 'weights', 'all_parameters'),
    [
        (VDSR, {}, 664_704, 664_704),
        (VDSR, {'num_feat': 13}, 27_612, 27_612),
        (VDSR, {'num_feat': 16}, 41_760, 41_760),
        (VDSR, {'num_feat': 22}, 78_804, 78_804),
        (VDSR, {'num_feat': 32}, 166_464, 166_464),
        (VDSR, {'bias': True}, 664_704, 665_921),
        (DRRN, {}, 297_216, 297_216),
        (DRRN, {'num_feat': 25}, 11_700, 11_700),
        (SRCNN, {}, 57_184, 57_281),
        (SRCNN, {'kernel_sizes': [9, 1, 5]}, 8_032, 8_129),
        (FSRCNN, {}, 12_464, 12_809),
        (LapSRN, {'up_kernel_size': 3}, 812_768, 812_768),
        (LapSRN, {'up_kernel_size': 3, 'share_levels': True}, 406_672, 406_672),
        (LapSRN, {}, 870_112, 870_112),
    ],
)
def test_published_sizes(network, options, weights, all_parameters):
    """AIL Tab. 3, and the papers of the networks; weights are what convolutions multiply by."""
    built = network(**options)
    assert sum(p.numel() for p in built.parameters() if p.ndim == 4) == weights
    assert sum(p.numel() for p in built.parameters()) == all_parameters


@pytest.mark.parametrize(
    ('network', 'name', 'deviation'),
    [
        (VDSR, 'body.3.weight', math.sqrt(2 / 576)),
        (VDSR, 'conv_first.weight', math.sqrt(2 / 576)),  # n = 9 times the output channels
        (VDSR, 'conv_last.weight', math.sqrt(2 / 9)),
        (DRRN, 'blocks.0.conv2.weight', math.sqrt(2 / 1152)),
        (LapSRN, 'levels.1.features.6.weight', math.sqrt(2 / 576)),
        (SRCNN, 'conv2.weight', 0.001),
        (FSRCNN, 'deconvolution.weight', 0.001),
    ],
)
def test_weights_start_with_the_published_deviation(network, name, deviation):
    torch.manual_seed(0)
    weight = network(upscale=4).state_dict()[name]
    error = 4 / math.sqrt(2 * weight.numel())  # four standard errors of a standard deviation
    assert weight.std().item() == pytest.approx(deviation, rel=error)
    assert abs(weight.mean().item()) < 4 * deviation / math.sqrt(weight.numel())


@pytest.mark.parametrize('network', [VDSR, DRRN, LapSRN], ids=lambda network: network.__name__)
def test_initialisations_of_he(network):
    """First and last convolution tell both forms apart: 9 pixels times 1 channel, and times 40."""
    for init, first, last in (('fan_in', 9, 360), ('fan_out', 360, 9)):
        torch.manual_seed(0)
        options = {key: value for key, value in TINY[network].items() if key != 'num_block'}
        state = network(**{**options, 'num_feat': 40}, init=init).state_dict()
        names = {name.rsplit('.', 1)[0] for name in state}
        ends = (
            [name for name in names if name.endswith('conv_first')],
            [name for name in names if name.endswith(('conv_last', 'conv_residual'))],
        )
        for found, inputs in zip(ends, (first, last), strict=True):
            assert found
            for name in found:
                weight = state[f'{name}.weight']
                expected = math.sqrt(2 / inputs)
                assert weight.std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * weight.numel())), (
                    init,
                    name,
                )


@pytest.mark.parametrize('network', [VDSR, DRRN, LapSRN, SRCNN], ids=lambda network: network.__name__)
def test_pytorchs_own_initialisation(network):
    """Every weight and bias is uniform within one over the root of its inputs, as ``torch.nn`` draws them."""
    torch.manual_seed(0)
    built = network(**TINY[network], init='default')
    convolutions = [
        module for module in built.modules() if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    for convolution in convolutions:
        bound = 1 / math.sqrt(convolution.weight[0].numel())
        for values in filter(lambda values: values is not None, (convolution.weight, convolution.bias)):
            assert 0 < values.abs().max() <= bound
        assert convolution.weight.abs().max() > 0.8 * bound or convolution.weight.numel() < 50
    with pytest.raises(UserError, match=r"init.*: expected .*default, found 'he'"):
        network(init='he')


@pytest.mark.parametrize('network', [VDSR, SRCNN], ids=lambda network: network.__name__)
def test_range_and_mean(network):
    """The published form: a network with biases on images in [0, 255], less their mean."""
    mean = [0.4488, 0.4371, 0.4040]
    shifted = tiny(network, in_channels=3, upscale=1, img_range=255.0, rgb_mean=mean).double()
    plain = tiny(network, in_channels=3, upscale=1).double()
    assert shifted.state_dict().keys() == plain.state_dict().keys()
    x = images(3, 2, 9, 8, dtype=torch.float64)
    shift = 255 * torch.tensor(mean, dtype=torch.float32).double().view(1, 3, 1, 1)
    expected = (plain(255 * x - shift) + shift) / 255
    torch.testing.assert_close(shifted(x), expected, rtol=1e-6, atol=1e-6)
    assert (shifted(x) - plain(x)).abs().max() > 1e-3
    for options, message in (({'img_range': 0}, 'img_range'), ({'rgb_mean': [0.5]}, 'rgb_mean: expected 3 numbers')):
        with pytest.raises(UserError, match=message):
            network(in_channels=3, **options)


def test_a_rectified_start_is_that_of_a_rectifier_in_place():
    """PSPL's code rectifies what the units start from in place, so that it is added rectified as well."""
    built = tiny(DRRN, upscale=1, num_block=1, num_unit=3, rectify_start=True).double()
    block = built.blocks[0]
    x = images(1, 2, 7, 6, dtype=torch.float64)
    start = out = block.conv_first(torch.relu(x))
    for _ in range(3):
        out = block.conv2(torch.relu(block.conv1(out.detach().relu_())))
        out += start
    with torch.no_grad():
        torch.testing.assert_close(built(x), x + built.conv_last(torch.relu(out)))
    plain = tiny(DRRN, upscale=1, num_block=1, num_unit=3).double()
    assert (built(x) - plain(x)).abs().max() > 1e-3


def test_fsrcnn_starts_for_its_prelu():
    """He et al. 2015, Eq. 15, with the slope that PReLU starts from."""
    torch.manual_seed(0)
    built = FSRCNN(num_feat=4000)  # wide enough to tell the deviation from ReLU's, 3% larger
    assert built.feature_extraction[0].weight.std().item() == pytest.approx(math.sqrt(2 / (1.0625 * 25)), rel=0.01)
    slopes = [value for name, value in built.state_dict().items() if name.endswith('1.weight')]
    assert len(slopes) == 7 and all((slope == 0.25).all() for slope in slopes)


@NETWORKS
def test_biases_start_at_zero(network):
    built = network(bias=True)
    biases = [value for name, value in built.state_dict().items() if name.endswith('bias')]
    assert biases and not any(bias.any() for bias in biases)
    assert not any(name.endswith('bias') for name in network(bias=False).state_dict())


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('side', [3, 4])
def test_lapsrn_starts_from_bilinear_interpolation(channels, side):
    torch.manual_seed(0)
    built = LapSRN(in_channels=channels, num_feat=4, upscale=4, up_kernel_size=side)
    for level in built.levels:
        torch.nn.init.zeros_(level.conv_residual.weight)
    x = images(channels, 1, 8, 9)
    expected = functional.interpolate(x, scale_factor=2, mode='bilinear', align_corners=False)
    expected = functional.interpolate(expected, scale_factor=2, mode='bilinear', align_corners=False)
    torch.testing.assert_close(built(x)[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8])
    ramp = torch.arange(10.0).expand(1, 4, 10, 10)
    steps = built.levels[0].features[-2](ramp)[0, :, 5, 4:-4].diff()
    torch.testing.assert_close(steps, torch.full_like(steps, 0.5))  # each feature of its own


@NETWORKS
@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'in_channels': 0}, 'in_channels of .*: expected an integer of at least 1, found 0'),
        ({'num_feat': 6.5}, 'num_feat of .*: expected an integer of at least 1, found 6.5'),
        ({'upscale': 0}, 'upscale of .*: expected .*, found 0'),
    ],
)
def test_bad_options(network, options, message):
    with pytest.raises(UserError, match=message):
        network(**options)


@pytest.mark.parametrize(
    ('network', 'options', 'message'),
    [
        (VDSR, {'num_conv': 1}, 'num_conv of VDSR: expected an integer of at least 2, found 1'),
        (DRRN, {'num_unit': True}, 'num_unit of DRRN: expected an integer of at least 1, found True'),
        (SRCNN, {'kernel_sizes': [9, 2, 5]}, 'kernel_sizes of SRCNN: expected three odd integers, found'),
        (SRCNN, {'kernel_sizes': [9, 5]}, 'kernel_sizes of SRCNN: expected three odd integers, found'),
        (FSRCNN, {'upscale': 10}, 'upscale of FSRCNN: expected at most 9, found 10'),
        (LapSRN, {'upscale': 3}, 'upscale of LapSRN: expected 2, 4 or 8, found 3'),
        (LapSRN, {'up_kernel_size': 5}, 'up_kernel_size of LapSRN: expected 3 or 4, found 5'),
    ],
)
def test_bad_options_of_one_network(network, options, message):
    with pytest.raises(UserError, match=message):
        network(**options)


def test_option_files_find_the_networks():
    from basicsr.archs import build_network

    for network in TINY:
        assert ARCH_REGISTRY.get(network.__name__) is network
        options = {'type': network.__name__, 'in_channels': 3, 'upscale': 2, **TINY[network]}
        assert isinstance(build_network(options), network)


def test_compiled_forward_is_the_same():
    """The matrices of the enlargement stay out of the graph, and remembered."""
    built = tiny(VDSR, upscale=2)
    compiled = torch.compile(built, backend='aot_eager')
    x = images(1, 1, 6, 7)
    y = compiled(x)
    torch.testing.assert_close(y, built(x))
    y.sum().backward()
    assert built.conv_first.weight.grad.abs().max() > 0


@NETWORKS
def test_ranks_train_every_parameter(network):
    """Inside ``DistributedDataParallel``, which stops at the second forward where a parameter went unused."""
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    try:
        bare = tiny(network, upscale=4)
        wrapped = torch.nn.parallel.DistributedDataParallel(bare)
        for _ in range(2):
            y = wrapped(images(1, 2, 5, 6))
            y.mean().backward()
        torch.testing.assert_close(y, bare(images(1, 2, 5, 6)))
    finally:
        distributed.destroy_process_group()
