"""MATLAB's bicubic against a slow restatement in rational arithmetic, and what callers may rely on."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from basicsr_ext.functional import resize
from basicsr_ext.functional.resize import downsample, imresize, mod_crop, upsample

HALF = Fraction(1, 2)


def rational_kernel(distance: Fraction) -> Fraction:
    x = abs(distance)
    if x <= 1:
        return (3 * x**3 - 5 * x**2 + 2) / 2
    return (-(x**3) + 5 * x**2 - 8 * x + 4) / 2 if x < 2 else Fraction(0)


def rational_line(line: list, scale: Fraction, antialiasing: bool) -> list:
    """Resizes one line of numbers, pixel by pixel and without rounding."""
    stretch = max(1 / scale, Fraction(1)) if antialiasing else Fraction(1)
    resized = []
    for output in range(math.ceil(len(line) * scale)):
        centre = (output + HALF) / scale - HALF
        total = norm = Fraction(0)
        for position in range(math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch) + 1):
            weight = rational_kernel((centre - position) / stretch)
            inside = position
            while not 0 <= inside < len(line):  # reflect about the edge between the border pixel and its image
                inside = -1 - inside if inside < 0 else 2 * len(line) - 1 - inside
            total += weight * line[inside]
            norm += weight
        resized.append(total / norm)
    return resized


def rational_imresize(image: np.ndarray, scale: Fraction, antialiasing: bool = True) -> np.ndarray:
    """MATLAB's imresize of a plane (height, width): columns, then rows; integer types are rounded after each."""

    def finish(value: Fraction) -> Fraction:
        if image.dtype.kind == 'f':
            return value
        return Fraction(min(max(math.floor(value + HALF), 0), np.iinfo(image.dtype).max))

    rows = [[Fraction(pixel.item()) for pixel in row] for row in image]
    for _ in ('height', 'width'):
        lines = [
            [finish(value) for value in rational_line(list(line), scale, antialiasing)]
            for line in zip(*rows, strict=True)
        ]
        rows = lines  # lines are columns of the image: each pass transposes
    return np.array([[float(value) for value in row] for row in rows]).astype(image.dtype)


def random_image(shape: tuple[int, ...], dtype: type = np.float64, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    if np.dtype(dtype).kind == 'u':
        return generator.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    return generator.standard_normal(shape).astype(dtype)


SCALES = [Fraction(1, 2), Fraction(1, 3), Fraction(1, 4), Fraction(3, 4), Fraction(2), Fraction(3), Fraction(5, 2)]


@pytest.mark.parametrize('antialiasing', [True, False])
@pytest.mark.parametrize('scale', [*SCALES, Fraction(0.37), Fraction(1.3)])
def test_float64_equals_rational_arithmetic(scale, antialiasing):
    image = random_image((11, 14))
    expected = rational_imresize(image, scale, antialiasing)
    np.testing.assert_allclose(imresize(image, float(scale), antialiasing=antialiasing), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16])
@pytest.mark.parametrize('scale', SCALES)
def test_integers_equal_rational_arithmetic_rounded_between_passes(scale, dtype):
    image = random_image((9, 10), dtype)
    image[:5] = np.where(image[:5] > np.iinfo(dtype).max // 2, np.iinfo(dtype).max, 0)  # overshoots on both sides
    resized = imresize(image, scale)
    assert resized.dtype == dtype
    np.testing.assert_array_equal(resized, rational_imresize(image, scale))


def test_rounding_between_passes_is_what_integers_add():
    image = random_image((32, 32), np.uint8)
    unrounded = np.clip(np.floor(imresize(image.astype(np.float64), 0.5) + 0.5), 0, 255)
    assert 0 < np.abs(imresize(image, 0.5) - unrounded).max() <= 2


def test_lines_longer_than_one_block():
    image = random_image((1, 3 * resize.OUTPUTS_PER_BLOCK))
    for scale in (Fraction(1, 2), Fraction(3, 2)):
        np.testing.assert_allclose(imresize(image, scale), rational_imresize(image, scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize('shape', [(1, 1), (1, 2), (2, 3), (3, 1)])
@pytest.mark.parametrize('scale', [Fraction(1, 4), Fraction(1, 3), Fraction(4)])
def test_images_smaller_than_the_kernel_reflect_repeatedly(shape, scale):
    image = random_image(shape)
    np.testing.assert_allclose(imresize(image, scale), rational_imresize(image, scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ('size', 'scale', 'expected'),
    [
        ((255, 7), 1 / 3, (85, 3)),
        ((5, 9), 0.5, (3, 5)),
        ((49, 98), 1 / 49, (1, 2)),
        ((30, 31), 0.1, (3, 4)),
        ((25, 100), 1.1, (28, 110)),  # 100 * 1.1 is 110.00000000000001 in floating point
        ((5, 7), 3, (15, 21)),
        ((10, 11), Fraction(2, 5), (4, 5)),
        ((3, 2), 1e-3, (1, 1)),
    ],
)
def test_output_size_is_the_rounded_up_product(size, scale, expected):
    assert imresize(np.zeros(size), scale).shape == expected
    assert imresize(torch.zeros(2, 1, *size), scale).shape == (2, 1, *expected)


def test_scale_one_changes_nothing():
    image = random_image((7, 9, 3))
    np.testing.assert_array_equal(imresize(image, 1), image)


@pytest.mark.parametrize('scale', SCALES)
def test_constants_are_preserved(scale):
    np.testing.assert_allclose(imresize(np.full((13, 10), 3.7), scale), 3.7, rtol=1e-14)
    for level in (0, 1, 127, 255):
        assert (imresize(np.full((13, 10, 3), level, np.uint8), scale) == level).all()


def test_floats_are_resized_linearly_and_never_clipped():
    first, second = random_image((16, 12), seed=1), random_image((16, 12), seed=2)
    together = imresize(300 * first - 2 * second, 0.25)
    np.testing.assert_allclose(together, 300 * imresize(first, 0.25) - 2 * imresize(second, 0.25), rtol=0, atol=1e-11)
    step = np.zeros((8, 8))
    step[:, 4:] = 1.0
    assert imresize(step, 2).max() > 1.0
    assert imresize(step, 2).min() < 0.0


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32, np.float64])
@pytest.mark.parametrize('scale', [1 / 3, 2])
def test_arrays_and_tensors_agree(dtype, scale):
    image = random_image((23, 40, 3), dtype)
    from_tensor = imresize(torch.from_numpy(image).permute(2, 0, 1), scale)
    assert from_tensor.dtype == torch.from_numpy(image).dtype
    tolerance = {'float32': 1e-5, 'float64': 1e-12}.get(np.dtype(dtype).name, 0)
    np.testing.assert_allclose(from_tensor.permute(1, 2, 0).numpy(), imresize(image, scale), rtol=0, atol=tolerance)


def test_channels_and_leading_dimensions_are_independent():
    batch = torch.from_numpy(random_image((2, 3, 4, 9, 10)))
    resized = imresize(batch, 0.5)
    assert resized.shape == (2, 3, 4, 5, 5)
    torch.testing.assert_close(resized[1, 2, 3], imresize(batch[1, 2, 3], 0.5), rtol=0, atol=1e-14)
    image = random_image((9, 10, 5))
    np.testing.assert_allclose(imresize(image, 0.5)[..., 4], imresize(image[..., 4], 0.5), rtol=0, atol=1e-14)
    assert imresize(image, 0.5).flags.c_contiguous


def test_memory_layout_does_not_matter():
    image = random_image((20, 30, 3), np.uint8)
    flipped = image[::-1, ::-1]
    np.testing.assert_array_equal(imresize(flipped, 0.5), imresize(flipped.copy(), 0.5))
    read_only = image.copy()
    read_only.flags.writeable = False
    np.testing.assert_array_equal(imresize(read_only, 0.5), imresize(image, 0.5))
    tensor = torch.from_numpy(random_image((2, 3, 20, 30)))
    torch.testing.assert_close(
        imresize(tensor.to(memory_format=torch.channels_last), 0.5), imresize(tensor, 0.5), rtol=0, atol=1e-14
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    image = torch.rand(3, 24, 24, generator=torch.manual_seed(0)).to(dtype)
    resized = imresize(image, 0.25)
    assert resized.dtype == dtype
    torch.testing.assert_close(resized, imresize(image.float(), 0.25).to(dtype), rtol=0, atol=0)


def test_numpy_half_precision():
    image = random_image((12, 12), np.float16)
    resized = imresize(image, 0.5)
    assert resized.dtype == np.float16
    np.testing.assert_allclose(resized, imresize(image.astype(np.float64), 0.5), rtol=0, atol=2e-3)


def test_float32_is_close_to_float64():
    image = random_image((64, 48), np.float32)
    assert imresize(image, 0.25).dtype == np.float32
    np.testing.assert_allclose(imresize(image, 0.25), imresize(image.astype(np.float64), 0.25), rtol=0, atol=2e-6)


def test_autocast_does_not_lower_the_precision():
    image = torch.rand(1, 3, 16, 16, generator=torch.manual_seed(0))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        inside = imresize(image, 0.5)
    torch.testing.assert_close(inside, imresize(image, 0.5), rtol=0, atol=0)


@pytest.mark.parametrize('scale', [0.5, 1 / 3, 2])
def test_gradient(scale):
    image = torch.from_numpy(random_image((2, 6, 7))).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: imresize(x, scale), image)


def test_gradient_after_weights_were_cached_in_inference_mode():
    resize._blocks.cache_clear()
    image = torch.rand(1, 10, 10)
    with torch.inference_mode():
        imresize(image, 0.5)
    image.requires_grad_()
    imresize(image, 0.5).sum().backward()
    # Weights sum to one for each of the 25 outputs, so the gradient sums to 25.
    torch.testing.assert_close(image.grad.sum(), torch.tensor(25.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_device_equals_cpu():
    image = torch.from_numpy(random_image((3, 96, 80), np.uint8))
    for scale in (1 / 2, 1 / 3, 1 / 4, 3):
        assert torch.equal(imresize(image.cuda(), scale).cpu(), imresize(image, scale))
        on_device = imresize(image.double().cuda(), scale).cpu()
        torch.testing.assert_close(on_device, imresize(image.double(), scale), rtol=0, atol=1e-10)


def test_downsample_and_upsample_by_integer_factors():
    image = random_image((12, 24, 3), np.uint8)
    np.testing.assert_array_equal(downsample(image, 3), imresize(image, 1 / 3))
    np.testing.assert_array_equal(upsample(image, 3), imresize(image, 3.0))
    tensor = torch.rand(2, 3, 12, 24)
    assert torch.equal(downsample(tensor, 4), imresize(tensor, 0.25))
    assert upsample(tensor, 4).shape == (2, 3, 48, 96)


def test_downsample_refuses_sizes_that_are_no_multiples():
    with pytest.raises(ValueError, match=r'multiples of 4, found 12x22; crop with mod_crop'):
        downsample(np.zeros((12, 22, 3)), 4)
    with pytest.raises(ValueError, match='multiples of 4, found 22x12'):
        downsample(torch.zeros(3, 22, 12), 4)


def test_mod_crop_takes_from_bottom_and_right():
    image = random_image((11, 14, 3), np.uint8)
    np.testing.assert_array_equal(mod_crop(image, 4), image[:8, :12])
    np.testing.assert_array_equal(mod_crop(image[..., 0], 7), image[:7, :14, 0])
    tensor = torch.rand(2, 3, 11, 14)
    assert torch.equal(mod_crop(tensor, 3), tensor[..., :9, :12])
    assert mod_crop(torch.zeros(2, 2, dtype=torch.bool), 1).shape == (2, 2)
    with pytest.raises(ValueError, match='expected at least 12x12 pixels, found 11x14'):
        mod_crop(image, 12)


@pytest.mark.parametrize('function', [downsample, upsample, mod_crop])
@pytest.mark.parametrize('factor', [0, -2, 2.0, True, None])
def test_factor_must_be_a_positive_integer(function, factor):
    with pytest.raises(ValueError, match='factor: expected a positive integer, found'):
        function(np.zeros((8, 8)), factor)


@pytest.mark.parametrize('scale', [0, -0.5, math.inf, math.nan])
def test_scale_must_be_positive_and_finite(scale):
    with pytest.raises(ValueError, match='scale: expected a positive, finite number, found'):
        imresize(np.zeros((8, 8)), scale)


@pytest.mark.parametrize('scale', ['2', None, True, (2, 2)])
def test_scale_must_be_a_number(scale):
    with pytest.raises(TypeError, match='scale: expected a number, found'):
        imresize(np.zeros((8, 8)), scale)


@pytest.mark.parametrize(
    ('image', 'found'),
    [
        (np.zeros((4, 4), bool), 'bool'),
        (np.zeros((4, 4), np.int64), 'int64'),
        (torch.zeros(4, 4, dtype=torch.bool), 'bool'),
        (torch.zeros(4, 4, dtype=torch.int64), 'int64'),
        (np.zeros((4, 4), complex), 'complex128'),
    ],
)
def test_other_data_types_are_refused(image, found):
    with pytest.raises(TypeError, match=f'expected one of the types uint8, .*float64, found {found}'):
        imresize(image, 0.5)


def test_other_shapes_and_kinds_are_refused():
    with pytest.raises(ValueError, match=r'\(height, width, channels\), found shape \(1, 4, 4, 3\)'):
        imresize(np.zeros((1, 4, 4, 3)), 0.5)
    with pytest.raises(ValueError, match=r'found shape \(4,\)'):
        imresize(np.zeros(4), 0.5)
    with pytest.raises(ValueError, match=r'tensor \(\.\.\., height, width\), found shape \(4,\)'):
        imresize(torch.zeros(4), 0.5)
    with pytest.raises(ValueError, match='at least one pixel'):
        imresize(torch.zeros(3, 0, 4), 0.5)
    with pytest.raises(TypeError, match='expected a numpy array or a torch tensor, found list'):
        imresize([[1.0]], 0.5)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16', 'float32', 'float64'])
@pytest.mark.parametrize('scale', [2, 1 / 3, 0.37])
def test_bands_of_rows_make_what_the_whole_makes(monkeypatch, dtype, scale):
    random = np.random.default_rng(0)
    image = (random.random((333, 201, 3)) * {'uint8': 255, 'uint16': 65535}.get(dtype, 1)).astype(dtype)
    whole, original, bands = imresize(image, scale), resize._apply_blocks, []

    def noting(planes, *arguments):
        bands.append(planes.numel() * planes.element_size())
        return original(planes, *arguments)

    monkeypatch.setattr(resize, 'BYTES_AT_ONCE', 1)
    monkeypatch.setattr(resize, '_apply_blocks', noting)
    found = imresize(image, scale)
    assert len(bands) > 3 and max(bands) < image.size * 8 / 2  # of one block of output rows each
    np.testing.assert_allclose(found, whole, rtol=0, atol=0 if dtype.startswith('u') else 1e-6)


@pytest.mark.parametrize('dtype', ['uint8', 'uint16'])
def test_double_is_im2double(dtype):
    peak = np.iinfo(dtype).max
    image = np.random.default_rng(0).integers(0, peak, (60, 44, 3), dtype, endpoint=True)
    found = downsample(image, 2, double=True)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, downsample(image / peak, 2), rtol=0, atol=1e-14)
